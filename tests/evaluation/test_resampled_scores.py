"""Scores of many resamples at once are those of each resample by itself."""

import numpy as np
import pytest

from imputune.evaluation.calibration import fit_line, intercept_at_slope_1
from imputune.evaluation.challenge2012 import event_1, event_2
from imputune.evaluation.intervals import resampled
from imputune.evaluation.metrics import calibration_error, reliability, risk_scores
from imputune.evaluation.resampled_scores import ROWS_AT_ONCE, resampled_basic_scores, resampled_scores

THRESHOLD = 0.3


def drawn(stays: int, decimals: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return outcomes and risks that fit; rounded risks are shared by many stays. At least one stay of each kind."""
    generator = np.random.default_rng(seed)
    risk_N = np.round(generator.beta(1.2, 6, stays), decimals)
    outcome_N = (generator.random(stays) < risk_N).astype(int)
    outcome_N[:2] = 1, 0
    return outcome_N, risk_N


def one_by_one(outcome_N: np.ndarray, risk_N: np.ndarray) -> dict[str, float]:
    """Return the scores of one resample by the functions that score a cohort."""
    scores, points = risk_scores(outcome_N, risk_N), reliability(outcome_N, risk_N)
    return {
        **{name: scores[name] for name in ("auc", "auprc", "brier")},
        "gap": float(risk_N.mean() - outcome_N.mean()),
        "calibration_error": calibration_error(points),
        "calibration_slope": fit_line(outcome_N, risk_N).slope,
        "calibration_intercept": intercept_at_slope_1(outcome_N, risk_N),
        "challenge_event_1": event_1(outcome_N, risk_N, THRESHOLD),
        "challenge_event_2": event_2(points),
    }


@pytest.mark.parametrize(("stays", "decimals"), [(400, 9), (400, 2), (25, 9), (8, 1)])
def test_all_at_once_are_those_one_by_one(stays, decimals):
    """Every score of every resample, with and without equal risks, with few stays; NaN in the same resamples."""
    outcome_N, risk_N = drawn(stays, decimals, seed=stays)
    names = list(one_by_one(outcome_N, risk_N))
    resamples = ROWS_AT_ONCE + 20

    def scores(resample):
        [stays_N] = resample
        stays_N = np.sort(stays_N)  # stays of equal risk are in the order of the cohort
        if not 0 < outcome_N[stays_N].sum() < len(stays_N):
            return [np.nan] * len(names)
        return list(one_by_one(outcome_N[stays_N], risk_N[stays_N]).values())

    expected = resampled(scores, [stays], resamples, seed=7)
    found = resampled_scores(outcome_N, risk_N, THRESHOLD, resamples, seed=7)
    assert list(found) == names
    for name, expected_R in zip(names, expected, strict=True):
        np.testing.assert_allclose(found[name], expected_R, rtol=1e-7, atol=1e-9, err_msg=name)
    whole, basic = resampled_basic_scores(outcome_N, risk_N, resamples, seed=7)
    assert list(whole) == list(basic) == ["auc", "auprc", "brier", "gap"]
    for name, score_R in basic.items():
        np.testing.assert_array_equal(score_R, found[name])
        assert whole[name] == pytest.approx(one_by_one(outcome_N, risk_N)[name])


def test_risks_of_0_and_1_are_scored():
    """Risks at the ends are clipped for the calibration line, as everywhere."""
    outcome_N, risk_N = np.array([0, 0, 1, 1, 0, 1] * 10), np.array([0.0, 1.0, 1.0, 0.0, 0.2, 0.7] * 10)
    found = resampled_scores(outcome_N, risk_N, THRESHOLD, 50, seed=1)
    slope_R = found["calibration_slope"]
    assert np.isfinite(slope_R).all()
    assert abs(np.median(slope_R) - fit_line(outcome_N, risk_N).slope) < 0.02
