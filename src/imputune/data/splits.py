"""One fold of a cohort as tensors, with what was fitted on its training stays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from imputune.data.cohort import Cohort
from imputune.data.directions import median_gap_hours
from imputune.data.folds import Fold
from imputune.data.scaling import Scaler, standardised_tensors
from imputune.data.static import static_numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class Records:
    """The records of some stays, without their outcome: all that pretraining reads.

    Shapes: values_NTD float32, standardised, 0 where not observed; observed_NTD bool.
    """

    values_NTD: torch.Tensor
    observed_NTD: torch.Tensor

    def __len__(self) -> int:
        return len(self.values_NTD)

    def batch(self, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values and the observed mask of some stays.

        Shapes: stays int64 (B,), positions among these; two float32 tensors (B, T, D) out, observed as 0/1.
        """
        return self.values_NTD[stays], self.observed_NTD[stays].float()


@dataclass(frozen=True, eq=False, kw_only=True)
class Split(Records):
    """The stays of one split of a fold.

    Shapes: outcome_N float32, 0/1; stay_ids_N int64; static_NS float32, the static facts as `static_numbers` gives
    them.
    """

    outcome_N: torch.Tensor
    stay_ids_N: np.ndarray
    static_NS: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldData:
    """A fold ready for training; `scaler` and `median_gap_hours_D` come from its training stays only."""

    number: int
    scaler: Scaler
    median_gap_hours_D: np.ndarray
    train: Split
    validation: Split
    test: Split


def fit_and_split(cohort: Cohort, fold: Fold, clip_quantile: float) -> FoldData:
    """Fit a scaler on the fold's training stays, standardise the cohort with it, and split the cohort."""
    return split_cohort(cohort, fold, Scaler.fit(cohort.values_NTD[fold.train], clip_quantile))


def split_cohort(cohort: Cohort, fold: Fold, scaler: Scaler) -> FoldData:
    """Standardise a cohort with a scaler that was fitted on the fold's training stays, and split the cohort."""

    static_NS = static_numbers(cohort.static, cohort.static_variables)

    def split(stays: np.ndarray) -> Split:
        values_NTD, observed_NTD = standardised_tensors(cohort.values_NTD[stays], scaler)
        return Split(
            values_NTD=values_NTD,
            observed_NTD=observed_NTD,
            outcome_N=torch.from_numpy(cohort.outcome_N[stays].astype(np.float32)),
            stay_ids_N=cohort.stay_ids_N[stays],
            static_NS=static_NS[stays],
        )

    train, validation, test = (split(stays) for stays in (fold.train, fold.validation, fold.test))
    cohort.release()
    return FoldData(
        number=fold.number,
        scaler=scaler,
        median_gap_hours_D=median_gap_hours(train.observed_NTD.numpy()),
        train=train,
        validation=validation,
        test=test,
    )


def with_further(train: Split, cohorts: Sequence[Cohort], scaler: Scaler) -> Records:
    """Return the records of a fold's training stays, and behind them those of all stays of further cohorts.

    The scaler is the fold's own, so that all imputers of a fold read values on the same scale. The cohorts have the
    fold's variables in the same order and units.
    """
    count = len(train) + sum(len(cohort.stay_ids_N) for cohort in cohorts)
    values_NTD = torch.empty((count, *train.values_NTD.shape[1:]), dtype=train.values_NTD.dtype)
    observed_NTD = torch.empty(values_NTD.shape, dtype=torch.bool)
    values_NTD[: len(train)], observed_NTD[: len(train)] = train.values_NTD, train.observed_NTD
    start = len(train)
    for cohort in cohorts:
        end = start + len(cohort.stay_ids_N)
        values_NTD[start:end], observed_NTD[start:end] = standardised_tensors(np.array(cohort.values_NTD), scaler)
        cohort.release()
        start = end
    return Records(values_NTD=values_NTD, observed_NTD=observed_NTD)


def shuffled_across_stays(split: Split, generator: torch.Generator) -> Split:
    """Return a split in which each variable's series, missing values included, is moved to a random stay.

    Each variable's own series stay as they were, but the variables of a stay no longer belong to the same patient.
    """
    values_NTD, observed_NTD = torch.empty_like(split.values_NTD), torch.empty_like(split.observed_NTD)
    for d in range(split.values_NTD.shape[-1]):
        from_N = torch.randperm(len(split), generator=generator)
        values_NTD[..., d], observed_NTD[..., d] = split.values_NTD[from_N, :, d], split.observed_NTD[from_N, :, d]
    return replace(split, values_NTD=values_NTD, observed_NTD=observed_NTD)
