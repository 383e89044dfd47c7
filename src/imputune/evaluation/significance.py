"""Significance tests of differences over cross-validation folds."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

SIGNIFICANCE_LEVEL = 0.05
CITATION = (
    "corrected resampled t-test, two-sided (Nadeau and Bengio, Inference for the generalization error, "
    "Machine Learning 52, 2003)"
)


def corrected_t_test(differences: Sequence[float], test_to_train: float) -> float:
    """Return the two-sided p-value that the mean of paired differences over cross-validation folds is 0.

    Folds share training stays, so the variance of the mean is increased by `test_to_train`, the number of test stays
    over the number of training stays of a fold (`protocol.division.Division.test_to_train`). Raises ValueError for
    fewer than two differences.

    Source: Nadeau and Bengio 2003, corrected resampled t-test.
    """
    mean, error = _mean_and_error(differences, test_to_train)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean / error), len(differences) - 1))


def corrected_t_interval(differences: Sequence[float], test_to_train: float) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean that `corrected_t_test` tests: it has 0 outside if p < 0.05.

    Raises ValueError for fewer than two differences.
    """
    mean, error = _mean_and_error(differences, test_to_train)
    half = float(stats.t.isf(SIGNIFICANCE_LEVEL / 2, len(differences) - 1)) * error
    return mean - half, mean + half


def _mean_and_error(differences: Sequence[float], test_to_train: float) -> tuple[float, float]:
    """Return the mean of some differences, and its standard error by the corrected variance."""
    count = len(differences)
    if count < 2:
        raise ValueError(f"the test needs at least two folds, got {count}")
    variance = float(np.var(differences, ddof=1))
    return float(np.mean(differences)), math.sqrt((1 / count + test_to_train) * variance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order. Source: Holm 1979, step-down."""
    ascending = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(ascending):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted
