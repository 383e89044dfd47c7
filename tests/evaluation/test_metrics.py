import numpy as np
import pytest

from imputune.evaluation.calibration import fit_line
from imputune.evaluation.metrics import (
    ReliabilityPoint,
    curve_scores,
    reliability,
    risk_scores,
    sensitivity_threshold,
    youden_threshold,
)


def test_risk_scores_by_hand() -> None:
    """Deaths at 0.8 and 0.4, survivors at 0.6 and 0.2: three of four pairs are in order."""
    scores = risk_scores(np.array([1, 0, 1, 0]), np.array([0.8, 0.6, 0.4, 0.2]))
    assert scores == {
        "auc": pytest.approx(3 / 4),
        "auprc": pytest.approx(0.5 * 1 + 0.5 * 2 / 3),
        "brier": pytest.approx((0.2**2 + 0.6**2 + 0.6**2 + 0.2**2) / 4),
        "log_loss": pytest.approx(-np.log([0.8, 0.4, 0.4, 0.8]).mean()),
        "calibration_error": pytest.approx((0.2 + 0.6 + 0.6 + 0.2) / 4),
        "calibration_slope": pytest.approx(fit_line(np.array([1, 0, 1, 0]), np.array([0.8, 0.6, 0.4, 0.2])).slope),
        "calibration_intercept": pytest.approx(0, abs=1e-9),  # the mean risk is 0.5, and half died
    }
    assert {type(score) for score in scores.values()} == {float}


def test_risk_scores_of_perfect_and_constant_risks() -> None:
    """Risks that order perfectly have AUC 1 and AUPRC 1; equal risks have AUC 0.5 and AUPRC the share of deaths."""
    outcome_N = np.array([0, 0, 1, 0])
    perfect, constant = risk_scores(outcome_N, np.array([0.1, 0.2, 0.9, 0.3])), risk_scores(outcome_N, np.full(4, 0.25))
    assert (perfect["auc"], perfect["auprc"]) == (1, 1)
    assert (constant["auc"], constant["auprc"], constant["brier"]) == (0.5, 0.25, pytest.approx(0.1875))


@pytest.mark.parametrize("ties", [True, False])
def test_curve_scores_are_those_of_risk_scores(ties: bool) -> None:
    """AUC and log loss of an epoch equal the final scores', ties and risks of exactly 0 and 1 included."""
    random = np.random.default_rng(0)
    outcome_N = (random.random(300) < 0.2).astype(np.float32)
    risk = np.clip(random.normal(0.4 + 0.2 * outcome_N, 0.3), 0, 1).astype(np.float32)
    risk = risk.round(1) if ties else risk
    quick, full = curve_scores(outcome_N, risk), risk_scores(outcome_N, risk)
    assert quick == pytest.approx({name: full[name] for name in ("auc", "log_loss")}, rel=1e-6)


@pytest.mark.parametrize("outcome", [0, 1])
def test_curve_scores_without_a_death_or_a_survivor(outcome: int) -> None:
    """Without a pair to order, auc is NaN; log_loss does not change."""
    scores = curve_scores(np.full(2, outcome, np.float32), np.array([0.25, 0.25], np.float32))
    assert np.isnan(scores["auc"])
    assert scores["log_loss"] == pytest.approx(-np.log(0.25 if outcome else 0.75))


def test_reliability_by_hand() -> None:
    """Ordered by risk, six stays in three groups of two: mean risks 0.1, 0.4 and 0.8, in which 0, 1 and 2 died."""
    outcome_N, risk_N = np.array([1, 0, 0, 1, 1, 0]), np.array([0.9, 0.05, 0.15, 0.7, 0.3, 0.5])
    points = reliability(outcome_N, risk_N, groups=3)
    assert [point.risk for point in points] == pytest.approx([0.1, 0.4, 0.8])
    assert [(point.outcome_rate, point.stays) for point in points] == [(0, 2), (0.5, 2), (1, 2)]
    assert len(reliability(outcome_N, risk_N, groups=10)) == 6


def test_calibration_error_is_0_where_risks_are_right() -> None:
    """Ten stays at risk 0.1, one of whom died, are calibrated in one group of equal risks."""
    outcome_N, risk_N = np.eye(1, 10)[0].astype(int), np.full(10, 0.1)
    [point] = reliability(outcome_N, risk_N, groups=1)
    assert point == ReliabilityPoint(risk=float(risk_N.mean()), outcome_rate=0.1, stays=10)


def test_calibration_error_by_hand() -> None:
    """20 stays in ten groups of two: risks 0.05, 0.15, ... against no deaths, the difference is the mean risk."""
    risk_N = np.repeat(np.arange(10) / 10 + 0.05, 2)
    outcome_N = np.zeros(20, dtype=int)
    outcome_N[-2:] = 1  # the last group: 0.95 against 1
    expected = (sum(np.arange(9) / 10 + 0.05) + 0.05) / 10
    assert risk_scores(outcome_N, risk_N)["calibration_error"] == pytest.approx(expected)


def test_youden_threshold_by_hand() -> None:
    """At 0.4 two of two deaths and one of three survivors are called high: 1 + 2/3 - 1, the best there is."""
    assert youden_threshold(np.array([0, 1, 0, 1, 0]), np.array([0.1, 0.4, 0.5, 0.8, 0.2])) == pytest.approx(0.4)
    assert youden_threshold(np.array([0, 1]), np.array([0.9, 0.1])) <= 1


@pytest.mark.parametrize(("sensitivity", "threshold"), [(0.2, 0.9), (0.25, 0.9), (0.26, 0.7), (0.5, 0.7), (0.8, 0.2)])
def test_sensitivity_threshold_by_hand(sensitivity: float, threshold: float) -> None:
    """Deaths at 0.9, 0.7, 0.4 and 0.2: the highest threshold that reaches the sensitivity is the risk of a death."""
    outcome_N, risk_N = np.array([1, 0, 1, 0, 1, 1]), np.array([0.4, 0.95, 0.9, 0.3, 0.2, 0.7])
    found = sensitivity_threshold(outcome_N, risk_N, sensitivity)
    assert found == threshold
    assert (risk_N[outcome_N == 1] >= found).mean() >= sensitivity


def test_sensitivity_threshold_with_ties_and_rounding() -> None:
    """Tied deaths count together; 55 of 100 deaths reach a sensitivity of 0.55, though 0.55 * 100 is above 55."""
    assert sensitivity_threshold(np.ones(4), np.array([0.5, 0.5, 0.5, 0.1]), 0.5) == 0.5
    assert sensitivity_threshold(np.ones(100), np.arange(100, 0, -1) / 100, 0.55) == 0.46
