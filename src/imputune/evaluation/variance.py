"""Imputer or classifier: how much of the variance of test AUC each explains.

Letters: I imputers, C classifiers (heads), F folds.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from scipy import stats

from imputune.evaluation.rows import VariantRow
from imputune.evaluation.stored import Stored
from imputune.settings.names import Head, ImputerName

SMALLEST = 1e-300  # replaces a total of 0, to divide by
ROUNDING = 1e-12  # a residual below this fraction of the total is a rounding error


class Part(Stored):
    """What one factor contributes to the variance of test AUC.

    share: its fraction of the total sum of squares. effect: the share minus what chance alone would give a factor with
    as many degrees of freedom, so that factors of different size can be compared (the numerator of omega squared:
    Hays, Statistics, 1963). p_value: F-test against the residual; 1 if there is no residual.
    """

    share: float
    effect: float
    p_value: float


class Decomposition(Stored):
    """The variance of test AUC divided among imputer, head, their interaction and the folds.

    imputers, heads: the complete matrix that was analysed. folds, residual: shares of the total; the residual is
    the variance that none of these explains. All five shares add up to 1.
    """

    imputers: tuple[ImputerName, ...]
    heads: tuple[Head, ...]
    imputer: Part
    head: Part
    interaction: Part
    folds: float
    residual: float


def decompose(rows: Sequence[VariantRow]) -> Decomposition | None:
    """Divide the variance of test AUC among imputer, head, their interaction and the folds.

    The analysis uses the largest complete imputer x head matrix; incomplete rows and columns are dropped. None if it
    has fewer than two imputers or two heads, or if there is one fold. Two-way analysis of variance with folds as
    blocks; the design is balanced, so the sums of squares add up.
    """
    row_of = {(row.imputer, row.head): row for row in rows}
    imputers, heads = _largest_complete(row_of)
    if len(imputers) < 2 or len(heads) < 2:
        return None
    folds = sorted(row_of[imputers[0], heads[0]].by_fold("test_auc"))
    if len(folds) < 2:
        return None
    by_fold = {key: row.by_fold("test_auc") for key, row in row_of.items()}
    auc_ICF = np.array([[[by_fold[imputer, head][fold] for fold in folds] for head in heads] for imputer in imputers])
    squares, degrees = _sums_of_squares(auc_ICF), _degrees_of_freedom(auc_ICF)
    total = max(sum(squares), SMALLEST)
    return Decomposition(
        imputers=imputers,
        heads=heads,
        imputer=_part(squares.imputer, degrees.imputer, squares, degrees),
        head=_part(squares.head, degrees.head, squares, degrees),
        interaction=_part(squares.interaction, degrees.interaction, squares, degrees),
        folds=squares.folds / total,
        residual=squares.residual / total,
    )


def _largest_complete(
    combinations: Iterable[tuple[ImputerName, Head]],
) -> tuple[tuple[ImputerName, ...], tuple[Head, ...]]:
    """Return the imputers and the heads, at least two, with the most combinations and none missing."""
    heads_of: dict[ImputerName, dict[Head, None]] = {}
    for imputer, head in combinations:
        heads_of.setdefault(imputer, {})[head] = None
    best: tuple[tuple[ImputerName, ...], tuple[Head, ...]] = (), ()
    for one, other in combinations_with_replacement(heads_of.values(), 2):
        heads = tuple(head for head in one if head in other)
        imputers = tuple(imputer for imputer, available in heads_of.items() if set(heads) <= set(available))
        if len(heads) > 1 and len(imputers) * len(heads) > len(best[0]) * len(best[1]):
            best = imputers, heads
    return best


class _SumsOfSquares(NamedTuple):
    imputer: float
    head: float
    interaction: float
    folds: float
    residual: float


class _DegreesOfFreedom(NamedTuple):
    imputer: int
    head: int
    interaction: int
    residual: int


def _sums_of_squares(auc_ICF: np.ndarray) -> _SumsOfSquares:
    imputers, heads, folds = auc_ICF.shape
    mean = auc_ICF.mean()
    imputer_I = auc_ICF.mean(axis=(1, 2)) - mean
    head_C = auc_ICF.mean(axis=(0, 2)) - mean
    fold_F = auc_ICF.mean(axis=(0, 1)) - mean
    interaction_IC = auc_ICF.mean(axis=2) - mean - imputer_I[:, None] - head_C
    residual_ICF = auc_ICF - auc_ICF.mean(axis=2, keepdims=True) - fold_F
    return _SumsOfSquares(
        imputer=float(heads * folds * (imputer_I**2).sum()),
        head=float(imputers * folds * (head_C**2).sum()),
        interaction=float(folds * (interaction_IC**2).sum()),
        folds=float(imputers * heads * (fold_F**2).sum()),
        residual=float((residual_ICF**2).sum()),
    )


def _degrees_of_freedom(auc_ICF: np.ndarray) -> _DegreesOfFreedom:
    imputers, heads, folds = auc_ICF.shape
    return _DegreesOfFreedom(
        imputer=imputers - 1,
        head=heads - 1,
        interaction=(imputers - 1) * (heads - 1),
        residual=(imputers * heads - 1) * (folds - 1),
    )


def _part(square: float, degrees_of_factor: int, squares: _SumsOfSquares, degrees: _DegreesOfFreedom) -> Part:
    total = max(sum(squares), SMALLEST)
    if not degrees.residual or squares.residual <= ROUNDING * sum(squares):
        return Part(share=square / total, effect=square / total, p_value=1.0)
    by_chance = degrees_of_factor * squares.residual / degrees.residual
    p_value = float(stats.f.sf(square / by_chance, degrees_of_factor, degrees.residual))
    return Part(share=square / total, effect=(square - by_chance) / total, p_value=p_value)
