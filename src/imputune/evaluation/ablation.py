"""What each ingredient adds: pairs of variants that differ in nothing else, compared fold by fold.

An input of several parts is written with plus signs: hidden+static.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal, get_args

from imputune.evaluation.rows import Score, VariantRow
from imputune.evaluation.significance import corrected_t_interval, corrected_t_test, holm
from imputune.evaluation.stored import Stored
from imputune.protocol.imputers import DEFAULT_IMPUTER, is_own

Ingredient = Literal["static", "summary", "hidden state", "further hidden state", "extra stays", "blend"]
INGREDIENTS: tuple[Ingredient, ...] = get_args(Ingredient)
ADDED: dict[str, Ingredient] = {"static": "static", "summary": "summary", "hidden": "hidden state"}
BLEND = "blend"
WITHOUT_IMPUTER = {"static", "summary"}
"""Parts of an input that no imputer changes."""


class Gain(Stored):
    """A score's mean difference over the folds, positive if the ingredient raises it.

    low, high: its 95 % confidence interval. p_value: adjusted for the number of pairs. by_fold: the differences.
    """

    mean: float
    low: float
    high: float
    p_value: float
    by_fold: tuple[float, ...]


class Ablation(Stored):
    """A variant with an ingredient against the same without it; for a blend, against the best single variant."""

    ingredient: Ingredient
    without: str
    with_it: str
    auc: Gain
    auprc: Gain


def ablations(rows: Sequence[VariantRow], test_to_train: float) -> tuple[Ablation, ...]:
    """Return every pair of variants with the same folds, two at least, that differ in one ingredient.

    The ingredients: `static` or `summary` or the hidden state among the parts of the input; a further hidden state
    (hidden_NAME) instead of the last; CSAI pretrained on extra stays instead of CSAI; a blend instead of the single
    variant with the best validation AUC. Differences are those of the test folds. p-values are adjusted by `holm`, for
    each score over all pairs. test_to_train: see `corrected_t_test`.
    """
    pairs = [pair for pair in _pairs(rows) if len(_folds(pair[1])) > 1 and _folds(pair[1]) == _folds(pair[2])]
    pairs.sort(key=lambda pair: (INGREDIENTS.index(pair[0]), pair[1].label, pair[2].label))
    aucs = _gains([(without, with_it) for _, without, with_it in pairs], "test_auc", test_to_train)
    auprcs = _gains([(without, with_it) for _, without, with_it in pairs], "test_auprc", test_to_train)
    return tuple(
        Ablation(ingredient=ingredient, without=without.label, with_it=with_it.label, auc=auc, auprc=auprc)
        for (ingredient, without, with_it), auc, auprc in zip(pairs, aucs, auprcs, strict=True)
    )


def _pairs(rows: Sequence[VariantRow]) -> Iterator[tuple[Ingredient, VariantRow, VariantRow]]:
    """Yield the ingredient, the variant without it and the variant with it."""
    blends = [row for row in rows if str(row.head) == BLEND]
    single = [row for row in rows if str(row.head) != BLEND]
    for without in single:
        for with_it in single:
            if ingredient := _ingredient(without, with_it):
                yield ingredient, without, with_it
    if single:
        best = max(single, key=lambda row: row.val_auc_mean)  # by validation: test folds choose nothing
        yield from (("blend", best, blend) for blend in blends)


def _ingredient(without: VariantRow, with_it: VariantRow) -> Ingredient | None:
    """Return in what a variant differs from the one without it, if it is one ingredient."""
    if (without.head, without.mode, without.schedule) != (with_it.head, with_it.mode, with_it.schedule):
        return None
    before, after = set(without.input.split("+")), set(with_it.input.split("+"))
    if without.imputer != with_it.imputer:
        is_more = without.imputer == DEFAULT_IMPUTER and is_own(with_it.imputer)
        return "extra stays" if is_more and before == after and not before <= WITHOUT_IMPUTER else None
    match sorted(before - after), sorted(after - before):
        case [], [added]:
            return ADDED.get(added)
        case ["hidden"], [added] if added.startswith("hidden_"):
            return "further hidden state"
    return None


def _folds(row: VariantRow) -> list[int]:
    return sorted(row.by_fold("test_auc"))


def _gains(pairs: Sequence[tuple[VariantRow, VariantRow]], score: Score, test_to_train: float) -> list[Gain]:
    differences = [
        [with_it.by_fold(score)[fold] - without.by_fold(score)[fold] for fold in _folds(without)]
        for without, with_it in pairs
    ]
    p_values = holm([corrected_t_test(each, test_to_train) for each in differences])
    gains = []
    for each, p_value in zip(differences, p_values, strict=True):
        low, high = corrected_t_interval(each, test_to_train)
        gains.append(Gain(mean=fmean(each), low=low, high=high, p_value=p_value, by_fold=tuple(each)))
    return gains
