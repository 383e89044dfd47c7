import numpy as np
import pytest

from imputune.evaluation.decision_curve import THRESHOLDS, decision_curve


def test_net_benefit_by_hand() -> None:
    """Of ten stays four died. At 0.2, five are treated: three died, two lived: 0.3 - 0.2 / 4; treating all the same."""
    outcome_N = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    risk_N = np.array([0.9, 0.5, 0.2, 0.1, 0.6, 0.3, 0.1, 0.1, 0.1, 0.1])
    fifth, half = decision_curve(outcome_N, risk_N, [0.2, 0.5])
    assert (fifth.threshold, half.threshold) == (0.2, 0.5)
    assert (fifth.net_benefit, fifth.treat_all) == (pytest.approx(0.25), pytest.approx(0.4 - 0.6 / 4))
    assert (half.net_benefit, half.treat_all) == (pytest.approx(0.2 - 0.1), pytest.approx(0.4 - 0.6))


def test_perfect_risks_have_the_rate_as_net_benefit() -> None:
    """All deaths and no survivors are treated at every threshold; where none is treated the net benefit is 0."""
    outcome_N = (np.arange(20) < 5).astype(int)
    assert {point.net_benefit for point in decision_curve(outcome_N, outcome_N.astype(float))} == {0.25}
    assert {point.net_benefit for point in decision_curve(outcome_N, np.zeros(20))} == {0.0}


def test_equal_risks_treat_all_or_none() -> None:
    """At a risk of 0.3 for everybody, all are treated up to a threshold of 0.3, and none above it."""
    outcome_N = (np.arange(10) < 3).astype(int)
    points = decision_curve(outcome_N, np.full(10, 0.3))
    assert [point.threshold for point in points] == list(THRESHOLDS)
    for point in points:
        assert point.net_benefit == (point.treat_all if point.threshold <= 0.3 else 0)
    assert points[29].treat_all == pytest.approx(0)  # at the rate of deaths treating all is worth nothing
