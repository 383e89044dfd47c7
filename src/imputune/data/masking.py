"""Masking of observed cells, so that an imputer can be trained and scored on values that it did not read."""

import numpy as np
import torch

from imputune.settings.names import MaskingPattern


def masking_rates(observed_count_D: np.ndarray, pattern: MaskingPattern, rate: float, factor: float) -> np.ndarray:
    """Return for each variable the probability that an observed cell is masked, from training stays only.

    `uniform` gives every variable the same `rate`. `non_uniform` masks rare and very frequent variables more: a
    variable observed n_v times, where the mean over variables is n, gets min(rate * (n / n_v) * factor, 1) if n_v < n,
    else rate * (n_v / n) / factor. All probabilities are then scaled by one factor, and cut at 1, so that the expected
    fraction of masked cells is `rate`.

    Shapes: observed_count_D (D,), how many cells of each variable were observed; float64 (D,) out, in [0, 1]. A
    variable that was never observed gets 0.

    Source: CSAI (arXiv 2312.16713), section on non-uniform masking.
    """
    count_D = observed_count_D.astype(np.float64)
    if pattern == "uniform" or not count_D.any():
        return np.where(count_D > 0, rate, 0.0)
    relative_D = count_D / count_D.mean()
    rare_D = np.minimum(rate * factor / np.where(count_D > 0, relative_D, 1.0), 1.0)
    rate_D = np.where(relative_D < 1.0, rare_D, rate * relative_D / factor)
    return _scale_to_rate(np.where(count_D > 0, rate_D, 0.0), count_D, rate)


def _scale_to_rate(rate_D: np.ndarray, count_D: np.ndarray, rate: float) -> np.ndarray:
    """Scale rates by one factor and cut them at 1, so that their mean weighted by count is `rate`."""
    cut_D = np.zeros(rate_D.shape, dtype=bool)
    while True:
        wanted = rate * count_D.sum() - count_D[cut_D].sum()
        scale = wanted / (rate_D * count_D)[~cut_D].sum()
        scaled_D = np.where(cut_D, 1.0, rate_D * scale)
        over_D = (scaled_D > 1.0) & ~cut_D
        if not over_D.any():
            return scaled_D
        cut_D |= over_D


def draw_mask(observed_BTD: torch.Tensor, rate_D: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw which observed cells are masked, each at its variable's rate.

    Shapes: observed_BTD 0/1 (B, T, D), rate_D (D,); 0/1 (B, T, D) out, 1 only where observed_BTD is 1.
    """
    draw_BTD = torch.rand(observed_BTD.shape, generator=generator, dtype=observed_BTD.dtype)
    return observed_BTD * (draw_BTD < rate_D).to(observed_BTD.dtype)


def draw_variable_mask(observed_BTD: torch.Tensor, rate: float, generator: torch.Generator) -> torch.Tensor:
    """Draw which variables of a stay are masked as a whole, each with probability `rate`.

    Shapes: observed_BTD 0/1 (B, T, D); 0/1 (B, T, D) out, 1 only where observed_BTD is 1.

    Source: masking of an event type in DuETT (Labach et al. 2023, arXiv 2304.13017), which masks one of each record.
    """
    stays, _, variables = observed_BTD.shape
    draw_B1D = torch.rand(stays, 1, variables, generator=generator, dtype=observed_BTD.dtype)
    return observed_BTD * (draw_B1D < rate).to(observed_BTD.dtype)
