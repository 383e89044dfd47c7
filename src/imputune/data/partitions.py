"""One fold of a cohort as tensors, with everything that was fitted on its training stays."""

from dataclasses import dataclass

import numpy as np
import torch

from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.scaling import Scaler, to_tensors
from imputune.data.views import median_gap_hours


@dataclass(frozen=True, eq=False)
class Partition:
    """Stays of one part of a fold.

    Shapes: values_NTD standardised, 0 where not observed; observed_NTD 0/1; died_N 0/1; all float32. stay_ids_N int64.
    """

    values_NTD: torch.Tensor
    observed_NTD: torch.Tensor
    died_N: torch.Tensor
    stay_ids_N: np.ndarray

    def __len__(self) -> int:
        return len(self.stay_ids_N)


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
        values_NTD, observed_NTD = to_tensors(scaler.standardise(cohort.values_NTD[stays]))
        died_N = torch.from_numpy(cohort.died_N[stays].astype(np.float32))
        return Partition(values_NTD, observed_NTD, died_N, cohort.stay_ids_N[stays])

    gaps_D = median_gap_hours(~np.isnan(cohort.values_NTD[fold.train]))
    return FoldData(fold.number, scaler, gaps_D, part(fold.train), part(fold.validation), part(fold.test))
