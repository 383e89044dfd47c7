import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from imputune.evaluation.calibration import CalibrationLine, fit_line, intercept_at_slope_1


def logit(risk: float) -> float:
    """Return the log odds."""
    return float(np.log(risk / (1 - risk)))


def test_a_line_through_two_risks_by_hand() -> None:
    """Of ten stays at risk 0.2 four died, of ten at 0.5 six: the line meets both rates."""
    risk_N = np.repeat([0.2, 0.5], 10)
    outcome_N = np.concatenate([np.arange(10) < 4, np.arange(10) < 6]).astype(int)
    line = fit_line(outcome_N, risk_N)
    assert line.slope == pytest.approx((logit(0.6) - logit(0.4)) / (logit(0.5) - logit(0.2)))
    assert line.intercept == pytest.approx(logit(0.6))
    np.testing.assert_allclose(line.apply(np.array([0.2, 0.5])), [0.4, 0.6])


def test_the_line_is_that_of_a_logistic_regression() -> None:
    """By scikit-learn without a penalty, in which logit(risk) is the only feature, from float64 and float32 risks."""
    generator = np.random.default_rng(3)
    logit_N = generator.normal(-2, 1.5, 400)
    outcome_N = (generator.random(400) < 1 / (1 + np.exp(0.5 - 1.4 * logit_N))).astype(np.int8)
    expected = LogisticRegression(C=np.inf, tol=1e-12, solver="newton-cholesky").fit(logit_N[:, None], outcome_N)
    for kind, tolerance in ((np.float64, 1e-7), (np.float32, 1e-5)):
        line = fit_line(outcome_N, (1 / (1 + np.exp(-logit_N))).astype(kind))
        assert line.slope == pytest.approx(expected.coef_[0, 0], abs=tolerance)
        assert line.intercept == pytest.approx(expected.intercept_[0], abs=tolerance)


def test_a_simulated_line_is_found() -> None:
    """With logit(outcome rate) = 0.3 + 0.7 * logit(risk) and 200,000 stays, to 0.02."""
    generator = np.random.default_rng(0)
    logit_N = generator.normal(-2, 1.5, 200_000)
    outcome_N = generator.random(200_000) < 1 / (1 + np.exp(-0.3 - 0.7 * logit_N))
    line = fit_line(outcome_N, 1 / (1 + np.exp(-logit_N)))
    assert (line.intercept, line.slope) == (pytest.approx(0.3, abs=0.02), pytest.approx(0.7, abs=0.02))


def test_the_intercept_at_slope_1_by_hand() -> None:
    """At risk 0.2 half of ten died: log odds rise from -log(4) to 0. In general the mean risk becomes the rate."""
    outcome_N = (np.arange(10) < 5).astype(int)
    assert intercept_at_slope_1(outcome_N, np.full(10, 0.2)) == pytest.approx(np.log(4))
    assert intercept_at_slope_1(1 - outcome_N, np.full(10, 0.8)) == pytest.approx(-np.log(4))
    risk_N = np.random.default_rng(0).beta(1, 5, 10)
    intercept = intercept_at_slope_1(outcome_N, risk_N)
    assert CalibrationLine(intercept=intercept, slope=1).apply(risk_N).mean() == pytest.approx(0.5)


def test_risks_of_0_and_1_are_clipped() -> None:
    """A survivor at risk 1 and a death at risk 0 leave finite numbers."""
    line = fit_line(np.array([0, 1, 0, 1]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert (line.intercept, line.slope) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert intercept_at_slope_1(np.array([0, 1]), np.array([1.0, 0.0])) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("outcome", "risk"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]),
        ([0, 0, 1, 1], [0.1, 0.3, 0.3, 0.4]),
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3]),
        ([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]),
        ([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_without_a_best_line_both_numbers_are_nan(outcome: list[int], risk: list[float]) -> None:
    """Risks that separate deaths from survivors, also up to a tie, equal risks, and one outcome only."""
    line = fit_line(np.array(outcome), np.array(risk))
    assert np.isnan([line.intercept, line.slope]).all()


def test_without_deaths_or_survivors_the_intercept_is_nan() -> None:
    """No finite number makes the mean risk 0 or 1."""
    assert np.isnan(intercept_at_slope_1(np.zeros(3), np.full(3, 0.2)))
    assert np.isnan(intercept_at_slope_1(np.ones(3), np.full(3, 0.2)))


def test_a_line_keeps_the_order_and_the_ends() -> None:
    """Risks of 0 and 1 stay; of others none overtakes another, one number is corrected as in any array."""
    line = CalibrationLine(intercept=-0.7, slope=0.4)
    risk_N = np.sort(np.random.default_rng(0).random(1000))
    corrected_N = line.apply(risk_N)
    assert (np.diff(corrected_N) >= 0).all()
    assert [float(line.apply(np.array(risk))) for risk in risk_N] == corrected_N.tolist()
    np.testing.assert_array_equal(line.apply(np.array([0.0, 1.0])), [0, 1])


def test_one_line_after_another_by_hand() -> None:
    """1 + 2 * (3 + 4 * x) is 7 + 8 * x."""
    both = CalibrationLine(intercept=1, slope=2).after(CalibrationLine(intercept=3, slope=4))
    assert both == CalibrationLine(intercept=7, slope=8)
