"""An imputer's scores on held-out cells: errors, distances between distributions, and correlations.

Letters: N stays, T hours, D variables, M held-out cells. Values are standardised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wasserstein_distance

from imputune.evaluation.assessment import HeldOutScores, VariableErrors
from imputune.evaluation.correlation import correlation_error
from imputune.evaluation.imputation import CellErrors, cell_errors
from imputune.settings.names import MaskingPattern


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOutCells:
    """Imputed and true values of stays, and which of the observed cells are held out.

    Shapes: estimate and truth (N, T, D); held_out and observed boolean (N, T, D), held_out only where observed.
    """

    estimate_NTD: np.ndarray
    truth_NTD: np.ndarray
    held_out_NTD: np.ndarray
    observed_NTD: np.ndarray


def held_out_scores(
    cells: HeldOutCells, variables: Sequence[str], group_N: np.ndarray, pattern: MaskingPattern, rate: float
) -> HeldOutScores:
    """Score an imputation of held-out cells, of which there must be at least one.

    Shapes: group_N int (N,), the group of each stay.
    """
    overall, by_variable = cell_errors([(cells.estimate_NTD, cells.truth_NTD, cells.held_out_NTD)], variables)
    variable_errors = _with_wasserstein(cells, variables, by_variable)
    distance = sum(each.wasserstein * each.cells for each in variable_errors.values()) / overall.cells
    return HeldOutScores(
        **dict(overall),
        wasserstein=distance,
        pattern=pattern,
        rate=rate,
        correlation_error=correlation_error(
            cells.estimate_NTD, cells.truth_NTD, cells.held_out_NTD, cells.observed_NTD
        ),
        by_variable=variable_errors,
        by_missing_share=_by_group(cells, variables, group_N),
    )


def _with_wasserstein(
    cells: HeldOutCells, variables: Sequence[str], by_variable: dict[str, CellErrors]
) -> dict[str, VariableErrors]:
    """Add each variable's Wasserstein distance to its errors."""
    complete = {}
    for number, name in enumerate(variables):
        if name in by_variable:
            held_out_NT = cells.held_out_NTD[..., number]
            truth_M, estimate_M = (
                each_NTD[..., number][held_out_NT] for each_NTD in (cells.truth_NTD, cells.estimate_NTD)
            )
            distance = float(wasserstein_distance(truth_M, estimate_M))
            complete[name] = VariableErrors(**dict(by_variable[name]), wasserstein=distance)
    return complete


def _by_group(cells: HeldOutCells, variables: Sequence[str], group_N: np.ndarray) -> dict[str, CellErrors]:
    """Return the errors of each group of stays that has held-out cells, by the group's number."""
    groups = {}
    for group in np.unique(group_N):
        stays_N = group_N == group
        of_group = (each_NTD[stays_N] for each_NTD in (cells.estimate_NTD, cells.truth_NTD, cells.held_out_NTD))
        errors, _ = cell_errors([tuple(of_group)], variables)
        if errors.cells:
            groups[str(group)] = errors
    return groups
