"""Bootstrap intervals of scores over stays."""

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 0.95

Drawn = list[np.ndarray]
"""For each group of stays, positions of as many stays of it, drawn with replacement."""


def bootstrap_intervals(
    statistic: Callable[[Drawn], Sequence[float]], sizes: Sequence[int], resamples: int, seed: int
) -> list[tuple[float, float]]:
    """Return the 95 % percentile interval of each number that `statistic` gives.

    Stays are drawn with replacement within each group of `sizes` (test folds, for instance, which stay apart). A draw
    for which a number is NaN, as an AUC without deaths is, does not count for that number; NaN bounds where none does.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval).
    """
    generator = np.random.default_rng(seed)
    drawn_RS = np.array(
        [statistic([generator.integers(0, size, size) for size in sizes]) for _ in range(resamples)], dtype=np.float64
    )
    tail = 100 * (1 - LEVEL) / 2
    bounds = []
    for number_R in drawn_RS.T:
        counted_R = number_R[~np.isnan(number_R)]
        low, high = np.percentile(counted_R, (tail, 100 - tail)) if len(counted_R) else (np.nan, np.nan)
        bounds.append((float(low), float(high)))
    return bounds
