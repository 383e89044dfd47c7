"""One fold of a cohort as tensors, with everything that was fitted on its training stays."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from imputune.data.cohort import Cohort
from imputune.data.directions import median_gap_hours
from imputune.data.folds import Fold
from imputune.data.scaling import Scaler, standardised_tensors


@dataclass(frozen=True, eq=False)
class Partition:
    """Stays of one part of a fold.

    Shapes: values_NTD float32, standardised, 0 where not observed; observed_NTD bool; died_N float32, 0/1; stay_ids_N
    int64.
    """

    values_NTD: torch.Tensor
    observed_NTD: torch.Tensor
    died_N: torch.Tensor
    stay_ids_N: np.ndarray

    def __len__(self) -> int:
        return len(self.stay_ids_N)

    def batch(self, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values and the observed mask of some stays, as models read them.

        Shapes: stays int64 (B,), positions in this part; two float32 tensors (B, T, D) out, observed as 0/1.
        """
        return self.values_NTD[stays], self.observed_NTD[stays].float()


@dataclass(frozen=True, eq=False)
class FoldData:
    """A fold ready for training; `scaler` and `median_gap_hours_D` come from its training stays alone."""

    number: int
    scaler: Scaler
    median_gap_hours_D: np.ndarray
    train: Partition
    validation: Partition
    test: Partition


def fit_and_divide(cohort: Cohort, fold: Fold, tail_share: float) -> FoldData:
    """Fit a scaler on the fold's training stays, standardise the cohort by it, and split it."""
    return divide(cohort, fold, Scaler.fit(cohort.values_NTD[fold.train], tail_share))


def divide(cohort: Cohort, fold: Fold, scaler: Scaler) -> FoldData:
    """Standardise a cohort by a scaler fitted earlier on the fold's training stays, and split it."""

    def part(stays: np.ndarray) -> Partition:
        values_NTD, observed_NTD = standardised_tensors(cohort.values_NTD[stays], scaler)
        died_N = torch.from_numpy(cohort.died_N[stays].astype(np.float32))
        return Partition(values_NTD, observed_NTD, died_N, cohort.stay_ids_N[stays])

    train, validation, test = (part(stays) for stays in (fold.train, fold.validation, fold.test))
    cohort.release()
    gaps_D = median_gap_hours(train.observed_NTD.numpy())
    return FoldData(fold.number, scaler, gaps_D, train, validation, test)


def dealt_anew(part: Partition, generator: torch.Generator) -> Partition:
    """Return a part in which each variable's series, holes and all, went to another stay drawn at random.

    What a variable does by itself stays as it was; which variables belong to one patient is lost.
    """
    values_NTD, observed_NTD = torch.empty_like(part.values_NTD), torch.empty_like(part.observed_NTD)
    for d in range(part.values_NTD.shape[-1]):
        deal_N = torch.randperm(len(part), generator=generator)
        values_NTD[..., d], observed_NTD[..., d] = part.values_NTD[deal_N, :, d], part.observed_NTD[deal_N, :, d]
    return replace(part, values_NTD=values_NTD, observed_NTD=observed_NTD)
