"""The two readings of a record, forward and backward, with the time gaps each one sees.

Letters: B stays, T hours, D variables, K the two readings (0 forward, 1 backward).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Views:
    """What an imputer reads of a batch; each tensor is (K, B, T, D), the backward reading in its own order of time.

    values: standardised, 0 where not observed. observed: 0/1. gap_hours: see `gap_hours`. last_observed: the
    latest value observed before this hour, 0 if there is none.

    Memory is laid out hour by hour, (K, T, B, D), as a recurrence reads it: `.transpose(1, 2)` is contiguous.
    """

    values: torch.Tensor
    observed: torch.Tensor
    gap_hours: torch.Tensor
    last_observed: torch.Tensor

    @classmethod
    def read(cls, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> "Views":
        """Build both readings; whatever stands in `values_BTD` under observed = 0 has no effect.

        Shapes: values_BTD standardised (B, T, D), observed_BTD 0/1 (B, T, D), of one dtype. Differentiable in values.
        """
        values = _both_readings(values_BTD.masked_fill(observed_BTD == 0, 0.0))
        observed = _both_readings(observed_BTD)
        return cls(values, observed, gap_hours(observed), last_observed(values, observed))


def gap_hours(observed: torch.Tensor) -> torch.Tensor:
    """Return how many hours each cell's reader has gone without a value of that variable.

    The rule is BRITS's: gap[0] = 1, gap[t] = 1 + (1 - observed[t]) * gap[t-1].

        hour      0  1  2  3  4  5
        observed  0  1  0  0  1  0
        gap       1  1  2  3  1  2

    Shapes: observed 0/1 (..., T, D); the same shape, dtype and memory layout out, in hours. No gradient.

    Source: BRITS (Cao et al. 2018), section 3, as its authors' code applies it.
    """
    gap = 1 - observed.detach()
    hours = gap.unbind(-2)
    one = torch.ones_like(hours[0])
    hours[0].copy_(one)
    for before, now in pairwise(hours):
        torch.addcmul(one, now, before, out=now)
    return gap


def last_observed(values: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """Return the latest value observed strictly before each hour, 0 where there is none.

    Shapes: values, finite everywhere, and observed 0/1 (..., B, T, D), of one dtype; the same shape out, its memory
    (..., T, B, D). Differentiable in values.
    """
    latest = [torch.zeros_like(values[..., 0, :])]
    for value, seen in zip(values.unbind(-2)[:-1], observed.unbind(-2)[:-1], strict=True):
        latest.append(torch.lerp(latest[-1], value, seen))  # a choice, exact at weights 0 and 1; `where` is slower
    return _hour_by_hour(latest)


def median_gap_hours(observed_NTD: np.ndarray) -> np.ndarray:
    """Return each variable's median time between consecutive observations, over training stays.

    Shapes: observed_NTD boolean (N, T, D); float32 (D,) out, in hours. A variable never observed twice in one stay
    gets T, the longest time a record could show. Memory beside the input is that of a few variables.

    Source: CSAI (arXiv 2312.16713), conditional decay.
    """
    _, hours, variables = observed_NTD.shape
    median_D = np.full(variables, hours, dtype=np.float32)
    for d in range(variables):
        place = np.flatnonzero(observed_NTD[:, :, d])  # stay * hours + hour
        gaps = np.diff(place)[np.diff(place // hours) == 0]
        if gaps.size:
            median_D[d] = np.median(gaps)
    return median_D


def _both_readings(cells_BTD: torch.Tensor) -> torch.Tensor:
    forward = cells_BTD.unbind(1)
    return _hour_by_hour(forward + forward[::-1]).unflatten(1, (2, -1)).transpose(0, 1)


def _hour_by_hour(hours: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join cells (..., B, D) of successive hours to (..., B, T, D) whose memory is (..., T, B, D)."""
    return torch.stack(tuple(hours), dim=-3).transpose(-3, -2)
