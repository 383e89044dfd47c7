import numpy as np
import pytest

from imputune.evaluation import correlation
from imputune.evaluation.correlation import correlation_error


def pair(stays: int, hours: int) -> np.ndarray:
    """Return two variables that go together, (stays, hours, 2)."""
    random = np.random.default_rng(4)
    return random.normal(size=(stays, hours, 1)) + 0.3 * random.normal(size=(stays, hours, 2))


@pytest.mark.parametrize("stays_at_once", [1000, 7])
def test_it_is_numpys_over_the_hours_with_a_held_out_cell(monkeypatch, stays_at_once) -> None:
    """Only hours in which both were observed and at least one is held out count, however the stays are divided."""
    monkeypatch.setattr(correlation, "STAYS_AT_ONCE", stays_at_once)
    random = np.random.default_rng(5)
    truth = pair(200, 4)
    observed = random.random(truth.shape) < 0.8
    held_out = observed & (random.random(truth.shape) < 0.4)
    estimate = random.normal(size=truth.shape)
    hours = observed.all(axis=2) & held_out.any(axis=2)
    true, imputed = (np.corrcoef(each[hours].T)[0, 1] for each in (truth, np.where(held_out, estimate, truth)))
    assert correlation_error(estimate, truth, held_out, observed) == pytest.approx(abs(imputed - true), abs=1e-9)
    assert correlation_error(truth, truth, held_out, observed) == pytest.approx(0, abs=1e-12)


def test_it_is_the_mean_over_pairs() -> None:
    """Of three variables one is imputed by the negative of a second: each pair's difference counts alike."""
    truth = np.concatenate([pair(60, 2), pair(60, 2)[..., :1]], axis=2)
    everything = np.ones(truth.shape, dtype=bool)
    held_out = everything & np.array([True, False, False])
    estimate = np.concatenate([-truth[..., 1:2], truth[..., 1:]], axis=2)
    true, imputed = (np.corrcoef(each.reshape(-1, 3).T) for each in (truth, estimate))
    expected = (abs(imputed - true)[0, 1] + abs(imputed - true)[0, 2]) / 2  # 1 and 2 have no held-out cell
    assert correlation_error(estimate, truth, held_out, everything) == pytest.approx(expected)


def test_too_few_hours_give_none() -> None:
    """A pair needs 50 hours: with 49 there is no such pair."""
    truth = pair(50, 1)
    everything = np.ones(truth.shape, dtype=bool)
    assert correlation_error(truth, truth, everything, everything) == pytest.approx(0)
    assert correlation_error(truth[1:], truth[1:], everything[1:], everything[1:]) is None


@pytest.mark.parametrize("constant", [2.5, 0.1])
def test_a_variable_that_does_not_vary_gives_no_pair(constant) -> None:
    """The true correlation with a constant is undefined; rounding, as of 0.1, is no variance."""
    truth = pair(100, 1)
    truth[..., 1] = constant
    everything = np.ones(truth.shape, dtype=bool)
    assert correlation_error(truth, truth, everything, everything) is None
