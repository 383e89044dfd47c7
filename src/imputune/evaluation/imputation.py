"""How close an imputer comes on held-out cells: in distance, in distribution, in correlation; by variable and by stay.

Letters: N stays, T hours, D variables, M held-out cells. Values are standardised, so errors are in training deviations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from imputune.evaluation.metrics import imputation_scores
from imputune.evaluation.rows import mean_and_deviation
from imputune.settings.names import Hiding

STAYS_AT_ONCE = 1000  # of which sums are taken, so that memory does not grow with the cohort
LEAST_VARIANCE = 1e-9  # below it a variable does not vary, but for rounding
FEWEST_HOURS = 50  # in which two variables must be observed together and one held out, for their correlation to count
MEASURES = ("mae", "rmse", "mre", "wasserstein", "correlation_error")


def held_out_scores(
    estimate_NTD: np.ndarray,
    truth_NTD: np.ndarray,
    held_out_NTD: np.ndarray,
    observed_NTD: np.ndarray,
    variables: Sequence[str],
    group_N: np.ndarray,
) -> dict[str, Any]:
    """Score an imputation of the held-out cells, on which `held_out` is true among those observed.

    mae, rmse and mre (sum of errors over sum of magnitudes) over all held-out cells, by variable, and by group of
    stays; wasserstein, the distance between the distributions of estimates and truth, the mean over variables by their
    cells; correlation_error, see `correlation_error`. A variable or group without held-out cells is left out.

    Shapes: estimate and truth (N, T, D), held_out and observed boolean (N, T, D), group_N int (N,).
    """
    rows = imputation_scores(estimate_NTD, truth_NTD, held_out_NTD, variables)
    by_variable = {str(row.pop("variable")): row for row in rows}
    everything = by_variable.pop("all")
    for number, name in enumerate(variables):
        held_NT = held_out_NTD[..., number]
        if name in by_variable:
            distance = wasserstein_distance(truth_NTD[..., number][held_NT], estimate_NTD[..., number][held_NT])
            by_variable[name]["wasserstein"] = float(distance)
    groups = {}
    for group in np.unique(group_N):
        chosen_N = group_N == group
        [row, *_] = imputation_scores(estimate_NTD[chosen_N], truth_NTD[chosen_N], held_out_NTD[chosen_N], variables)
        if row["cells"]:
            groups[str(group)] = {name: row[name] for name in ("cells", "mae", "rmse", "mre")}
    cells = float(everything["cells"])
    return everything | {
        "wasserstein": sum(float(row["wasserstein"]) * float(row["cells"]) for row in by_variable.values()) / cells,
        "correlation_error": correlation_error(estimate_NTD, truth_NTD, held_out_NTD, observed_NTD),
        "by_variable": by_variable,
        "by_missing_share": groups,
    }


def correlation_error(
    estimate_NTD: np.ndarray, truth_NTD: np.ndarray, held_out_NTD: np.ndarray, observed_NTD: np.ndarray
) -> float | None:
    """Return how far the correlations between variables lie from the true ones where cells are imputed.

    Of each pair of variables, over the hours in which both were observed and one at least is held out, the correlation
    with estimates in the held-out cells is taken and that of the truth; the mean absolute difference over the pairs
    with 50 such hours or more in which both truly vary, whatever the imputer. An estimate that does not vary has
    correlation 0. None where there is no such pair.

    Shapes: as for `held_out_scores`.
    """
    truly, made = (np.zeros((5, truth_NTD.shape[-1], truth_NTD.shape[-1])) for _ in range(2))
    for stays in np.array_split(np.arange(len(truth_NTD)), -(-len(truth_NTD) // STAYS_AT_ONCE)):
        truth, held_out, observed = (each[stays] for each in (truth_NTD, held_out_NTD, observed_NTD))
        truly += _moments(truth, truth, held_out, observed)
        made += _moments(np.where(held_out, estimate_NTD[stays], truth), truth, held_out, observed)
    true_DD, made_DD = _correlations(truly), _correlations(made)
    pairs = np.triu(truly[0] >= FEWEST_HOURS, 1) & np.isfinite(true_DD)
    difference_DD = np.abs(np.nan_to_num(made_DD) - np.nan_to_num(true_DD))
    return float(difference_DD[pairs].mean()) if pairs.any() else None


def _moments(
    values_NTD: np.ndarray, truth_NTD: np.ndarray, held_out_NTD: np.ndarray, observed_NTD: np.ndarray
) -> np.ndarray:
    """Return sums for each pair over the hours in which both are observed and one at least is held out, (5, D, D).

    Their number, and the sums of the first, the second, the products, and the first's squares: those over all hours in
    which both are observed, less those in which both are shown.
    """
    total = np.zeros((5, values_NTD.shape[-1], values_NTD.shape[-1]))
    for sign, values, cells in ((1, values_NTD, observed_NTD), (-1, truth_NTD, observed_NTD & ~held_out_NTD)):
        seen = cells.reshape(-1, cells.shape[-1]).astype(np.float64)
        value = np.where(cells, values, 0.0).reshape(seen.shape).astype(np.float64)
        sums = value.T @ seen
        total += sign * np.stack([seen.T @ seen, sums, sums.T, value.T @ value, (value**2).T @ seen])
    return total


def _correlations(moments: np.ndarray) -> np.ndarray:
    """Return the correlation of each pair, (D, D), NaN where one of the two does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        _, first, second, product, square = moments / moments[0]
        variance = np.where((spread := square - first**2) > LEAST_VARIANCE, spread, np.nan)
        return np.asarray((product - first * second) / np.sqrt(variance * variance.T))


@dataclass(frozen=True)
class HidingRow:
    """An imputer under one way of hiding, at one share: measures as mean and sample deviation over folds.

    mean and deviation have `MEASURES`, in training deviations but for mre and correlation_error; a measure that no fold
    has is left out. by_variable and by_missing_share have theirs as means over the folds with such cells, by name of
    the variable and by number of the group.
    """

    hiding: Hiding
    share: float
    mean: dict[str, float]
    deviation: dict[str, float]
    by_variable: dict[str, dict[str, float]]
    by_missing_share: dict[str, dict[str, float]]


def hiding_rows(folds: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[HidingRow, ...]:
    """Aggregate what `held_out_scores` gave, each with hiding and share beside it, over folds, in their order."""
    rows = []
    for same in zip(*folds, strict=True):
        spread = {
            name: mean_and_deviation(values)
            for name in MEASURES
            if (values := [float(each[name]) for each in same if each[name] is not None])
        }
        rows.append(
            HidingRow(
                same[0]["hiding"],
                same[0]["share"],
                {name: pair[0] for name, pair in spread.items()},
                {name: pair[1] for name, pair in spread.items()},
                _means(same, "by_variable"),
                _means(same, "by_missing_share"),
            )
        )
    return tuple(rows)


def _means(folds: Sequence[Mapping[str, Any]], part: str) -> dict[str, dict[str, float]]:
    found: dict[str, list[Mapping[str, float]]] = {}
    for each in folds:
        for name, scores in each[part].items():
            found.setdefault(name, []).append(scores)
    return {
        name: {measure: fmean(scores[measure] for scores in same) for measure in same[0] if measure != "cells"}
        for name, same in found.items()
    }
