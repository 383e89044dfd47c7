"""Arrays from a notebook: what is accepted, and how they are divided to train an imputer.

Letters: N stays, T hours, D variables.
"""

import numpy as np
import torch

from imputune.data.scaling import Scaler
from imputune.data.splits import FoldData, Split
from imputune.errors import UserError

SHAPE = "an array (stays, hours, variables) of numbers, NaN where nothing was observed"
LARGEST = float(np.finfo(np.float32).max)


class ValuesError(UserError, ValueError):
    """Values or a parameter that an imputer cannot use; a ValueError too, as scikit-learn's users expect."""


def checked_values(values: object, hours_and_variables: tuple[int, int] | None = None) -> np.ndarray:
    """Return values as an array (N, T, D), float32 or float64: whole numbers become float64, others stay as they are.

    Raises ValuesError, one line, for another number of axes, no stay, hour or variable, other hours and variables than
    expected, entries that are no numbers, and numbers that are infinite or too large for float32.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise ValuesError("values are a masked array: write NaN where nothing was observed, values.filled(np.nan)")
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValuesError(f"values are no array, their rows differ in length: give {SHAPE}") from None
    if array.ndim != 3:
        raise ValuesError(f"values have {array.ndim} axes, shape {array.shape}: give {SHAPE}")
    if 0 in array.shape:
        raise ValuesError(f"values have shape {array.shape}, so there is nothing in them: give {SHAPE}")
    if hours_and_variables and array.shape[1:] != hours_and_variables:
        hours, variables = hours_and_variables
        raise ValuesError(
            f"values have {array.shape[1]} hours and {array.shape[2]} variables, but the imputer was fitted on {hours} "
            f"hours and {variables} variables: give the same, in the same order"
        )
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise ValuesError(f"values have the type {array.dtype}: give float32, float64 or whole numbers")
    wrong_NTD = (array > LARGEST) | (array < -LARGEST)
    if np.any(wrong_NTD):
        stay, hour, variable = (int(place) for place in np.argwhere(wrong_NTD)[0])
        raise ValuesError(
            f"values[{stay}, {hour}, {variable}] is {array[stay, hour, variable]}: give finite numbers, up to 3.4e38, "
            "or NaN where nothing was observed"
        )
    return array


def choose_validation(observed_NTD: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the positions of the validation stays, ascending: a random `fraction` of all stays, one at least.

    A stay that holds the only observations of a variable trains, so that every variable can be learned. Raises
    ValuesError if no stay has a variable, or if no stay is left for either side.
    """
    stays_with_ND = np.asarray(observed_NTD.any(axis=1))
    never_D = ~np.any(observed_NTD, axis=(0, 1))
    if never_D.any():
        raise ValuesError(f"no stay has a value of variable {int(never_D.argmax())}: leave this variable out")
    count = len(observed_NTD)
    drawn = np.random.default_rng(seed).permutation(count)[: max(1, round(count * fraction))]
    is_validation_N = np.zeros(count, dtype=bool)
    is_validation_N[drawn] = True
    for d in range(observed_NTD.shape[2]):
        has_N = stays_with_ND[:, d]
        if not (has_N & ~is_validation_N).any():
            is_validation_N[has_N.argmax()] = False
    if is_validation_N.all() or not is_validation_N.any():
        raise ValuesError(
            f"{count} stays are too few: some must train, and others choose the epoch; give more stays, or change "
            f"validation_fraction, {fraction:g}"
        )
    return np.flatnonzero(is_validation_N)


def divide(array: np.ndarray, validation: np.ndarray, clip_quantile: float) -> FoldData:
    """Return values as fold 0: all stays but `validation` train, and the scaler is fitted on those; no stay tests."""
    train, recorded_NTD = np.setdiff1d(np.arange(len(array)), validation), np.ascontiguousarray(array, np.float32)
    scaler = Scaler.fit(recorded_NTD, clip_quantile, train)
    return FoldData(
        number=0,
        scaler=scaler,
        train=_split(recorded_NTD, train, scaler),
        validation=_split(recorded_NTD, validation, scaler),
        test=_split(recorded_NTD, np.empty(0, dtype=np.int64), scaler),
    )


def _split(recorded_NTD: np.ndarray, stays: np.ndarray, scaler: Scaler) -> Split:
    """Return some stays, whose outcome nobody knows, as a split."""
    return Split(
        recorded_CTD=recorded_NTD,
        rows_N=stays,
        scaler=scaler,
        outcome_N=torch.full((len(stays),), torch.nan),
        stay_ids_N=stays,
        static_NS=np.empty((len(stays), 0), dtype=np.float32),
    )
