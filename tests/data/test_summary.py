import numpy as np

from imputune.data.summary import STATISTICS, summarise


def test_statistics_by_hand() -> None:
    """3, 1, 5 observed in four hours: count 3, minimum 1, maximum 5, mean 3, deviation sqrt(8/3), first 3, last 5."""
    values_NTD = np.array([[[3.0], [1.0], [99.0], [5.0]]], dtype=np.float32)
    observed_NTD = np.array([[[True], [True], [False], [True]]])
    statistics = dict(zip(STATISTICS, summarise(values_NTD, observed_NTD)[0], strict=True))
    expected = {"count": 3, "minimum": 1, "maximum": 5, "mean": 3, "deviation": (8 / 3) ** 0.5, "first": 3, "last": 5}
    assert statistics == {name: np.float32(value) for name, value in expected.items()}


def test_variable_never_observed_has_count_0_and_no_statistics() -> None:
    """The count is 0 and all else NaN; numbers in missing cells change nothing."""
    random = np.random.default_rng(0)
    values_NTD, observed_NTD = random.normal(size=(3, 6, 2)).astype(np.float32), random.random((3, 6, 2)) < 0.5
    observed_NTD[1, :, 0] = False
    statistics = summarise(values_NTD, observed_NTD)
    assert statistics.shape == (3, 7 * 2)
    assert statistics[1, 0] == 0
    assert np.isnan(statistics[1, 2::2]).all()
    assert np.isfinite(statistics[1, 1::2]).all()
    other = np.where(observed_NTD, values_NTD, np.float32(1e9))
    np.testing.assert_array_equal(summarise(other, observed_NTD), statistics)


def test_one_hour_and_one_stay() -> None:
    """A single observed hour is its own minimum, maximum, mean, first and last, with deviation 0."""
    statistics = summarise(np.full((1, 1, 1), 2.0, dtype=np.float32), np.ones((1, 1, 1), dtype=bool))
    assert statistics.tolist() == [[1, 2, 2, 2, 0, 2, 2]]
