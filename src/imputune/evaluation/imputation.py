"""How close an imputer comes on held-out cells: in distance, in distribution, in correlation; by variable and by stay.

Letters: N stays, T hours, D variables, M held-out cells. Values are standardised, so errors are in training deviations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from imputune.config import Hiding
from imputune.evaluation.metrics import imputation_scores
from imputune.evaluation.rows import mean_and_deviation

FEWEST_HOURS = 50  # in which two variables must be observed together for their correlation to count
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
    with 50 such hours or more, in which both vary. None where there is no such pair.
    """
    D = truth_NTD.shape[-1]
    seen = observed_NTD.reshape(-1, D).astype(np.float64)
    shown = (observed_NTD & ~held_out_NTD).reshape(-1, D).astype(np.float64)
    truth = np.where(observed_NTD, truth_NTD, 0.0).reshape(-1, D).astype(np.float64)
    filled = np.where(held_out_NTD, estimate_NTD, truth_NTD)
    filled = np.where(observed_NTD, filled, 0.0).reshape(-1, D).astype(np.float64)
    true_DD, count_DD = _correlations(truth, truth, seen, shown)
    made_DD, _ = _correlations(filled, truth, seen, shown)
    pairs = np.triu(count_DD >= FEWEST_HOURS, 1) & np.isfinite(true_DD) & np.isfinite(made_DD)
    return float(np.abs(made_DD - true_DD)[pairs].mean()) if pairs.any() else None


def _correlations(
    values: np.ndarray, shown_values: np.ndarray, seen: np.ndarray, shown: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return correlations and counts over hours in which both are seen, less those in which both are shown.

    Where both are shown, `values` are `shown_values`.
    """
    visible = shown_values * shown

    def over(first: np.ndarray, second: np.ndarray, of_shown: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return np.asarray(first.T @ second - of_shown[0].T @ of_shown[1])

    count = over(seen, seen, (shown, shown))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = over(values, seen, (visible, shown)) / count  # of the first of a pair
        product = over(values, values, (visible, visible)) / count
        square = over(values**2, seen, (visible**2, shown)) / count
        variance = np.where((spread := square - mean**2) > 1e-9, spread, np.nan)
        return (product - mean * mean.T) / np.sqrt(variance * variance.T), count


@dataclass(frozen=True)
class HidingRow:
    """An imputer under one way of hiding, at one share: measures as mean and sample deviation over folds.

    mae_by_variable and mae_by_missing_share are means over the folds that have such cells.
    """

    hiding: Hiding
    share: float
    mean: dict[str, float]
    deviation: dict[str, float]
    mae_by_variable: dict[str, float]
    mae_by_missing_share: dict[str, float]


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


def _means(folds: Sequence[Mapping[str, Any]], part: str) -> dict[str, float]:
    names = dict.fromkeys(name for each in folds for name in each[part])
    return {name: fmean(each[part][name]["mae"] for each in folds if name in each[part]) for name in names}
