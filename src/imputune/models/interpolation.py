"""Simple imputers to hold CSAI against: mean, last observation carried forward, linear interpolation.

Each takes standardised values (N, T, D) float32 with NaN where not observed, and gives float32 (N, T, D) without NaN;
0 is the training mean, and stands where a stay has no observation to go by.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd


def mean_fill(values_NTD: np.ndarray) -> np.ndarray:
    """Fill every hole with the training mean."""
    return np.nan_to_num(values_NTD)


def last_observation_carried_forward(values_NTD: np.ndarray) -> np.ndarray:
    """Fill every hole with the latest value before it."""
    return _from_columns(_to_columns(values_NTD).ffill(), values_NTD.shape)


def linear_interpolation(values_NTD: np.ndarray) -> np.ndarray:
    """Fill holes on the line between their neighbours in time, and beyond the first and last with these."""
    filled = _to_columns(values_NTD).interpolate("linear", limit_direction="both")
    return _from_columns(filled, values_NTD.shape)


BASELINES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
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
