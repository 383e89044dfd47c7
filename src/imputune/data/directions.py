"""The two directions of a record, forward and backward, each with its own time gaps.

Letters: B stays, T hours, D variables, K the two directions (0 forward, 1 backward).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch


@dataclass(frozen=True, eq=False, kw_only=True)
class Directions:
    """A batch as an imputer reads it; each tensor is (K, B, T, D), the backward direction in its own order of time.

    values: standardised, 0 where not observed. observed: 0/1. gap_hours: see `gap_hours`. last_observed: the
    latest value observed before this hour, 0 if there is none.

    The memory is laid out hour by hour, (K, T, B, D), as a recurrence reads it: `.transpose(1, 2)` is contiguous.
    """

    values: torch.Tensor
    observed: torch.Tensor
    gap_hours: torch.Tensor
    last_observed: torch.Tensor

    @classmethod
    def of(cls, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> "Directions":
        """Build both directions; the numbers in missing cells (observed = 0) have no effect.

        Shapes: values_BTD standardised (B, T, D), observed_BTD 0/1 (B, T, D), of one dtype. Differentiable in values.
        """
        values = _both_directions(values_BTD.masked_fill(observed_BTD == 0, 0.0))
        observed = _both_directions(observed_BTD)
        return cls(
            values=values,
            observed=observed,
            gap_hours=gap_hours(observed),
            last_observed=last_observed(values, observed),
        )


def gap_hours(observed: torch.Tensor) -> torch.Tensor:
    """Return for each cell the hours since its variable was last observed.

    The rule is that of BRITS: gap[0] = 1, gap[t] = 1 + (1 - observed[t]) * gap[t-1].

        hour      0  1  2  3  4  5
        observed  0  1  0  0  1  0
        gap       1  1  2  3  1  2

    Shapes: observed 0/1 (..., T, D); the same shape, dtype and memory layout out, in hours. No gradient.

    Source: BRITS (Cao et al. 2018), section 3, as in its authors' code.
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

    Shapes: values, finite everywhere, and observed 0/1 (..., B, T, D), of one dtype; the same shape out, with memory
    laid out as (..., T, B, D). Differentiable in values.
    """
    latest = [torch.zeros_like(values[..., 0, :])]
    for value, is_observed in zip(values.unbind(-2)[:-1], observed.unbind(-2)[:-1], strict=True):
        latest.append(torch.lerp(latest[-1], value, is_observed))  # exact at weights 0 and 1, and faster than `where`
    return _hour_by_hour(latest)


@dataclass(frozen=True, eq=False, kw_only=True)
class ObservationCounts:
    """How often each variable was observed, and how often at each distance from the observation before.

    Shapes: observed_D int64 (D,); pairs_DT int64 (D, T), in column t the number of pairs of consecutive observations of
    a stay that are t hours apart.
    """

    observed_D: np.ndarray
    pairs_DT: np.ndarray

    @classmethod
    def of(cls, batches: Iterable[np.ndarray], hours: int, variables: int) -> Self:
        """Count over batches of stays, each boolean (B, T, D)."""
        observed_D = np.zeros(variables, dtype=np.int64)
        pairs_DT = np.zeros((variables, hours), dtype=np.int64)
        for observed_BTD in batches:
            observed_D += observed_BTD.sum(axis=(0, 1))
            for d in range(variables):
                position = np.flatnonzero(observed_BTD[:, :, d])  # stay * hours + hour
                gaps = np.diff(position)[np.diff(position // hours) == 0]
                pairs_DT[d] += np.bincount(gaps, minlength=hours)
        return cls(observed_D=observed_D, pairs_DT=pairs_DT)

    def median_gap_hours(self) -> np.ndarray:
        """Return each variable's median time between consecutive observations, float32 (D,), in hours.

        A variable never observed twice in one stay gets T, longer than any gap within a record.

        Source: CSAI (arXiv 2312.16713), conditional decay.
        """
        variables, hours = self.pairs_DT.shape
        median_D = np.full(variables, hours, dtype=np.float32)
        for d, pairs_so_far_T in enumerate(self.pairs_DT.cumsum(axis=1)):
            if pairs := pairs_so_far_T[-1]:
                middle = (pairs - 1) // 2, pairs // 2  # the same pair twice if their number is odd
                median_D[d] = np.searchsorted(pairs_so_far_T, middle, side="right").mean()
        return median_D


def _both_directions(cells_BTD: torch.Tensor) -> torch.Tensor:
    forward = cells_BTD.unbind(1)
    return _hour_by_hour(forward + forward[::-1]).unflatten(1, (2, -1)).transpose(0, 1)


def _hour_by_hour(hours: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join cells (..., B, D) of successive hours to (..., B, T, D), with memory laid out as (..., T, B, D)."""
    return torch.stack(tuple(hours), dim=-3).transpose(-3, -2)
