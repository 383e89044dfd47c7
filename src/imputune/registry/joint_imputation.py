"""The imputed series of several folds' imputers, which read the stays in one pass; a bundle gives their mean."""

from collections.abc import Sequence

import numpy as np
import torch

from imputune.errors import UserError
from imputune.models.stacked_csai import StackedCsai
from imputune.registry.fold_models import NO_IMPUTER, FoldModel, FoldRecord
from imputune.registry.joint_risks import BATCH
from imputune.runtime import threads


class JointImputers:
    """The imputers of the models of several folds. Raises UserError if a model has none."""

    def __init__(self, models: Sequence[FoldModel]) -> None:
        imputers = [model.imputer for model in models if model.imputer is not None]
        if len(imputers) < len(models):
            raise UserError(NO_IMPUTER)
        self.scalers = [model.scaler for model in models]
        self.stacked = StackedCsai(imputers)

    def mean(self, values_NTD: np.ndarray) -> np.ndarray:
        """Return the mean of the folds' imputed series, float64 (N, T, D), in the variables' units.

        Shapes: values_NTD float32, in the variables' units, NaN where not observed.
        """

        def of_batch(start: int) -> np.ndarray:
            return self._of_batch(values_NTD[start : start + BATCH])

        return np.concatenate(threads.side_by_side(of_batch, range(0, len(values_NTD), BATCH)))

    def _of_batch(self, values_BTD: np.ndarray) -> np.ndarray:
        records = [FoldRecord(scaler, values_BTD, np.empty((len(values_BTD), 0))) for scaler in self.scalers]
        read = self.stacked.read(torch.stack([each.values_NTD for each in records]), records[0].observed_NTD.float())
        mean_BTD = np.zeros(values_BTD.shape, dtype=np.float64)
        for scaler, imputed_BTD in zip(self.scalers, read.imputed_FBTD, strict=True):
            mean_BTD += scaler.restore(imputed_BTD.numpy()) / len(self.scalers)
        return mean_BTD
