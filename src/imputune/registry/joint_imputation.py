"""The imputed series of several folds' imputers, which read the stays in one pass; a bundle gives their mean."""

from collections.abc import Sequence

import numpy as np
import torch

from imputune.errors import UserError
from imputune.models.stacked_csai import StackedCsai
from imputune.registry.fold_models import NO_IMPUTER, FoldModel, FoldRecord
from imputune.registry.joint_risks import BATCH
from imputune.runtime import threads


def mean_imputation(models: Sequence[FoldModel], values_NTD: np.ndarray) -> np.ndarray:
    """Return the mean of the folds' imputed series, float64 (N, T, D), in the variables' units.

    Shapes: values_NTD float32, NaN where not observed. Raises UserError if the models have no imputer.
    """
    imputers = [model.imputer for model in models if model.imputer is not None]
    if len(imputers) < len(models):
        raise UserError(NO_IMPUTER)
    stacked = StackedCsai(imputers)

    def of_batch(start: int) -> np.ndarray:
        values_BTD = values_NTD[start : start + BATCH]
        records = [FoldRecord(model.scaler, values_BTD, np.empty((len(values_BTD), 0))) for model in models]
        read = stacked.read(torch.stack([each.values_NTD for each in records]), records[0].observed_NTD.float())
        filled_BTD = np.zeros(values_BTD.shape, dtype=np.float64)
        for model, imputed_BTD in zip(models, read.imputed_FBTD, strict=True):
            filled_BTD += model.scaler.restore(imputed_BTD.numpy()) / len(models)
        return filled_BTD

    return np.concatenate(threads.side_by_side(of_batch, range(0, len(values_NTD), BATCH)))
