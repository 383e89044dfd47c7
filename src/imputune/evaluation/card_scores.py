"""The numbers of a model card: scores with bootstrap intervals, for test folds, all stays and subgroups.

Letters: N stays.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from pydantic import Field

from imputune.evaluation.calibration import fit_line, intercept_at_slope_1
from imputune.evaluation.intervals import percentile_interval
from imputune.evaluation.metrics import calibration_error, reliability
from imputune.evaluation.resampled_scores import resampled_basic_scores
from imputune.evaluation.small_groups import ShownSubgroups
from imputune.evaluation.stored import Stored
from imputune.evaluation.subgroups import Interval, Subgroup, subgroups

PLACES, FEWER_PLACES = 3, 2  # of a subgroup's numbers; fewer where exact fractions would give its counts away


class FoldLine(Stored):
    """A fold's final scores by name, and the 95 % bootstrap intervals of some, over its test stays.

    stays: the number of its test stays.
    """

    fold: int
    stays: int
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)


class GroupLine(Stored):
    """All stays, or a subgroup that is large enough (see `small_groups`).

    group, level: see `subgroups.GroupScores`. stays, events: None where they would give a small group's counts away.
    gap: the mean risk minus the outcome rate. Numbers of subgroups have three decimal places, without counts two.
    """

    group: str
    level: str
    stays: int | None
    events: int | None
    mean_risk: float
    outcome_rate: float
    auc: Interval
    gap: Interval


class StaysScores(Stored):
    """How well risks fit the outcomes of some stays.

    groups: all stays first. some_left_out: whether a subgroup was too small to be shown. calibration: error, slope and
    intercept over all stays; see `metrics.risk_scores`. sensitivity, specificity: at the threshold.
    """

    groups: tuple[GroupLine, ...]
    some_left_out: bool
    calibration: dict[str, float]
    sensitivity: float
    specificity: float

    @property
    def all_stays(self) -> GroupLine:
        """The line of all stays."""
        return self.groups[0]

    @property
    def worst_ranked(self) -> GroupLine | None:
        """The subgroup with the lowest AUC, None without subgroups."""
        return min(self.groups[1:], key=lambda line: line.auc.value, default=None)

    @property
    def furthest_off(self) -> GroupLine | None:
        """The subgroup whose mean risk is furthest from its outcome rate, None without subgroups."""
        return max(self.groups[1:], key=lambda line: abs(line.gap.value), default=None)


def fold_line(
    fold: int,
    scores: Mapping[str, float],
    outcome_N: np.ndarray,
    risk_N: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> FoldLine:
    """Return a fold's recorded scores with intervals of test_auc, test_auprc and test_brier over its test stays."""
    found = intervals(outcome_N, risk_N, resamples=resamples, seed=seed)
    named = {f"test_{name}": (found[name].low, found[name].high) for name in ("auc", "auprc", "brier")}
    return FoldLine(fold=fold, stays=len(outcome_N), scores=dict(scores), intervals=named)


def score_stays(
    outcome_N: np.ndarray, risk_N: np.ndarray, static: pd.DataFrame, *, threshold: float, resamples: int, seed: int
) -> StaysScores:
    """Return the scores of all stays, and of the subgroups that are large enough.

    Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,), with at least one event and one non-event; static has a row
    for each stay. threshold: the risk from which a stay counts as high risk. resamples, seed: of the bootstrap.
    """
    every, found = next(subgroups(static, len(outcome_N))), ShownSubgroups.of(static, outcome_N)
    lines = [_line(every, outcome_N, risk_N, told=True, resamples=resamples, seed=seed)]
    for each, told in found.shown:
        member_N = each.member_N
        line = _line(each, outcome_N[member_N], risk_N[member_N], told=told, resamples=resamples, seed=seed)
        lines.append(_rounded(line))
    high_N = risk_N >= threshold
    return StaysScores(
        groups=tuple(lines),
        some_left_out=found.some_left_out,
        calibration={
            "error": calibration_error(reliability(outcome_N, risk_N)),
            "slope": fit_line(outcome_N, risk_N).slope,
            "intercept": intercept_at_slope_1(outcome_N, risk_N),
        },
        sensitivity=float(high_N[outcome_N == 1].mean()),
        specificity=float((~high_N)[outcome_N == 0].mean()),
    )


def intervals(outcome_N: np.ndarray, risk_N: np.ndarray, *, resamples: int, seed: int) -> dict[str, Interval]:
    """Return auc, auprc, brier and gap (mean risk minus outcome rate) with their 95 % bootstrap intervals over stays.

    Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,). Resamples and intervals are those of `subgroups.score_cohort`
    for the same stays and seed. All numbers are NaN for stays without events or without non-events.
    """
    whole, resampled = resampled_basic_scores(outcome_N, risk_N, resamples, seed)
    found = {}
    for name, [value] in whole.items():
        low, high = percentile_interval(resampled[name])
        found[name] = Interval(value=float(value), low=low, high=high)
    return found


def _line(
    subgroup: Subgroup, outcome_N: np.ndarray, risk_N: np.ndarray, *, told: bool, resamples: int, seed: int
) -> GroupLine:
    found = intervals(outcome_N, risk_N, resamples=resamples, seed=seed)
    return GroupLine(
        group=subgroup.group,
        level=subgroup.level,
        stays=len(outcome_N) if told else None,
        events=int(outcome_N.sum()) if told else None,
        mean_risk=float(risk_N.mean(dtype=np.float64)),
        outcome_rate=float(outcome_N.mean()),
        auc=found["auc"],
        gap=found["gap"],
    )


def _rounded(line: GroupLine) -> GroupLine:
    places = FEWER_PLACES if line.stays is None else PLACES

    def of(interval: Interval) -> Interval:
        return Interval(**{name: round(number, places) for name, number in interval.model_dump().items()})

    mean_risk, rate = round(line.mean_risk, places), round(line.outcome_rate, places)
    gap = of(line.gap).model_copy(update={"value": round(mean_risk - rate, places)})  # as a reader would subtract
    return line.model_copy(update={"mean_risk": mean_risk, "outcome_rate": rate, "auc": of(line.auc), "gap": gap})
