import numpy as np
import pytest

from imputune.models.plain_rules import (
    PLAIN_RULES,
    last_observation_carried_forward,
    linear_interpolation,
    mean_fill,
)

NAN = np.nan


def column(*cells: float) -> np.ndarray:
    """One stay, one variable."""
    return np.array(cells, dtype=np.float32).reshape(1, -1, 1)


def test_mean_fill_by_hand() -> None:
    """Every missing cell gets 0, the training mean of standardised values."""
    assert mean_fill(column(NAN, 2, NAN, -1)).flatten().tolist() == [0, 2, 0, -1]


def test_last_observation_carried_forward_by_hand() -> None:
    """Every missing cell gets the latest value before it, and 0 if there is none."""
    filled = last_observation_carried_forward(column(NAN, 2, NAN, NAN, -1, NAN))
    assert filled.flatten().tolist() == [0, 2, 2, 2, -1, -1]


def test_linear_interpolation_by_hand() -> None:
    """Missing cells lie on the line between their neighbours, and beyond the ends at the nearest value."""
    assert linear_interpolation(column(NAN, 2, NAN, NAN, -1, NAN)).flatten().tolist() == [2, 2, 1, 0, -1, -1]


@pytest.mark.parametrize("name", ["mean", "locf", "linear"])
def test_baselines_keep_stays_and_variables_apart(name: str) -> None:
    """Imputing a batch is imputing each stay and variable alone, in float32; observed cells keep their value."""
    random = np.random.default_rng(0)
    values_NTD = random.normal(size=(3, 7, 2)).astype(np.float32)
    values_NTD[random.random(values_NTD.shape) < 0.5] = NAN
    values_NTD[1, :, 0] = NAN
    filled_NTD = PLAIN_RULES[name](values_NTD.copy())
    assert filled_NTD.dtype == np.float32
    assert not np.isnan(filled_NTD).any()
    assert filled_NTD[1, :, 0].tolist() == [0] * 7
    observed = ~np.isnan(values_NTD)
    np.testing.assert_array_equal(filled_NTD[observed], values_NTD[observed])
    for n in range(3):
        for d in range(2):
            alone = PLAIN_RULES[name](values_NTD[n : n + 1, :, d : d + 1])
            np.testing.assert_array_equal(filled_NTD[n, :, d], alone[0, :, 0])


@pytest.mark.parametrize("name", ["mean", "locf", "linear"])
def test_one_hour(name: str) -> None:
    """A record of one hour keeps its observation; a missing cell gets 0."""
    assert PLAIN_RULES[name](np.array([[[3.0, NAN]]], dtype=np.float32)).tolist() == [[[3, 0]]]
