"""The scores of many resamples of stays at once: a resample is a row that counts how often each stay was drawn.

The scores are those of `metrics`, `calibration` and `challenge2012`, with a count for each stay.

Letters: R resamples, N stays ordered by risk, L different risks, D those of events, B borders of groups.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from imputune.evaluation.calibration import fit_line, intercept_at_slope_1, logits
from imputune.evaluation.challenge2012 import ADDED_VARIANCE
from imputune.evaluation.metrics import GROUPS

ROWS_AT_ONCE = 100  # so that a block stays in the processor's cache
MOST_STEPS = 12
CLOSE_ENOUGH = 1e-10  # gradient of the log-likelihood per stay
Scores = dict[str, np.ndarray]
"""Scores by name, a number for each resample."""


def resampled_scores(outcome_N: np.ndarray, risk_N: np.ndarray, threshold: float, resamples: int, seed: int) -> Scores:
    """Return the resamples (R,) of each score in `subgroups.GroupScores`, and gap; NaN where a resample has none.

    Each resample draws as many stays as there are, with replacement, as `intervals.resampled` draws a single group.
    Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,); some stays must have the outcome and some must not.
    """
    scoring = _Scoring(outcome_N, risk_N, threshold)
    return _resampled(scoring.scores, len(outcome_N), resamples, seed)


def resampled_basic_scores(
    outcome_N: np.ndarray, risk_N: np.ndarray, resamples: int, seed: int
) -> tuple[Scores, Scores]:
    """Return auc, auprc, brier and gap (mean risk minus outcome rate): of the stays (1,), and their resamples (R,).

    The resamples, their numbers and the shapes are those of `resampled_scores`.
    """
    scoring = _Scoring(outcome_N, risk_N, threshold=1.0)
    whole = scoring.basic_scores(np.ones((1, len(outcome_N))))
    return whole, _resampled(scoring.basic_scores, len(outcome_N), resamples, seed)


def _resampled(scores: Callable[[np.ndarray], Scores], stays: int, resamples: int, seed: int) -> Scores:
    """Return what `scores` returns for the counts of every resample (R, N), so many resamples at once as is fast."""
    generator = np.random.default_rng(seed)
    blocks = []
    for start in range(0, resamples, ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, resamples - start)
        drawn = (generator.integers(0, stays, stays) for _ in range(rows))
        blocks.append(scores(np.array([np.bincount(row, minlength=stays) for row in drawn], dtype=np.float64)))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


class _Scoring:
    """Some stays in the order of their risks, and what every resample of them shares."""

    def __init__(self, outcome_N: np.ndarray, risk_N: np.ndarray, threshold: float) -> None:
        self.order_N = np.argsort(risk_N, kind="stable")
        self.event_N = (np.asarray(outcome_N)[self.order_N] > 0).astype(np.float64)
        self.risk_N = np.asarray(risk_N, dtype=np.float64)[self.order_N]
        self.high_N = self.risk_N >= threshold
        self.first_L = np.flatnonzero(np.concatenate([[True], np.diff(self.risk_N) > 0]))

    @cached_property
    def logit_N(self) -> np.ndarray:
        """The logits of the risks."""
        return logits(self.risk_N)

    @cached_property
    def start(self) -> tuple[float, float]:
        """Intercept and slope from which the lines of resamples are fitted."""
        line = fit_line(self.event_N, self.risk_N)
        return (line.intercept, line.slope) if np.isfinite(line.slope) else (0.0, 1.0)

    def basic_scores(self, count_RN: np.ndarray) -> Scores:
        """Return auc, auprc, brier and gap of every resample; see `scores`."""
        count_RN = count_RN[:, self.order_N]
        events_R, stays = count_RN @ self.event_N, count_RN.shape[1]
        both_R = (events_R > 0) & (events_R < stays)
        with np.errstate(divide="ignore", invalid="ignore"):
            auc_R, auprc_R = self._ranking(count_RN, events_R)
        found = {
            "auc": auc_R,
            "auprc": auprc_R,
            "brier": count_RN @ (self.event_N - self.risk_N) ** 2 / stays,
            "gap": count_RN @ (self.risk_N - self.event_N) / stays,
        }
        return {name: np.where(both_R, score_R, np.nan) for name, score_R in found.items()}

    def scores(self, count_RN: np.ndarray) -> Scores:
        """Return every score of every resample; the counts are in the order of the stays as they were given."""
        basic = self.basic_scores(count_RN)
        count_RN = count_RN[:, self.order_N]
        event_RN = count_RN * self.event_N
        events_R, stays = event_RN.sum(axis=1), count_RN.shape[1]
        both_R = (events_R > 0) & (events_R < stays)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            risk_RG, rate_RG, size_G = self._groups(count_RN, event_RN)
            squared_RG = (size_G * (rate_RG - risk_RG)) ** 2
            hosmer_R = (squared_RG / (size_G * risk_RG * (1 - risk_RG) + ADDED_VARIANCE)).sum(axis=1)
            spread_R = risk_RG[:, -1] - risk_RG[:, 0]
            found = {
                "calibration_error": (np.abs(risk_RG - rate_RG) * size_G).sum(axis=1) / stays,
                "calibration_slope": self._slope(count_RN, events_R),
                "calibration_intercept": self._intercept(count_RN, events_R),
                "challenge_event_1": event_RN @ self.high_N / np.maximum(events_R, count_RN @ self.high_N),
                "challenge_event_2": np.where(spread_R > 0, hosmer_R / spread_R, np.nan),
            }
        return basic | {name: np.where(both_R, score_R, np.nan) for name, score_R in found.items()}

    def _ranking(self, count_RN: np.ndarray, events_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return AUC, the share of pairs in the right order, and average precision; equal risks are one threshold.

        Only risks of events are looked at: the sums have nothing of the others.
        """
        stays = count_RN.shape[1]
        count_RL = np.add.reduceat(count_RN, self.first_L, axis=1) if len(self.first_L) < stays else count_RN
        events = np.flatnonzero(self.event_N)
        risks, first_D = np.unique(np.searchsorted(self.first_L, events, side="right") - 1, return_index=True)
        event_RD = (
            np.add.reduceat(count_RN[:, events], first_D, axis=1) if len(events) else np.zeros((len(count_RN), 0))
        )
        until_RD, event_until_RD = np.cumsum(count_RL, axis=1)[:, risks], np.cumsum(event_RD, axis=1)
        here_RD = count_RL[:, risks]
        below_RD = until_RD - event_until_RD - (here_RD - event_RD) / 2  # non-events; half of those of equal risk
        auc_R = (event_RD * below_RD).sum(axis=1) / (events_R * (stays - events_R))
        event_from_RD, from_RD = events_R[:, None] - event_until_RD + event_RD, stays - until_RD + here_RD
        return auc_R, (event_RD * event_from_RD / np.maximum(from_RD, 1)).sum(axis=1) / events_R

    def _groups(self, count_RN: np.ndarray, event_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mean risk and outcome rate (R, G) of the groups of `metrics.reliability`, and their sizes (G,)."""
        stays = count_RN.shape[1]
        size_G = np.array([len(group) for group in np.array_split(np.arange(stays), min(GROUPS, stays))], dtype=float)
        border_B = np.concatenate([[0.0], np.cumsum(size_G)])
        until_RN = np.cumsum(count_RN, axis=1)
        place_RB = np.stack([np.searchsorted(until_N, border_B) for until_N in until_RN]).clip(max=stays - 1)
        beyond_RB = np.take_along_axis(until_RN, place_RB, axis=1) - border_B  # of the stay on the border
        sums = []
        for weight_RN, value_N in ((count_RN * self.risk_N, self.risk_N), (event_RN, self.event_N)):
            sum_RB = np.take_along_axis(np.cumsum(weight_RN, axis=1), place_RB, axis=1) - beyond_RB * value_N[place_RB]
            sums.append(np.diff(sum_RB, axis=1) / size_G)
        return sums[0], sums[1], size_G

    def _slope(self, count_RN: np.ndarray, events_R: np.ndarray) -> np.ndarray:
        """Return the slope of `calibration.fit_line`, by Newton's steps from the line of all stays.

        A resample in which these do not arrive is fitted by `fit_line` itself.
        """
        intercept_R, slope_R = (np.full(len(count_RN), each) for each in self.start)
        logit_sum_R = (count_RN * self.event_N) @ self.logit_N
        done_R = np.zeros(len(count_RN), dtype=bool)
        for _ in range(MOST_STEPS):
            risk_RN = 1 / (1 + np.exp(-(intercept_R[:, None] + slope_R[:, None] * self.logit_N)))
            expected_RN = count_RN * risk_RN
            first_R, second_R = events_R - expected_RN.sum(axis=1), logit_sum_R - expected_RN @ self.logit_N
            done_R = np.maximum(np.abs(first_R), np.abs(second_R)) < CLOSE_ENOUGH * len(self.event_N)
            if done_R.all():
                break
            weight_RN = expected_RN * (1 - risk_RN)
            a_R, b_R = weight_RN.sum(axis=1), weight_RN @ self.logit_N
            c_R = weight_RN @ self.logit_N**2
            determinant_R = a_R * c_R - b_R**2
            intercept_R = intercept_R + (c_R * first_R - b_R * second_R) / determinant_R
            slope_R = slope_R + (a_R * second_R - b_R * first_R) / determinant_R
        fits_R = done_R & self._has_line(count_RN)
        alone = np.flatnonzero(~fits_R)
        slope_R[alone] = [fit_line(*self._repeated(count_RN[index])).slope for index in alone]
        return slope_R

    def _has_line(self, count_RN: np.ndarray) -> np.ndarray:
        """Say in which resamples the risks of events and non-events overlap, as `fit_line` asks, (R,)."""
        with_RN, without_RN = count_RN * self.event_N > 0, count_RN * (1 - self.event_N) > 0
        lowest_with_R, lowest_without_R = (self.logit_N[each.argmax(axis=1)] for each in (with_RN, without_RN))
        highest_with_R, highest_without_R = (
            self.logit_N[::-1][each[:, ::-1].argmax(axis=1)] for each in (with_RN, without_RN)
        )
        return (lowest_with_R < highest_without_R) & (lowest_without_R < highest_with_R)

    def _intercept(self, count_RN: np.ndarray, events_R: np.ndarray) -> np.ndarray:
        """Return `calibration.intercept_at_slope_1`, by Newton's steps; where these do not arrive, by that function."""
        intercept_R = np.zeros(len(count_RN))
        done_R = np.zeros(len(count_RN), dtype=bool)
        for _ in range(MOST_STEPS):
            risk_RN = 1 / (1 + np.exp(-(intercept_R[:, None] + self.logit_N)))
            expected_RN = count_RN * risk_RN
            gradient_R = events_R - expected_RN.sum(axis=1)
            done_R = np.abs(gradient_R) < CLOSE_ENOUGH * len(self.event_N)
            if done_R.all():
                break
            intercept_R = intercept_R + gradient_R / (expected_RN * (1 - risk_RN)).sum(axis=1)
        alone = np.flatnonzero(~done_R)
        intercept_R[alone] = [intercept_at_slope_1(*self._repeated(count_RN[index])) for index in alone]
        return intercept_R

    def _repeated(self, count_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return outcome and risk of each stay of a resample, as often as it was drawn."""
        times_N = count_N.astype(int)
        return np.repeat(self.event_N, times_N), np.repeat(self.risk_N, times_N)
