"""Statistics of a record, for heads that read neither a series nor a hidden state."""

import numpy as np

STATISTICS = ("count", "minimum", "maximum", "mean", "deviation", "first", "last")


def summarise(values_NTD: np.ndarray, observed_NTD: np.ndarray) -> np.ndarray:
    """Return each variable's statistics over the observed hours of a stay, in the order of STATISTICS.

    Shapes: values_NTD float32, anything where not observed; observed_NTD bool; float32 (N, 7 * D) out, the first D
    columns the counts. If a variable was never observed in a stay, its count is 0 and its other statistics are NaN.
    """
    hours = values_NTD.shape[1]
    count_ND = observed_NTD.sum(axis=1)
    first_ND = observed_NTD.argmax(axis=1)
    last_ND = hours - 1 - observed_NTD[:, ::-1].argmax(axis=1)
    or_zero_NTD = np.where(observed_NTD, values_NTD, 0.0).astype(np.float64)
    at_least_one = np.maximum(count_ND, 1)
    mean_ND = or_zero_NTD.sum(axis=1) / at_least_one
    square_NTD = np.where(observed_NTD, values_NTD - mean_ND[:, None], 0.0) ** 2

    def at(hour_ND: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values_NTD, hour_ND[:, None], axis=1)[:, 0]

    statistics = (
        np.where(observed_NTD, values_NTD, np.inf).min(axis=1),
        np.where(observed_NTD, values_NTD, -np.inf).max(axis=1),
        mean_ND,
        np.sqrt(square_NTD.sum(axis=1) / at_least_one),
        at(first_ND),
        at(last_ND),
    )
    or_nan = [np.where(count_ND > 0, each, np.nan) for each in statistics]
    return np.concatenate([count_ND, *or_nan], axis=1).astype(np.float32)
