"""The two readings of a record, forward and backward, with the time gaps each one sees.

Letters: B stays, T hours, D variables, K the two readings (0 forward, 1 backward).
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Views:
    """What an imputer reads of a batch; each tensor is (K, B, T, D), the backward reading in its own order of time.

    values: standardised, 0 where not observed. observed: 0/1. gap_hours: see `gap_hours`. last_observed: the
    latest value observed before this hour, 0 if there is none.
    """

    values: torch.Tensor
    observed: torch.Tensor
    gap_hours: torch.Tensor
    last_observed: torch.Tensor

    @classmethod
    def read(cls, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> "Views":
        """Build both readings; whatever stands in `values_BTD` under observed = 0 has no effect.

        Shapes: values_BTD standardised (B, T, D), observed_BTD 0/1 (B, T, D).
        """
        seen_BTD = torch.where(observed_BTD > 0, values_BTD, torch.zeros_like(values_BTD))
        values = torch.stack([seen_BTD, seen_BTD.flip(1)])
        observed = torch.stack([observed_BTD, observed_BTD.flip(1)])
        return cls(values, observed, gap_hours(observed), last_observed(values, observed))


def gap_hours(observed: torch.Tensor) -> torch.Tensor:
    """Return how many hours each cell's reader has gone without a value of that variable.

    The rule is BRITS's: gap[0] = 1, gap[t] = 1 + (1 - observed[t]) * gap[t-1].

        hour      0  1  2  3  4  5
        observed  0  1  0  0  1  0
        gap       1  1  2  3  1  2

    Shapes: observed 0/1 (..., T, D); the same shape and dtype out, in hours.

    Source: BRITS (Cao et al. 2018), section 3, as its authors' code applies it.
    """
    hours = observed.shape[-2]
    hour_T1 = torch.arange(hours, device=observed.device).unsqueeze(-1)
    anchor = torch.where(observed > 0, hour_T1, torch.zeros_like(hour_T1))
    return (hour_T1 + 1 - anchor.cummax(dim=-2).values).to(observed.dtype)


def last_observed(values: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """Return the latest value observed strictly before each hour, 0 where there is none.

    Shapes: values and observed 0/1 (..., T, D); the same shape out. Differentiable in values.
    """
    hours = observed.shape[-2]
    hour_T1 = torch.arange(1, hours + 1, device=observed.device).unsqueeze(-1)
    latest = torch.where(observed > 0, hour_T1, torch.zeros_like(hour_T1)).cummax(dim=-2).values
    nothing = torch.zeros_like(values[..., :1, :])
    before = torch.cat([torch.zeros_like(latest[..., :1, :]), latest[..., :-1, :]], dim=-2)
    return torch.cat([nothing, values], dim=-2).gather(-2, before)


def median_gap_hours(observed_NTD: np.ndarray) -> np.ndarray:
    """Return each variable's median time between consecutive observations, over training stays.

    Shapes: observed_NTD boolean (N, T, D); float32 (D,) out, in hours. A variable never observed twice in one stay
    gets T, the longest time a record could show.

    Source: CSAI (arXiv 2312.16713), conditional decay.
    """
    hours = observed_NTD.shape[1]
    hour_T1 = np.arange(hours)[:, None]
    latest_NTD = np.maximum.accumulate(np.where(observed_NTD, hour_T1, -1), axis=1)
    before_NTD = np.concatenate([np.full_like(latest_NTD[:, :1], -1), latest_NTD[:, :-1]], axis=1)
    repeated_NTD = observed_NTD & (before_NTD >= 0)
    gap_NTD = hour_T1 - before_NTD
    medians = [
        float(np.median(gap_NTD[:, :, d][repeated_NTD[:, :, d]])) if repeated_NTD[:, :, d].any() else float(hours)
        for d in range(observed_NTD.shape[2])
    ]
    return np.array(medians, dtype=np.float32)
