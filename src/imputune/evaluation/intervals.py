"""Bootstrap confidence intervals of scores over stays.

Letters: R resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np

CONFIDENCE_LEVEL = 0.95

Resample = list[np.ndarray]
"""For each group of stays, the positions of as many of its stays, drawn with replacement."""


def bootstrap_intervals(
    statistic: Callable[[Resample], Sequence[float]], sizes: Sequence[int], resamples: int, seed: int
) -> list[tuple[float, float]]:
    """Return the 95 % percentile interval of each number that `statistic` returns.

    Stays are drawn with replacement within each group (for instance a test fold); `sizes` holds the groups' numbers of
    stays. A resample in which a number is NaN, such as an AUC without positive stays, does not count for that number.
    The bounds are NaN if no resample counts.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval).
    """
    return [percentile_interval(number_R) for number_R in resampled(statistic, sizes, resamples, seed)]


def resampled(
    statistic: Callable[[Resample], Sequence[float]], sizes: Sequence[int], resamples: int, seed: int
) -> list[np.ndarray]:
    """Return the resamples (R,) of each number that `statistic` returns; see `bootstrap_intervals`."""
    generator = np.random.default_rng(seed)
    rows = [statistic([generator.integers(0, size, size) for size in sizes]) for _ in range(resamples)]
    return list(np.array(rows, dtype=np.float64).T)


def percentile_interval(number_R: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of a number's resamples (R,), NaN not counted; NaN bounds if all are NaN."""
    counted = number_R[~np.isnan(number_R)]
    if not len(counted):
        return float("nan"), float("nan")
    tail = 100 * (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.percentile(counted, (tail, 100 - tail))
    return float(low), float(high)


def shifted_interval(number_R: np.ndarray, value: float) -> tuple[float, float]:
    """Return the 95 % interval of a number that is 0 or more, and that resampling itself raises.

    A resample of stays whose risks are right fits them worse than the stays do, so that the percentile interval of a
    calibration error can lie wholly above it. Here the resamples (R,) are shifted until their mean is the value, and
    bounds below 0 are 0. NaN is not counted; NaN bounds if all are NaN.

    Source: Efron and Tibshirani 1993, chapter 10 (the bootstrap's estimate of bias, which is taken off).
    """
    counted = number_R[~np.isnan(number_R)]
    if not len(counted):
        return float("nan"), float("nan")
    low, high = percentile_interval(counted - (counted.mean() - value))
    return max(low, 0.0), high
