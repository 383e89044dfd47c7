"""CSAI against the other imputers: test AUC over the heads that both have, and errors on held-out cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from imputune.evaluation.assessed_imputers import AssessedImputer
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.significance import corrected_t_test, holm
from imputune.protocol.imputers import DEFAULT_IMPUTER, is_own
from imputune.settings.names import Head, ImputerName


@dataclass(frozen=True, kw_only=True)
class AucContrast:
    """CSAI against another imputer.

    heads: the number of heads that both have. difference: in test AUC, mean over these heads and the folds, positive if
    CSAI is ahead. p_value: of the differences by fold, adjusted for the number of imputers; None if there is one fold.
    """

    imputer: ImputerName
    heads: int
    difference: float
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class ErrorContrast:
    """CSAI against the best of the other imputers on held-out cells.

    our_mae, their_mae: means over the folds, in training standard deviations. p_value: of the differences by fold, None
    if there is one fold; it does not account for the choice of the best.
    """

    imputer: ImputerName
    our_mae: float
    their_mae: float
    p_value: float | None


def auc_contrasts(rows: Sequence[VariantRow], test_to_train: float) -> list[AucContrast]:
    """Return CSAI against each other imputer with which it shares a head.

    test_to_train: see `corrected_t_test`. p-values are adjusted by `holm`.
    """
    by_imputer: dict[ImputerName, dict[Head, VariantRow]] = {}
    for row in rows:
        by_imputer.setdefault(row.imputer, {})[row.head] = row
    ours = by_imputer.pop(DEFAULT_IMPUTER, {})
    compared = {
        imputer: (len(heads), _differences(ours, theirs, heads))
        for imputer, theirs in by_imputer.items()
        if (heads := [head for head in ours if head in theirs])
    }
    if any(len(differences) < 2 for _, differences in compared.values()):
        p_values: list[float | None] = [None] * len(compared)
    else:
        p_values = [*holm([corrected_t_test(differences, test_to_train) for _, differences in compared.values()])]
    return [
        AucContrast(imputer=imputer, heads=heads, difference=fmean(differences), p_value=p_value)
        for (imputer, (heads, differences)), p_value in zip(compared.items(), p_values, strict=True)
    ]


def error_contrast(imputers: Sequence[AssessedImputer], test_to_train: float) -> ErrorContrast | None:
    """Return CSAI against the best of the others under the ranking's masking; None without CSAI or without another.

    Imputers that learned from further cohorts too are no rivals: they had more stays.
    """
    errors = {each.imputer: each.mae_by_fold for each in imputers if each.mae_by_fold and not is_own(each.imputer)}
    if DEFAULT_IMPUTER not in errors or len(errors) < 2:
        return None
    ours = errors.pop(DEFAULT_IMPUTER)
    best = min(errors, key=lambda name: fmean(errors[name]))
    theirs = errors[best]
    differences = [one - another for one, another in zip(theirs, ours, strict=True)]
    return ErrorContrast(
        imputer=best,
        our_mae=fmean(ours),
        their_mae=fmean(theirs),
        p_value=corrected_t_test(differences, test_to_train) if len(differences) > 1 else None,
    )


def _differences(ours: dict[Head, VariantRow], theirs: dict[Head, VariantRow], heads: list[Head]) -> list[float]:
    """Return by fold the mean difference in test AUC over some heads."""
    pairs = [(ours[head].by_fold("test_auc"), theirs[head].by_fold("test_auc")) for head in heads]
    return [fmean(mine[fold] - other[fold] for mine, other in pairs) for fold in pairs[0][0]]
