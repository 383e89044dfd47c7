"""One fold of a cohort as tensors, batch by batch, with what was fitted on its training stays.

The values stay where the cohort has them, in a mapped file, and are standardised when a batch is read. So a worker's
memory does not grow with them, and a cohort may be larger than memory.

Letters: C stays of the cohort, N stays of a split, B of a batch, T hours, D variables, S static numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from imputune.data.batches import batches_in_order
from imputune.data.cohort import Cohort
from imputune.data.directions import ObservationCounts
from imputune.data.folds import Fold
from imputune.data.scaling import Scaler, standardised_tensors
from imputune.data.static import static_numbers


class Records(ABC):
    """The records of some stays, without their outcome: all that pretraining reads."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """The numbers of stays, hours and variables: N, T and D."""

    @abstractmethod
    def batch(self, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values and the observed mask of some stays.

        Shapes: stays int64 (B,), positions among these; two float32 tensors (B, T, D) out, values standardised, 0 where
        not observed, and observed as 0/1.
        """

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def values_NTD(self) -> torch.Tensor:
        """The standardised values of all stays, float32, 0 where not observed: a new tensor on every use."""
        values_NTD = torch.empty(self.shape)
        for stays in batches_in_order(len(self)):
            values_NTD[stays[0] : stays[-1] + 1] = self.batch(stays)[0]
        return values_NTD

    @property
    def observed_NTD(self) -> torch.Tensor:
        """Where the values of all stays were observed, bool: a new tensor on every use."""
        observed_NTD = torch.empty(self.shape, dtype=torch.bool)
        for stays in batches_in_order(len(self)):
            observed_NTD[stays[0] : stays[-1] + 1] = self.batch(stays)[1] > 0
        return observed_NTD


@dataclass(frozen=True, eq=False, kw_only=True)
class Split(Records):
    """The stays of one split of a fold.

    Shapes: recorded_CTD float32, in physical units, NaN where not observed; rows_N int64, the split's rows of it;
    outcome_N float32, 0/1; stay_ids_N int64; static_NS float32, the static facts as `static_numbers` gives them.
    """

    recorded_CTD: np.ndarray
    rows_N: np.ndarray
    scaler: Scaler
    outcome_N: torch.Tensor
    stay_ids_N: np.ndarray
    static_NS: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `Records.shape`."""
        _, hours, variables = self.recorded_CTD.shape
        return len(self.rows_N), hours, variables

    def batch(self, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Records.batch`."""
        values, observed = standardised_tensors(self.recorded_CTD[self.rows_N[stays.numpy()]], self.scaler)
        return values, observed.float()

    def observed(self, stays: torch.Tensor) -> torch.Tensor:
        """Return where the values of some stays were observed, bool (B, T, D), without standardising them."""
        return torch.from_numpy(~np.isnan(self.recorded_CTD[self.rows_N[stays.numpy()]]))


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedRecords(Records):
    """The records of several splits, one after the other; they have the same hours and variables."""

    parts: tuple[Split, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `Records.shape`."""
        _, hours, variables = self.parts[0].shape
        return sum(map(len, self.parts)), hours, variables

    def batch(self, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Records.batch`."""
        values_BTD = torch.empty(len(stays), *self.shape[1:])
        observed_BTD = torch.empty_like(values_BTD)
        start = 0
        for part in self.parts:
            in_part_B = (stays >= start) & (stays < start + len(part))
            values_BTD[in_part_B], observed_BTD[in_part_B] = part.batch(stays[in_part_B] - start)
            start += len(part)
        return values_BTD, observed_BTD


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldData:
    """A fold ready for training; the scaler, and what is counted, come from its training stays only.

    bin_hours: how many hours pass from one of the T bins to the next.
    """

    number: int
    scaler: Scaler
    train: Split
    validation: Split
    test: Split
    bin_hours: int = 1

    @property
    def median_gap_hours_D(self) -> np.ndarray:
        """Each variable's median hours between consecutive observations; see `ObservationCounts.median_gap_hours`."""
        return self._counts.median_gap_hours() * np.float32(self.bin_hours)

    @property
    def observed_count_D(self) -> np.ndarray:
        """The number of observed cells of each variable, int64 (D,)."""
        return self._counts.observed_D

    @cached_property
    def _counts(self) -> ObservationCounts:
        _, hours, variables = self.train.shape
        batches = (self.train.observed(stays).numpy() for stays in batches_in_order(len(self.train)))
        return ObservationCounts.of(batches, hours, variables)


def fit_and_split(cohort: Cohort, fold: Fold, clip_quantile: float) -> FoldData:
    """Fit a scaler on the fold's training stays, and split the cohort; the scaler standardises every split."""
    return split_cohort(cohort, fold, Scaler.fit(cohort.values_NTD, clip_quantile, fold.train))


def split_cohort(cohort: Cohort, fold: Fold, scaler: Scaler) -> FoldData:
    """Split a cohort; a scaler that was fitted on the fold's training stays standardises every split."""
    train, validation, test = (_split(cohort, rows, scaler) for rows in (fold.train, fold.validation, fold.test))
    return FoldData(
        number=fold.number, scaler=scaler, train=train, validation=validation, test=test, bin_hours=cohort.bin_hours
    )


def with_further(train: Split, cohorts: Sequence[Cohort], scaler: Scaler) -> Records:
    """Return the records of a fold's training stays, and behind them those of all stays of further cohorts.

    The scaler is the fold's own, so that all imputers of a fold read values on the same scale. The cohorts have the
    fold's variables in the same order and units.
    """
    further = (_split(cohort, np.arange(len(cohort.stay_ids_N)), scaler) for cohort in cohorts)
    return JoinedRecords(parts=(train, *further))


def shuffled_across_stays(split: Split, generator: torch.Generator) -> Split:
    """Return a split in which each variable's series, missing values included, is moved to a random stay.

    Each variable's own series stay as they were, but the variables of a stay no longer belong to the same patient. The
    split has values of its own, in memory.
    """
    recorded_NTD = np.empty(split.shape, dtype=np.float32)
    for d in range(recorded_NTD.shape[-1]):
        from_N = torch.randperm(len(split), generator=generator).numpy()
        recorded_NTD[..., d] = split.recorded_CTD[split.rows_N[from_N], :, d]
    return replace(split, recorded_CTD=recorded_NTD, rows_N=np.arange(len(split)))


def _split(cohort: Cohort, rows: np.ndarray, scaler: Scaler) -> Split:
    return Split(
        recorded_CTD=np.asarray(cohort.values_NTD),
        rows_N=rows,
        scaler=scaler,
        outcome_N=torch.from_numpy(cohort.outcome_N[rows].astype(np.float32)),
        stay_ids_N=cohort.stay_ids_N[rows],
        static_NS=static_numbers(cohort.static, cohort.static_variables)[rows],
    )
