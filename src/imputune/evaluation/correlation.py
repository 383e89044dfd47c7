"""How well an imputation keeps the correlations between variables.

Letters: N stays, T hours, D variables.
"""

import numpy as np

STAYS_AT_ONCE = 1000  # sums are taken over so many stays, so that memory does not grow with the cohort
LEAST_VARIANCE = 1e-9  # below it a variable is constant except for rounding
FEWEST_HOURS = 50  # a pair of variables with fewer hours has no reliable correlation


def correlation_error(
    estimate_NTD: np.ndarray, truth_NTD: np.ndarray, held_out_NTD: np.ndarray, observed_NTD: np.ndarray
) -> float | None:
    """Return how far correlations between variables move when held-out cells are imputed.

    For each pair of variables, take the hours in which both were observed and at least one is held out. Over these
    hours, compute the correlation of the true values, and the correlation with the held-out cells imputed. The result
    is the mean absolute difference over all pairs with at least 50 such hours in which both variables truly vary. A
    constant estimate has correlation 0. None if there is no such pair.

    Shapes: estimate and truth (N, T, D), held_out and observed boolean (N, T, D).
    """
    variables = truth_NTD.shape[-1]
    true_moments, imputed_moments = np.zeros((5, variables, variables)), np.zeros((5, variables, variables))
    for stays in np.array_split(np.arange(len(truth_NTD)), -(-len(truth_NTD) // STAYS_AT_ONCE)):
        truth, held_out, observed = truth_NTD[stays], held_out_NTD[stays], observed_NTD[stays]
        imputed = np.where(held_out, estimate_NTD[stays], truth)
        true_moments += _moments(truth, truth, held_out, observed)
        imputed_moments += _moments(imputed, truth, held_out, observed)
    true_DD, imputed_DD = _correlations(true_moments), _correlations(imputed_moments)
    pairs_DD = np.triu(true_moments[0] >= FEWEST_HOURS, 1) & np.isfinite(true_DD)
    difference_DD = np.abs(np.nan_to_num(imputed_DD) - np.nan_to_num(true_DD))
    return float(difference_DD[pairs_DD].mean()) if pairs_DD.any() else None


def _moments(
    values_NTD: np.ndarray, truth_NTD: np.ndarray, held_out_NTD: np.ndarray, observed_NTD: np.ndarray
) -> np.ndarray:
    """Return sums for each pair over the hours in which both are observed and at least one is held out, (5, D, D).

    The five: number of hours; sums of the first variable, the second, their product, and the first's square. Computed
    over all hours in which both are observed, minus those in which both are visible.
    """
    total = np.zeros((5, values_NTD.shape[-1], values_NTD.shape[-1]))
    for sign, values, cells in ((1, values_NTD, observed_NTD), (-1, truth_NTD, observed_NTD & ~held_out_NTD)):
        counted = cells.reshape(-1, cells.shape[-1]).astype(np.float64)
        value = np.where(cells, values, 0.0).reshape(counted.shape).astype(np.float64)
        sums = value.T @ counted
        total += sign * np.stack([counted.T @ counted, sums, sums.T, value.T @ value, (value**2).T @ counted])
    return total


def _correlations(moments: np.ndarray) -> np.ndarray:
    """Return the correlation of each pair, (D, D), NaN if one of the two does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        _, first, second, product, square = moments / moments[0]
        variance = square - first**2
        variance = np.where(variance > LEAST_VARIANCE, variance, np.nan)
        return np.asarray((product - first * second) / np.sqrt(variance * variance.T))
