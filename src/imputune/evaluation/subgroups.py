"""How well risks fit the deaths of a whole cohort and of its groups, each number with its interval."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from imputune.evaluation.intervals import LEVEL, bootstrap_intervals
from imputune.evaluation.metrics import reliability

FEWEST = 10  # deaths, and survivors, for a group's scores to say anything
SCORES = {"auc": roc_auc_score, "auprc": average_precision_score, "brier": brier_score_loss}
ICU_TYPES = {1: "coronary care", 2: "cardiac surgery recovery", 3: "medical", 4: "surgical"}
SEXES = {0: "female", 1: "male"}
AGES = ((0, 45), (45, 65), (65, 80), (80, np.inf))  # years, from and below


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CalibrationPoint:
    """Stays of similar risk: their mean risk, and the share that died.

    The interval is of drawing these stays again, not others: where none of them died it is 0 to 0.
    """

    risk: float
    died: Interval
    stays: int


@dataclass(frozen=True)
class GroupScores:
    """A cohort, or a group of it, by one descriptor.

    scores: auc, auprc and brier; empty where fewer than ten died or survived. calibration: up to ten groups of equal
    size by risk; empty in the same case. sensitivity and specificity at the threshold: None in the same case.
    """

    group: str
    level: str
    stays: int
    deaths: int
    scores: dict[str, Interval]
    sensitivity: float | None
    specificity: float | None
    calibration: tuple[CalibrationPoint, ...]


def score_cohort(
    died_N: np.ndarray, risk_N: np.ndarray, descriptors: pd.DataFrame, threshold: float, resamples: int, seed: int
) -> tuple[GroupScores, ...]:
    """Return the scores of all stays, then by ICU type, sex and age where the descriptors have them.

    Shapes: died_N 0/1 and risk_N in [0, 1], both (N,); descriptors a row per stay (see `Cohort`). Stays whose
    descriptor is unknown form a group of that name.
    """
    return tuple(
        _scores(name, level, died_N[of], risk_N[of], threshold, resamples, seed)
        for name, level, of in _groups(descriptors, len(died_N))
    )


def _groups(descriptors: pd.DataFrame, stays: int) -> Iterator[tuple[str, str, np.ndarray]]:
    yield "all", "all", np.ones(stays, dtype=bool)
    ages = {f"{low} to {high - 1}" if high < np.inf else f"{low} and over": (low, high) for low, high in AGES}
    age_N, icu_N, sex_N = (descriptors[name].to_numpy() for name in ("age_years", "icu_type", "gender"))
    levels = [("ICU type", level, icu_N == code) for code, level in ICU_TYPES.items()]
    levels += [("sex", level, sex_N == code) for code, level in SEXES.items()]
    levels += [("age, years", level, (age_N >= low) & (age_N < high)) for level, (low, high) in ages.items()]
    for name in dict.fromkeys(name for name, _, _ in levels):
        known = [(level, of) for group, level, of in levels if group == name and of.any()]
        if known:  # else the records have no such descriptor
            yield from ((name, level, of) for level, of in known)
            unknown = ~np.logical_or.reduce([of for _, of in known])
            if unknown.any():
                yield name, "unknown", unknown


def _scores(
    group: str, level: str, died_N: np.ndarray, risk_N: np.ndarray, threshold: float, resamples: int, seed: int
) -> GroupScores:
    deaths = int(died_N.sum())
    survivors = len(died_N) - deaths
    if min(deaths, survivors) < FEWEST:
        return GroupScores(group, level, len(died_N), deaths, {}, None, None, ())

    def numbers(drawn: Sequence[np.ndarray]) -> list[float]:
        at = drawn[0]
        if not 0 < died_N[at].sum() < len(at):
            return [np.nan] * len(SCORES)
        return [float(score(died_N[at], risk_N[at])) for score in SCORES.values()]

    values = numbers([np.arange(len(died_N))])
    bounds = bootstrap_intervals(numbers, [len(died_N)], resamples, seed)
    high = risk_N >= threshold
    return GroupScores(
        group,
        level,
        len(died_N),
        deaths,
        {name: Interval(value, *bound) for name, value, bound in zip(SCORES, values, bounds, strict=True)},
        float(high[died_N == 1].mean()),
        float((~high)[died_N == 0].mean()),
        tuple(_calibration(died_N, risk_N, resamples, seed)),
    )


def _calibration(died_N: np.ndarray, risk_N: np.ndarray, resamples: int, seed: int) -> Iterator[CalibrationPoint]:
    """Yield the points of the calibration curve; drawing 0s and 1s with replacement is drawing from a binomial."""
    generator = np.random.default_rng(seed)
    tail = 100 * (1 - LEVEL) / 2
    for point in reliability(died_N, risk_N):
        stays, share = int(point["stays"]), point["died"]
        low, high = np.percentile(generator.binomial(stays, share, resamples) / stays, (tail, 100 - tail))
        yield CalibrationPoint(point["risk"], Interval(share, float(low), float(high)), stays)
