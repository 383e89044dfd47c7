import numpy as np
import pytest

from imputune.evaluation.intervals import bootstrap_intervals


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    """For 400 numbers of deviation 1 the mean's interval is about 1.96 / 20 to either side, and a seed repeats it."""
    numbers = np.random.default_rng(0).normal(5, 1, 400)

    def mean(drawn):
        return [numbers[drawn[0]].mean()]

    [(low, high)] = bootstrap_intervals(mean, [400], 2000, 1)
    assert numbers.mean() - low == pytest.approx(1.96 / 20, rel=0.15)
    assert high - numbers.mean() == pytest.approx(1.96 / 20, rel=0.15)
    assert bootstrap_intervals(mean, [400], 2000, 1) == [(low, high)]


def test_groups_are_drawn_apart() -> None:
    """Each group gives as many positions as it has stays, all of its own."""
    seen = []

    def keep(drawn):
        seen.append([len(each) for each in drawn])
        assert all(each.max() < size for each, size in zip(drawn, (3, 50), strict=True))
        return [0.0]

    bootstrap_intervals(keep, [3, 50], 20, 0)
    assert seen == [[3, 50]] * 20


def test_draws_without_a_number_do_not_count() -> None:
    """NaN in some draws leaves the others' interval; NaN in all leaves none."""
    turns = iter(range(100))

    def sometimes(drawn):
        return [1.0 if next(turns) % 2 else np.nan, np.nan]

    first, second = bootstrap_intervals(sometimes, [4], 100, 0)
    assert first == (1.0, 1.0)
    assert np.isnan(second).all()
