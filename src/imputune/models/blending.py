"""A blend: the risks of several members on one scale, combined by weights; `blend_fitting` fits one.

Letters: M members, N stays, R different risks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

PREFIX = "blend."
SMALLEST = 1e-7
"""Risks and ranks are kept so far from 0 and 1 before their logit is taken: the precision of a float32 below 1."""


@dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """Calibration by a sigmoid: risk = sigmoid(slope * logit(score) + intercept); slope is above 0.

    Source: Platt 1999, on the logit of a risk instead of a decision score.
    """

    slope: float
    intercept: float

    def __call__(self, score_N: np.ndarray) -> np.ndarray:
        """Return the calibrated risks, float64 (N,)."""
        return sigmoid(self.slope * logit(score_N) + self.intercept)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks among known risks: the fraction of the known stays with a lower risk, those with the same counted half.

    risk_R: the different known risks, ascending. rank_R: their ranks. The rank of a risk between two known ones is
    interpolated; one beyond them has the rank of the last.
    """

    risk_R: np.ndarray
    rank_R: np.ndarray

    @classmethod
    def of(cls, risk_N: np.ndarray) -> Self:
        """Rank the known risks, (N,)."""
        risk_R, count_R = np.unique(risk_N.astype(np.float64), return_counts=True)
        return cls(risk_R, (np.cumsum(count_R) - count_R / 2) / len(risk_N))

    def __call__(self, risk_N: np.ndarray) -> np.ndarray:
        """Return the ranks of risks, float64 (N,), between 0 and 1."""
        return np.interp(risk_N, self.risk_R, self.rank_R)


Scale = Sigmoid | Ranks


@dataclass(frozen=True, eq=False, kw_only=True)
class Blend:
    """Members on one scale, and their weights.

    weight_M: not negative, sum 1. scales: for each member, its calibration (`calibrated`) or its ranks (`ranks`).
    final: turns the weighted mean of ranks into a risk; None for calibrated risks, whose weighted mean is a risk.
    """

    weight_M: np.ndarray
    scales: tuple[Scale, ...]
    final: Sigmoid | None

    def risk(self, risk_MN: np.ndarray) -> np.ndarray:
        """Return the blended risk of each stay, float64 (N,), in [0, 1], from the members' risks (M, N)."""
        mean_N = np.zeros(risk_MN.shape[1])
        for weight, scale, risk_N in zip(self.weight_M, self.scales, risk_MN, strict=True):
            mean_N += weight * scale(risk_N)
        return mean_N.clip(0, 1) if self.final is None else self.final(mean_N)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return its numbers by name, for a weights file; `from_arrays` makes the same blend of them."""
        arrays = {"weights": self.weight_M}
        for number, each in enumerate(self.scales):
            if isinstance(each, Ranks):
                arrays |= {f"{number}.risks": each.risk_R, f"{number}.ranks": each.rank_R}
            else:
                arrays[f"{number}.sigmoid"] = np.array([each.slope, each.intercept])
        if self.final is not None:
            arrays["final"] = np.array([self.final.slope, self.final.intercept])
        return {f"{PREFIX}{name}": array.astype(np.float64) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make a blend of the numbers that `arrays` returned; raises KeyError if one is missing."""
        ours = {name.removeprefix(PREFIX): np.asarray(each) for name, each in arrays.items() if name.startswith(PREFIX)}
        weight_M = ours["weights"]
        scales: list[Scale] = []
        for number in range(len(weight_M)):
            if f"{number}.ranks" in ours:
                scales.append(Ranks(ours[f"{number}.risks"], ours[f"{number}.ranks"]))
            else:
                scales.append(_sigmoid_of(ours[f"{number}.sigmoid"]))
        final = _sigmoid_of(ours["final"]) if "final" in ours else None
        return cls(weight_M=weight_M, scales=tuple(scales), final=final)


def _sigmoid_of(numbers: np.ndarray) -> Sigmoid:
    slope, intercept = map(float, numbers)
    return Sigmoid(slope=slope, intercept=intercept)


def logit(risk: np.ndarray) -> np.ndarray:
    """Return log(risk / (1 - risk)), float64, of risks that are kept SMALLEST away from 0 and 1."""
    kept = np.clip(np.asarray(risk, dtype=np.float64), SMALLEST, 1 - SMALLEST)
    return np.log(kept) - np.log1p(-kept)


def sigmoid(linear_N: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-linear)), without overflow."""
    return np.exp(-np.logaddexp(0, -linear_N))
