import numpy as np
import pytest
from scipy import stats

from imputune.evaluation.significance import corrected_t_interval, corrected_t_test, holm


def test_corrected_t_test_by_hand() -> None:
    """Differences 1, 2, 3, 4, 5 have mean 3 and variance 2.5; with test to train 1/3, t = 3 / sqrt(8/15 * 2.5)."""
    p_value = corrected_t_test([1, 2, 3, 4, 5], 1 / 3)
    assert p_value == pytest.approx(2 * stats.t.sf(3 / (8 / 15 * 2.5) ** 0.5, 4))
    assert corrected_t_test([-1, -2, -3, -4, -5], 1 / 3) == pytest.approx(p_value)


def test_without_shared_training_stays_it_is_the_paired_t_test() -> None:
    """A ratio of 0 gives scipy's own p-value; the correction makes it larger."""
    differences = np.random.default_rng(0).normal(0.3, 1, 5)
    plain = stats.ttest_1samp(differences, 0).pvalue
    assert corrected_t_test(differences.tolist(), 0) == pytest.approx(plain)
    assert corrected_t_test(differences.tolist(), 1 / 3) > plain


def test_differences_without_spread() -> None:
    """The same difference in every fold is certain, none at all is no evidence, and one fold says nothing."""
    assert corrected_t_test([0.25, 0.25, 0.25], 1 / 3) == 0
    assert corrected_t_test([0.0, 0.0], 1 / 3) == 1
    with pytest.raises(ValueError, match="at least two folds, got 1"):
        corrected_t_test([0.1], 1 / 3)


def test_interval_by_hand() -> None:
    """Around the mean 3 lie 2.776 (t of 4 degrees of freedom) standard errors of (8/15 * 2.5) ** 0.5 on each side."""
    half = 2.7764451 * (8 / 15 * 2.5) ** 0.5
    assert corrected_t_interval([1, 2, 3, 4, 5], 1 / 3) == pytest.approx((3 - half, 3 + half))
    assert corrected_t_interval([0.25, 0.25, 0.25], 1 / 3) == (0.25, 0.25)
    with pytest.raises(ValueError, match="at least two folds, got 1"):
        corrected_t_interval([0.1], 1 / 3)


@pytest.mark.parametrize("shift", [0.0, 0.4, 0.8, 1.2, 1.6])
def test_the_interval_excludes_zero_where_the_test_is_significant(shift) -> None:
    """Interval and test agree on either side of p = 0.05."""
    differences = (np.random.default_rng(3).normal(0, 1, 5) + shift).tolist()
    low, high = corrected_t_interval(differences, 1 / 3)
    assert (low > 0 or high < 0) == (corrected_t_test(differences, 1 / 3) < 0.05)


def test_holm_by_hand() -> None:
    """The smallest of three is taken three times, the next twice; none is above one, or below the one before it."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
