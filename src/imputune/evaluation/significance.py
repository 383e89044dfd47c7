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
    over the number of training stays of a fold. Raises ValueError for fewer than two differences.

    Source: Nadeau and Bengio 2003, corrected resampled t-test.
    """
    count = len(differences)
    if count < 2:
        raise ValueError(f"the test needs at least two folds, got {count}")
    mean, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    if variance == 0:
        return 1.0 if mean == 0 else 0.0
    statistic = mean / math.sqrt((1 / count + test_to_train) * variance)
    return float(2 * stats.t.sf(abs(statistic), count - 1))


def test_to_train(folds: int) -> float:
    """Return test stays over training stays: of `folds` folds one tests, one validates and the others train."""
    return 1 / (folds - 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order. Source: Holm 1979, step-down."""
    ascending = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(ascending):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted
