"""Imputer or classifier: the matrix of test AUC of every imputer with every head, and where its variance lies.

Letters: I imputers, C classifiers (heads), F folds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from scipy import stats

from imputune.evaluation.rows import Row
from imputune.settings.names import ImputerName

SMALLEST = 1e-300  # in place of a sum of squares that is 0
ROUNDING = 1e-12  # of the sum of squares: less than that is no rest


@dataclass(frozen=True)
class Decomposition:
    """How the sum of squares of test AUC divides, as shares that add up to 1.

    imputer, head, interaction and folds; rest is what a fold does to a single combination. The effects are what is left
    of the first three shares once what chance gives such a part is taken off (the numerator of omega squared: Hays,
    Statistics, 1963), so that parts of many combinations can be held against parts of few. The p-values are of F-tests
    of the same three against the rest, 1 where there is no rest.
    """

    imputers: tuple[ImputerName, ...]
    heads: tuple[str, ...]
    imputer: float
    head: float
    interaction: float
    folds: float
    rest: float
    imputer_effect: float
    head_effect: float
    interaction_effect: float
    imputer_p: float
    head_p: float
    interaction_p: float


def decompose(rows: Sequence[Row]) -> Decomposition | None:
    """Divide the variance of test AUC among imputer, head, their interaction and the folds.

    The imputers and heads are those of the largest full matrix: what only some of them have does not count. None where
    that has fewer than two imputers or heads. Two-way analysis of variance with folds as blocks: sums of squares about
    the grand mean, balanced, so that they add up.
    """
    found = {(row.imputer, row.head): row for row in rows}
    imputers, heads = _largest_full(found)
    if len(imputers) < 2 or len(heads) < 2:
        return None
    numbers = sorted(found[imputers[0], heads[0]].by_fold("test_auc"))
    auc_ICF = np.array(
        [
            [[found[imputer, head].by_fold("test_auc")[number] for number in numbers] for head in heads]
            for imputer in imputers
        ]
    )
    return Decomposition(imputers, heads, *_shares(auc_ICF))


def _largest_full(found: Iterable[tuple[ImputerName, str]]) -> tuple[tuple[ImputerName, ...], tuple[str, ...]]:
    """Return the imputers and heads, two heads or more, of which the most combinations are there without a gap."""
    heads_of: dict[ImputerName, dict[str, None]] = {}
    for imputer, head in found:
        heads_of.setdefault(imputer, {})[head] = None
    best: tuple[tuple[ImputerName, ...], tuple[str, ...]] = (), ()
    for one, other in combinations_with_replacement(heads_of.values(), 2):
        heads = tuple(head for head in one if head in other)
        imputers = tuple(imputer for imputer, has in heads_of.items() if set(heads) <= set(has))
        if len(heads) > 1 and len(imputers) * len(heads) > len(best[0]) * len(best[1]):
            best = imputers, heads
    return best


def _shares(auc_ICF: np.ndarray) -> list[float]:
    """Return the five shares, the three effects and the three p-values of a `Decomposition`, in its order."""
    imputers, heads, folds = auc_ICF.shape
    grand = auc_ICF.mean()
    of_imputer_I, of_head_C, of_fold_F = (auc_ICF.mean(axis=axes) - grand for axes in ((1, 2), (0, 2), (0, 1)))
    both_IC = auc_ICF.mean(axis=2) - grand - of_imputer_I[:, None] - of_head_C
    rest_ICF = auc_ICF - auc_ICF.mean(axis=2, keepdims=True) - of_fold_F
    squares = np.array(
        [
            heads * folds * (of_imputer_I**2).sum(),
            imputers * folds * (of_head_C**2).sum(),
            folds * (both_IC**2).sum(),
            imputers * heads * (of_fold_F**2).sum(),
            (rest_ICF**2).sum(),
        ]
    )
    causes = np.array([imputers - 1, heads - 1, (imputers - 1) * (heads - 1)])
    degrees = (imputers * heads - 1) * (folds - 1)
    by_chance, p_values = np.zeros(3), np.ones(3)
    if degrees and squares[4] > ROUNDING * squares.sum():
        by_chance = causes * squares[4] / degrees
        p_values = stats.f.sf(squares[:3] / by_chance, causes, degrees)
    shares = squares / max(squares.sum(), SMALLEST)
    effects = (squares[:3] - by_chance) / max(squares.sum(), SMALLEST)
    return [*shares.tolist(), *effects.tolist(), *p_values.tolist()]
