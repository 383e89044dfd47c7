"""Plain imputers to compare CSAI with: mean, last observation carried forward, linear interpolation.

Each takes standardised values (N, T, D) float32, NaN where missing, and gives float32 (N, T, D) without NaN. A variable
that a stay never observed gets 0, the training mean.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd


def mean_fill(values_NTD: np.ndarray) -> np.ndarray:
    """Fill every missing cell with the training mean."""
    return np.nan_to_num(values_NTD)


def last_observation_carried_forward(values_NTD: np.ndarray) -> np.ndarray:
    """Fill every missing cell with the latest earlier value, or with the training mean if there is none."""
    return _from_columns(_to_columns(values_NTD).ffill(), values_NTD.shape)


def linear_interpolation(values_NTD: np.ndarray) -> np.ndarray:
    """Fill missing cells on the line between the observations around them, at either end with the nearest one."""
    filled = _to_columns(values_NTD).interpolate("linear", limit_direction="both")
    return _from_columns(filled, values_NTD.shape)


PLAIN_RULES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": mean_fill,
    "locf": last_observation_carried_forward,
    "linear": linear_interpolation,
}


def _to_columns(values_NTD: np.ndarray) -> pd.DataFrame:
    stays, hours, variables = values_NTD.shape
    return pd.DataFrame(values_NTD.transpose(1, 0, 2).reshape(hours, stays * variables))


def _from_columns(columns: pd.DataFrame, shape: tuple[int, ...]) -> np.ndarray:
    stays, hours, variables = shape
    filled = columns.to_numpy(np.float32).reshape(hours, stays, variables).transpose(1, 0, 2)
    return np.nan_to_num(filled)
