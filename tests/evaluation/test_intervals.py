import numpy as np
import pytest

from imputune.evaluation.intervals import bootstrap_intervals, percentile_interval, shifted_interval


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    """For 400 numbers of deviation 1 the mean's interval is about 1.96 / 20 to either side, and a seed repeats it."""
    numbers = np.random.default_rng(0).normal(5, 1, 400)

    def mean(resample):
        return [numbers[resample[0]].mean()]

    [(low, high)] = bootstrap_intervals(mean, [400], 2000, 1)
    assert numbers.mean() - low == pytest.approx(1.96 / 20, rel=0.15)
    assert high - numbers.mean() == pytest.approx(1.96 / 20, rel=0.15)
    assert bootstrap_intervals(mean, [400], 2000, 1) == [(low, high)]


def test_groups_are_resampled_separately() -> None:
    """Each group gives as many positions as it has stays, all among its own stays."""
    seen = []

    def keep(resample):
        seen.append([len(each) for each in resample])
        assert all(each.max() < size for each, size in zip(resample, (3, 50), strict=True))
        return [0.0]

    bootstrap_intervals(keep, [3, 50], 20, 0)
    assert seen == [[3, 50]] * 20


def test_resamples_without_a_number_do_not_count() -> None:
    """NaN in some resamples leaves the interval of the others; NaN in all gives NaN bounds."""
    turns = iter(range(100))

    def sometimes(resample):
        return [1.0 if next(turns) % 2 else np.nan, np.nan]

    first, second = bootstrap_intervals(sometimes, [4], 100, 0)
    assert first == (1.0, 1.0)
    assert np.isnan(second).all()


def test_percentiles_by_hand() -> None:
    """Of the numbers 0 to 1000, the middle 95 % lie between 25 and 975; NaN does not count."""
    numbers = np.append(np.arange(1001.0), np.nan)
    assert percentile_interval(numbers) == (pytest.approx(25), pytest.approx(975))
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


def test_a_shifted_interval_by_hand() -> None:
    """Numbers 1000 to 2000 have mean 1500: shifted to a value of 600 they are 100 to 1100; bounds below 0 are 0."""
    numbers = np.append(np.arange(1000.0, 2001), np.nan)
    assert shifted_interval(numbers, 600.0) == (pytest.approx(125), pytest.approx(1075))
    assert shifted_interval(numbers, 100.0) == (0, pytest.approx(575))
    assert np.isnan(shifted_interval(np.array([np.nan]), 1.0)).all()
