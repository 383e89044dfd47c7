import numpy as np
import pytest

from imputune.evaluation.challenge2012 import event_1, event_2
from imputune.evaluation.metrics import reliability


@pytest.mark.parametrize(
    ("threshold", "score"),
    [
        (0.75, 2 / 3),  # two stays, both died: sensitivity 2/3, PPV 1
        (0.65, 2 / 3),  # three stays, two died: both 2/3
        (0.15, 1 / 2),  # four stays, two died: sensitivity 2/3, PPV 1/2
        (0.95, 0),  # no stay
    ],
)
def test_event_1_is_the_smaller_of_two(threshold: float, score: float) -> None:
    """Deaths at 0.9, 0.8 and 0.1, survivors at 0.7 and 0.2."""
    outcome_N, risk_N = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.1, 0.7, 0.2])
    assert event_1(outcome_N, risk_N, threshold) == pytest.approx(score)


def test_a_stay_at_the_threshold_is_predicted_to_die() -> None:
    """As in `high_risk`."""
    assert event_1(np.array([1, 0]), np.array([0.3, 0.2]), 0.3) == 1


def test_event_1_without_deaths_is_nan() -> None:
    """There is no sensitivity."""
    assert np.isnan(event_1(np.zeros(3), np.full(3, 0.2), 0.1))


def test_event_2_by_hand() -> None:
    """Ten groups of two stays at 0.05, 0.15, ..., 0.95; the two of the last group died: divided by a range of 0.9."""
    risk_N = np.repeat(np.arange(10) / 10 + 0.05, 2)
    outcome_N = (np.arange(20) >= 18).astype(int)
    below = sum((2 * p) ** 2 / (2 * p * (1 - p) + 0.001) for p in np.arange(9) / 10 + 0.05)
    last = (2 - 1.9) ** 2 / (2 * 0.95 * 0.05 + 0.001)
    assert event_2(reliability(outcome_N, risk_N)) == pytest.approx((below + last) / 0.9)


def test_event_2_of_exact_risks_is_0_and_grows_with_the_stays() -> None:
    """One of ten and four of ten died where the risks say so; twice the stays, equally wrong, score about double."""
    risk_N = np.repeat(np.arange(1, 11) / 20, 20)
    exact_N = np.concatenate([np.arange(20) < 20 * p - 1e-9 for p in np.arange(1, 11) / 20]).astype(int)
    assert event_2(reliability(exact_N, risk_N)) == pytest.approx(0, abs=1e-9)
    wrong = event_2(reliability(exact_N, risk_N / 2))
    doubled = event_2(reliability(np.repeat(exact_N, 2), np.repeat(risk_N / 2, 2)))
    assert doubled == pytest.approx(2 * wrong, rel=0.01)


def test_event_2_of_equal_risks_is_nan() -> None:
    """The range of risk is 0."""
    assert np.isnan(event_2(reliability(np.array([0, 1] * 10), np.full(20, 0.5))))
