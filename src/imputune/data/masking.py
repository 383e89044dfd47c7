"""Hiding observed cells, so that an imputer can be trained and scored on values it did not see."""

import numpy as np
import torch

from imputune.settings.names import Hiding


def hiding_rates(observed_NTD: np.ndarray, hiding: Hiding, share: float, factor: float) -> np.ndarray:
    """Return each variable's probability that an observed cell is hidden, from training stays alone.

    `uniform` gives every variable `share`. `non_uniform` gives a variable observed n_v times, where the mean over
    variables is n, min(share * (n / n_v) * factor, 1) if n_v < n, else share * (n_v / n) / factor: the rare and the
    very frequent are hidden more. All are then scaled, none above 1, so that the expected share of hidden cells
    is `share`.

    Shapes: observed_NTD boolean (N, T, D); float64 (D,) out, in [0, 1]. A never observed variable has rate 0.

    Source: CSAI (arXiv 2312.16713), section on non-uniform masking.
    """
    count_D = observed_NTD.reshape(-1, observed_NTD.shape[-1]).sum(axis=0).astype(np.float64)
    if hiding == "uniform" or not count_D.any():
        return np.where(count_D > 0, share, 0.0)
    relative_D = count_D / count_D.mean()
    rare_D = np.minimum(share * factor / np.where(count_D > 0, relative_D, 1.0), 1.0)
    rate_D = np.where(relative_D < 1.0, rare_D, share * relative_D / factor)
    return _scale_to_share(np.where(count_D > 0, rate_D, 0.0), count_D, share)


def _scale_to_share(rate_D: np.ndarray, count_D: np.ndarray, share: float) -> np.ndarray:
    """Scale rates by one factor, cutting at 1, until the count-weighted mean is `share`."""
    full_D = np.zeros(rate_D.shape, dtype=bool)
    while True:
        wanted = share * count_D.sum() - count_D[full_D].sum()
        scale = wanted / (rate_D * count_D)[~full_D].sum()
        scaled_D = np.where(full_D, 1.0, rate_D * scale)
        over_D = (scaled_D > 1.0) & ~full_D
        if not over_D.any():
            return scaled_D
        full_D |= over_D


def hide(observed_BTD: torch.Tensor, rate_D: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw which observed cells are held out.

    Shapes: observed_BTD 0/1 (B, T, D), rate_D (D,); 0/1 (B, T, D) out, 1 only where observed_BTD is 1.
    """
    draw_BTD = torch.rand(observed_BTD.shape, generator=generator, dtype=observed_BTD.dtype)
    return observed_BTD * (draw_BTD < rate_D).to(observed_BTD.dtype)
