"""Standardisation fitted on training stays alone."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Scaler:
    """Mean and deviation per variable, in the variable's own unit.

    Shapes: `mean_D` and `deviation_D` are float32 (D,). A variable whose training values do not vary, or that
    was never observed in training, has deviation 1: it is only centred.

    Source: paper, section V.D ("custom normalisation function").
    """

    mean_D: np.ndarray
    deviation_D: np.ndarray

    @classmethod
    def fit(cls, values_NTD: np.ndarray) -> "Scaler":
        """Fit on the observed cells of training stays.

        Shapes: values_NTD (N, T, D) in physical units, NaN = not observed.
        """
        cells = values_NTD.reshape(-1, values_NTD.shape[-1]).astype(np.float64)
        observed = ~np.isnan(cells)
        count_D = np.maximum(observed.sum(axis=0), 1)
        mean_D = np.where(observed, cells, 0.0).sum(axis=0) / count_D
        square_D = (np.where(observed, cells - mean_D, 0.0) ** 2).sum(axis=0) / count_D
        deviation_D = np.sqrt(square_D)
        varies_D = deviation_D > 1e-6 * np.maximum(np.abs(mean_D), 1e-6)
        return cls(mean_D.astype(np.float32), np.where(varies_D, deviation_D, 1.0).astype(np.float32))

    def standardise(self, values_NTD: np.ndarray) -> np.ndarray:
        """Return (values - mean) / deviation as float32 (N, T, D); NaN stays NaN."""
        return ((values_NTD - self.mean_D) / self.deviation_D).astype(np.float32)

    def restore(self, standardised_NTD: np.ndarray) -> np.ndarray:
        """Return standardised values in physical units again, float32 (N, T, D)."""
        return (standardised_NTD * self.deviation_D + self.mean_D).astype(np.float32)


def to_tensors(standardised_NTD: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Split a NaN-holed array into what models read: values with 0 in the holes, and observed as 0/1.

    Shapes: (N, T, D) in; two float32 tensors (N, T, D) out.
    """
    observed = ~np.isnan(standardised_NTD)
    values = np.where(observed, standardised_NTD, 0.0).astype(np.float32)
    return torch.from_numpy(values), torch.from_numpy(observed.astype(np.float32))
