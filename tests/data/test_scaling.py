import tracemalloc

import numpy as np
import pytest
import torch

from imputune.data import scaling
from imputune.data.scaling import Scaler, standardised_tensors

NAN = np.nan
INFINITY = np.full(2, np.inf, dtype=np.float32)
SCALER = Scaler(
    lowest_D=-INFINITY,
    highest_D=INFINITY,
    mean_D=np.array([3, 15], np.float32),
    deviation_D=np.array([2, 5], np.float32),
)


def standardise(scaler: Scaler, values_NTD: np.ndarray) -> np.ndarray:
    """Return a standardised copy."""
    standardised_NTD = values_NTD.copy()
    scaler.standardise_in_place(standardised_NTD)
    return standardised_NTD


def test_mean_and_deviation_by_hand() -> None:
    """1, 2, 3, 6 have mean 3 and deviation sqrt(14 / 4), in whichever stays and hours they are; NaN does not count."""
    values_NTD = np.array([[[1, 10], [2, NAN]], [[NAN, 20], [3, NAN]], [[6, NAN], [NAN, NAN]]], dtype=np.float32)
    scaler = Scaler.fit(values_NTD)
    np.testing.assert_allclose(scaler.mean_D, [3, 15], rtol=1e-7)
    np.testing.assert_allclose(scaler.deviation_D, [np.sqrt(3.5), 5], rtol=1e-7)
    assert (scaler.mean_D.dtype, scaler.deviation_D.dtype) == (np.float32, np.float32)


def test_standardise_by_hand() -> None:
    """A value one deviation above the mean becomes 1, and NaN stays NaN."""
    standardised = standardise(SCALER, np.array([[[5, 15], [NAN, 0]]], dtype=np.float32))
    np.testing.assert_array_equal(standardised, [[[1, 0], [NAN, -3]]])
    assert standardised.dtype == np.float32


def test_restore_undoes_standardise() -> None:
    """Standardised values return to their own unit, and NaN stays NaN."""
    values_NTD = np.array([[[36.6, 120], [NAN, 80]], [[39.1, NAN], [37.0, 100]]], dtype=np.float32)
    scaler = Scaler.fit(values_NTD)
    np.testing.assert_allclose(scaler.restore(standardise(scaler, values_NTD)), values_NTD, rtol=1e-6)


def test_standardised_training_values_have_mean_0_and_deviation_1() -> None:
    """The observed training cells of every variable have mean 0 and deviation 1 after standardising."""
    random = np.random.default_rng(0)
    values_NTD = random.normal([5.0, -300.0, 0.01], [1.0, 70.0, 0.002], (40, 6, 3)).astype(np.float32)
    values_NTD[random.random(values_NTD.shape) < 0.5] = NAN
    standardised = standardise(Scaler.fit(values_NTD), values_NTD)
    np.testing.assert_allclose(np.nanmean(standardised, axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(np.nanstd(standardised, axis=(0, 1)), 1, rtol=1e-5)


def test_constant_variable_is_only_centred() -> None:
    """A variable that does not vary in training is not divided: 0.21 becomes 0, and 1.21 becomes 1."""
    scaler = Scaler.fit(np.full((50, 48, 1), 0.21, dtype=np.float32))
    assert scaler.deviation_D.tolist() == [1]
    np.testing.assert_allclose(
        standardise(scaler, np.array([[[0.21], [1.21]]], dtype=np.float32)), [[[0], [1]]], atol=1e-6
    )


def test_values_are_clipped_before_the_deviation_is_computed() -> None:
    """One impossible value of 101, above the 99th percentile, is clipped and does not increase the deviation."""
    values_NTD = np.array([*np.tile([7.3, 7.5], 50), 735.0], dtype=np.float32).reshape(1, 101, 1)
    scaler = Scaler.fit(values_NTD, clip_quantile=0.01)
    np.testing.assert_allclose((scaler.lowest_D, scaler.highest_D), [[7.3], [7.5]], rtol=1e-6)
    np.testing.assert_allclose(scaler.deviation_D, 0.1, rtol=1e-3)
    np.testing.assert_allclose(standardise(scaler, np.array([[[735.0], [0.0]]], np.float32)), [[[1], [-1]]], atol=0.02)
    assert Scaler.fit(values_NTD).deviation_D > 50


def test_variable_that_varies_little_is_scaled() -> None:
    """A variable that varies little is not constant: 7.40 and 7.42 are one deviation below and above 7.41."""
    values_NTD = np.array([[[7.40, 4e-4]], [[7.42, 2e-4]]], dtype=np.float32)
    np.testing.assert_allclose(standardise(Scaler.fit(values_NTD), values_NTD), [[[-1, 1]], [[1, -1]]], rtol=1e-4)


def test_never_observed_variable_makes_no_nan() -> None:
    """A variable without training values has mean 0 and deviation 1, and its later values are finite."""
    scaler = Scaler.fit(np.array([[[1, NAN], [3, NAN]]], dtype=np.float32))
    assert (scaler.mean_D.tolist(), scaler.deviation_D.tolist()) == ([2, 0], [1, 1])
    assert standardise(scaler, np.array([[[2, 7]]], dtype=np.float32)).tolist() == [[[0, 7]]]


def test_tensors_by_hand() -> None:
    """Observed values are standardised; missing cells get value 0 and observed False; an observed 0 stays observed."""
    values_NTD = np.array([[[3, NAN], [NAN, 5], [1, 0]]], dtype=np.float32)
    values, observed = standardised_tensors(values_NTD, SCALER)
    assert values.tolist() == [[[0, 0], [0, -2], [-1, -3]]]
    assert observed.tolist() == [[[True, False], [False, True], [True, True]]]
    assert (values.dtype, observed.dtype) == (torch.float32, torch.bool)


def test_arrays_give_the_scaler_back() -> None:
    """The stored arrays have their fixed names; as arrays or tensors, among others, they give the same scaler."""
    values_NTD = np.array([[[36.6, 120], [NAN, 80]], [[39.1, NAN], [37.0, 100]]], dtype=np.float32)
    scaler = Scaler.fit(values_NTD, clip_quantile=0.1)
    arrays = scaler.to_arrays()
    assert list(arrays) == ["scaler.lowest", "scaler.highest", "scaler.mean", "scaler.deviation"]
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for stored in (arrays, tensors | {"head.bias": torch.zeros(3)}):
        for name, array in Scaler.from_arrays(stored).to_arrays().items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize("at_once", [1, 2 * 4 * 20 * 6, 2**28])
def test_fitting_some_variables_at_a_time_changes_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scaler of some stays, fitted a few variables and stays at a time, is the scaler of a copy of these stays."""
    random = np.random.default_rng(3)
    values_NTD = random.normal(size=(30, 6, 5)).astype(np.float32)
    values_NTD[random.random(values_NTD.shape) < 0.4] = NAN
    training = np.sort(random.permutation(30)[:20])
    expected = Scaler.fit(values_NTD[training], 0.05)
    monkeypatch.setattr(scaling, "FITTED_AT_ONCE", at_once)
    monkeypatch.setattr(scaling, "READ_AT_ONCE", 7)
    fitted = Scaler.fit(values_NTD, 0.05, training)
    for name, array in expected.to_arrays().items():
        np.testing.assert_array_equal(fitted.to_arrays()[name], array)


def test_fitting_needs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitting on 19 MB of training values takes less than half of that, if two of 40 variables are fitted at once."""
    values_NTD = np.random.default_rng(0).normal(size=(2500, 48, 40)).astype(np.float32)
    monkeypatch.setattr(scaling, "FITTED_AT_ONCE", 2 * 2500 * 48 * 4)
    tracemalloc.start()
    Scaler.fit(values_NTD, 0.001, np.arange(2500))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < values_NTD.nbytes / 2
