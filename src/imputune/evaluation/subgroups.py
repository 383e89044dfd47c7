"""How well risks fit the outcomes of a whole cohort and of its subgroups, each score with its interval.

Letters: N stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field

from imputune.evaluation.calibration import fit_line, intercept_at_slope_1
from imputune.evaluation.challenge2012 import event_1, event_2
from imputune.evaluation.intervals import percentile_interval, shifted_interval
from imputune.evaluation.metrics import calibration_error, reliability
from imputune.evaluation.resampled_scores import resampled_scores
from imputune.evaluation.stored import EARLIER_EVENTS, Stored

SCORED_EVENTS = 10  # events, and non-events, that a subgroup needs for scores
RAISED_BY_RESAMPLING = ("calibration_error", "challenge_event_2")  # see `intervals.shifted_interval`
ICU_TYPES = {1: "coronary care", 2: "cardiac surgery recovery", 3: "medical", 4: "surgical"}
SEXES = {0: "female", 1: "male"}
AGES = ((0, 45), (45, 65), (65, 80), (80, np.inf))  # years, from and below


class Interval(Stored):
    """A number and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class CalibrationPoint(Stored):
    """Stays of similar risk: their mean risk, the fraction with the outcome, and their number.

    The interval comes from resampling these stays, so it is 0 to 0 if none of them had the outcome.
    """

    risk: float
    outcome_rate: Interval
    stays: int


class GroupScores(Stored):
    """A cohort, or one of its subgroups.

    group, level: what divides the stays, and which subgroup this is; both "all" for the whole cohort. scores: those of
    `metrics.risk_scores` without log_loss, and challenge_event_1 and challenge_event_2 of `challenge2012`; results of
    earlier versions have auc, auprc and brier alone. calibration: up to ten groups of equal size by risk. sensitivity,
    specificity: at the threshold.
    With fewer than ten events or non-events, scores and calibration are empty, sensitivity and specificity None.
    """

    group: str
    level: str
    stays: int
    events: int = Field(validation_alias=EARLIER_EVENTS)
    scores: dict[str, Interval]
    sensitivity: float | None
    specificity: float | None
    calibration: tuple[CalibrationPoint, ...]


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    threshold: float
    resamples: int
    seed: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Subgroup:
    """Some stays of a cohort: what divides the stays, which subgroup this is, and who is in it, bool (N,)."""

    group: str
    level: str
    member_N: np.ndarray


def score_cohort(
    outcome_N: np.ndarray, risk_N: np.ndarray, static: pd.DataFrame, *, threshold: float, resamples: int, seed: int
) -> tuple[GroupScores, ...]:
    """Return the scores of all stays, then by ICU type, sex and age as far as the cohort knows them.

    threshold: the risk from which a stay counts as high risk. resamples, seed: of the bootstrap.
    Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,); static has a row for each stay (see `Cohort`). Stays for
    which a static variable is unknown form the subgroup "unknown"; if it is unknown for all, or the cohort does not
    have it, there are no subgroups.
    """
    scoring = _Scoring(threshold=threshold, resamples=resamples, seed=seed)
    return tuple(
        _scores(subgroup, outcome_N[subgroup.member_N], risk_N[subgroup.member_N], scoring)
        for subgroup in subgroups(static, len(outcome_N))
    )


def subgroups(static: pd.DataFrame, stays: int) -> Iterator[Subgroup]:
    """Yield all stays, then the stays by ICU type, sex and age; see `score_cohort`. No subgroup is empty."""
    yield Subgroup(group="all", level="all", member_N=np.ones(stays, dtype=bool))
    unknown_N = np.full(stays, np.nan)
    icu_N, sex_N, age_N = (np.asarray(static.get(name, unknown_N)) for name in ("icu_type", "gender", "age_years"))
    levels_of = {
        "ICU type": {level: icu_N == code for code, level in ICU_TYPES.items()},
        "sex": {level: sex_N == code for code, level in SEXES.items()},
        "age, years": {_age_label(low, high): (age_N >= low) & (age_N < high) for low, high in AGES},
    }
    for group, members in levels_of.items():
        present = {level: member_N for level, member_N in members.items() if member_N.any()}
        if not present:
            continue
        for level, member_N in present.items():
            yield Subgroup(group=group, level=level, member_N=member_N)
        unknown_N = ~np.logical_or.reduce(list(present.values()))
        if unknown_N.any():
            yield Subgroup(group=group, level="unknown", member_N=unknown_N)


def _age_label(low: float, high: float) -> str:
    return f"{low} to {high - 1}" if high < np.inf else f"{low} and over"


def _scores(subgroup: Subgroup, outcome_N: np.ndarray, risk_N: np.ndarray, scoring: _Scoring) -> GroupScores:
    events = int(outcome_N.sum())
    enough = min(events, len(outcome_N) - events) >= SCORED_EVENTS
    high_N = risk_N >= scoring.threshold
    return GroupScores(
        group=subgroup.group,
        level=subgroup.level,
        stays=len(outcome_N),
        events=events,
        scores=_intervals(outcome_N, risk_N, scoring) if enough else {},
        sensitivity=float(high_N[outcome_N == 1].mean()) if enough else None,
        specificity=float((~high_N)[outcome_N == 0].mean()) if enough else None,
        calibration=tuple(_calibration(outcome_N, risk_N, scoring)) if enough else (),
    )


def _intervals(outcome_N: np.ndarray, risk_N: np.ndarray, scoring: _Scoring) -> dict[str, Interval]:
    found = _risk_scores(outcome_N, risk_N, scoring.threshold)
    numbers = resampled_scores(outcome_N, risk_N, scoring.threshold, scoring.resamples, scoring.seed)
    intervals = {}
    for name, value in found.items():
        shifted = name in RAISED_BY_RESAMPLING
        low, high = shifted_interval(numbers[name], value) if shifted else percentile_interval(numbers[name])
        intervals[name] = Interval(value=value, low=low, high=high)
    return intervals


def _risk_scores(outcome_N: np.ndarray, risk_N: np.ndarray, threshold: float) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    points = reliability(outcome_N, risk_N)
    return {
        "auc": float(roc_auc_score(outcome_N, risk_N)),
        "auprc": float(average_precision_score(outcome_N, risk_N)),
        "brier": float(brier_score_loss(outcome_N, risk_N)),
        "calibration_error": calibration_error(points),
        "calibration_slope": fit_line(outcome_N, risk_N).slope,
        "calibration_intercept": intercept_at_slope_1(outcome_N, risk_N),
        "challenge_event_1": event_1(outcome_N, risk_N, threshold),
        "challenge_event_2": event_2(points),
    }


def _calibration(outcome_N: np.ndarray, risk_N: np.ndarray, scoring: _Scoring) -> Iterator[CalibrationPoint]:
    """Yield the points of the calibration curve; resampling 0s and 1s is drawing from a binomial distribution."""
    generator = np.random.default_rng(scoring.seed)
    for point in reliability(outcome_N, risk_N):
        resampled = generator.binomial(point.stays, point.outcome_rate, scoring.resamples) / point.stays
        low, high = percentile_interval(resampled)
        outcome_rate = Interval(value=point.outcome_rate, low=low, high=high)
        yield CalibrationPoint(risk=point.risk, outcome_rate=outcome_rate, stays=point.stays)
