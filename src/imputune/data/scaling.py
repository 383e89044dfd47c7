"""Standardisation fitted on training stays alone."""

from dataclasses import dataclass, fields

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Scaler:
    """Range, mean and deviation per variable, in the variable's own unit.

    Values beyond the range are drawn to its ends before they are standardised: a few raw values are impossible (a pH
    of 735), and would swell a deviation a hundredfold. Shapes: all four are float32 (D,). A variable whose training
    values do not vary, or that was never observed in training, has no range and deviation 1: it is only centred.

    Source: paper, section V.D ("custom normalisation function"); the range is ours.
    """

    lowest_D: np.ndarray
    highest_D: np.ndarray
    mean_D: np.ndarray
    deviation_D: np.ndarray

    @classmethod
    def fit(cls, values_NTD: np.ndarray, tail_share: float = 0.0) -> "Scaler":
        """Fit on the observed cells of training stays; the range leaves out `tail_share` of them at either end.

        Shapes: values_NTD (N, T, D) in physical units, NaN = not observed. With `tail_share` 0 there is no range.
        """
        fitted = [
            _fit_variable(column[~np.isnan(column)], tail_share)
            for column in values_NTD.reshape(-1, values_NTD.shape[-1]).T
        ]
        return cls(*np.array(fitted, dtype=np.float32).T)

    def standardise_in_place(self, values_NTD: np.ndarray) -> None:
        """Turn float32 values (N, T, D) into (values within the range - mean) / deviation; NaN stays NaN."""
        np.clip(values_NTD, self.lowest_D, self.highest_D, out=values_NTD)
        values_NTD -= self.mean_D
        values_NTD /= self.deviation_D

    def restore(self, standardised_NTD: np.ndarray) -> np.ndarray:
        """Return standardised values in physical units again, float32 (N, T, D)."""
        return (standardised_NTD * self.deviation_D + self.mean_D).astype(np.float32)


def _fit_variable(cells: np.ndarray, tail_share: float) -> tuple[float, float, float, float]:
    """Return lowest, highest, mean and deviation of a variable's observed cells."""
    lowest, highest = -np.inf, np.inf
    if not len(cells):
        return lowest, highest, 0.0, 1.0
    cells = cells.astype(np.float64)
    if tail_share:
        lowest, highest = np.quantile(cells, (tail_share, 1 - tail_share))
        cells = np.clip(cells, lowest, highest)
    mean, deviation = cells.mean(), cells.std()
    if deviation <= 1e-6 * max(abs(mean), 1e-6):
        return -np.inf, np.inf, mean, 1.0
    return lowest, highest, mean, deviation


def standardised_tensors(values_NTD: np.ndarray, scaler: Scaler) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what models read: the values standardised, with 0 in the holes, and where they were observed.

    Shapes: values_NTD float32 (N, T, D) in physical units, NaN = not observed; it becomes the memory of the first
    tensor, so that no second array of that size is needed. Two tensors (N, T, D) out, float32 and bool.
    """
    observed_NTD = ~np.isnan(values_NTD)
    scaler.standardise_in_place(values_NTD)
    np.copyto(values_NTD, 0, where=~observed_NTD)
    return torch.from_numpy(values_NTD), torch.from_numpy(observed_NTD)


def scaler_weights(scaler: Scaler) -> dict[str, np.ndarray]:
    """Return a scaler as arrays to save with a model."""
    return {f"scaler.{name.removesuffix('_D')}": array for name, array in vars(scaler).items()}


def load_scaler(weights: dict[str, torch.Tensor]) -> Scaler:
    """Return the scaler saved with a model."""
    return Scaler(*(weights[f"scaler.{field.name.removesuffix('_D')}"].numpy() for field in fields(Scaler)))
