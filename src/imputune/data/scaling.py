"""Clipping and standardisation, fitted on training stays only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch

PREFIX = "scaler."
FITTED_AT_ONCE = 2**28  # bytes of training values, of as many variables as fit
READ_AT_ONCE = 256  # stays


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaler:
    """Lowest and highest value, mean and standard deviation of each variable, in the variable's own unit.

    Values are clipped to the lowest and highest before they are standardised: a few raw values are impossible (a pH
    of 735) and would make the deviation a hundred times too large. Shapes: all four are float32 (D,). A variable whose
    training values do not vary, or that was never observed in training, is not clipped (limits -inf and inf) and has
    deviation 1: it is only centred.

    Source: paper, section V.D ("custom normalisation function"); clipping is ours.
    """

    lowest_D: np.ndarray
    highest_D: np.ndarray
    mean_D: np.ndarray
    deviation_D: np.ndarray

    @classmethod
    def fit(cls, values_NTD: np.ndarray, clip_quantile: float = 0.0, training: np.ndarray | None = None) -> Self:
        """Fit on the observed cells of training stays; the limits are `clip_quantile` and its mirror image.

        Shapes: values_NTD (N, T, D) in physical units, NaN = not observed; training, the positions of the training
        stays among the N, or None if all are. With `clip_quantile` 0 nothing is clipped. Beside the values, this takes
        the memory of the training values of a few variables.
        """
        stays = np.arange(len(values_NTD)) if training is None else training
        fitted = [_fit_variable(cells, clip_quantile) for cells in _observed_cells(values_NTD, stays)]
        lowest_D, highest_D, mean_D, deviation_D = np.array(fitted, dtype=np.float32).T
        return cls(lowest_D=lowest_D, highest_D=highest_D, mean_D=mean_D, deviation_D=deviation_D)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, torch.Tensor | np.ndarray]) -> Self:
        """Return the scaler that `to_arrays` turned into these arrays; other arrays among them are ignored."""
        return cls(**{field.name: np.asarray(arrays[_stored_name(field.name)]) for field in fields(cls)})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays to store with a model: scaler.lowest, scaler.highest, scaler.mean, scaler.deviation."""
        return {_stored_name(field.name): getattr(self, field.name) for field in fields(self)}

    def standardise_in_place(self, values_NTD: np.ndarray) -> None:
        """Turn float32 values (N, T, D) into (clipped value - mean) / deviation; NaN stays NaN."""
        np.clip(values_NTD, self.lowest_D, self.highest_D, out=values_NTD)
        values_NTD -= self.mean_D
        values_NTD /= self.deviation_D

    def restore(self, standardised_NTD: np.ndarray) -> np.ndarray:
        """Return standardised values in physical units again, float32 (N, T, D)."""
        return (standardised_NTD * self.deviation_D + self.mean_D).astype(np.float32)


def _stored_name(field: str) -> str:
    return PREFIX + field.removesuffix("_D")


def _observed_cells(values_NTD: np.ndarray, stays: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the observed values of each variable, in the order of stays and hours."""
    _, hours, variables = values_NTD.shape
    cells = len(stays) * hours
    at_once = max(1, FITTED_AT_ONCE // max(1, cells * values_NTD.itemsize))
    for first in range(0, variables, at_once):
        columns = np.empty((min(at_once, variables - first), cells), dtype=values_NTD.dtype)
        for start in range(0, len(stays), READ_AT_ONCE):
            read = values_NTD[stays[start : start + READ_AT_ONCE], :, first : first + at_once]
            columns[:, start * hours : (start + len(read)) * hours] = read.reshape(-1, len(columns)).T
        for column in columns:
            yield column[~np.isnan(column)]


def _fit_variable(cells: np.ndarray, clip_quantile: float) -> tuple[float, float, float, float]:
    """Return lowest, highest, mean and deviation of a variable's observed cells."""
    lowest, highest = -np.inf, np.inf
    if not len(cells):
        return lowest, highest, 0.0, 1.0
    cells = cells.astype(np.float64)
    if clip_quantile:
        lowest, highest = np.quantile(cells, (clip_quantile, 1 - clip_quantile))
        cells = np.clip(cells, lowest, highest)
    mean, deviation = cells.mean(), cells.std()
    if deviation <= 1e-6 * max(abs(mean), 1e-6):
        return -np.inf, np.inf, mean, 1.0
    return lowest, highest, mean, deviation


def standardised_tensors(values_NTD: np.ndarray, scaler: Scaler) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what models read: the standardised values, 0 where missing, and where they were observed.

    Shapes: values_NTD float32 (N, T, D) in physical units, NaN = not observed. It is changed in place and becomes the
    memory of the first tensor, so that no second array of its size is needed. Two tensors (N, T, D) out, float32 and
    bool.
    """
    observed_NTD = ~np.isnan(values_NTD)
    scaler.standardise_in_place(values_NTD)
    np.copyto(values_NTD, 0, where=~observed_NTD)
    return torch.from_numpy(values_NTD), torch.from_numpy(observed_NTD)
