"""Imputers alone, in words: their errors by masking, variable and missing share, and which one has the lowest."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from imputune.data.masking_patterns import LABELS
from imputune.evaluation.assessed_imputers import MEASURES, AssessedImputer, Measure, PatternScores
from imputune.evaluation.contrasts import error_contrast
from imputune.evaluation.rows import ImputerRow
from imputune.evaluation.significance import SIGNIFICANCE_LEVEL
from imputune.protocol.imputers import imputer_kind
from imputune.reporting.tables import EMPTY, Table, minutes_text, spread_text
from imputune.settings.imputer_sections import Ranking


def ranked_imputers(imputers: Sequence[AssessedImputer]) -> list[tuple[AssessedImputer, PatternScores]]:
    """Return the imputers that were scored under the ranking's masking, with these scores."""
    return [(each, each.ranked) for each in imputers if each.ranked is not None]


def errors_table(imputers: Sequence[AssessedImputer]) -> Table:
    """Return mean absolute errors, a line for each masking pattern and rate, a column for each imputer."""
    maskings = dict.fromkeys((row.pattern, row.rate) for each in imputers for row in each.rows)
    lines = []
    for pattern, rate in maskings:
        rows = [each.row(pattern, rate) for each in imputers]
        errors = (f"{row.mean['mae']:.3f}" if row else EMPTY for row in rows)
        lines.append((LABELS[pattern], f"{100 * rate:g}%", *errors))
    return Table(
        title="Imputation error by masking pattern and rate",
        header=("masking pattern", "rate", *(each.label for each in imputers)),
        lines=tuple(lines),
        remark=(
            "Mean absolute error on held-out cells of the test stays, in training standard deviations, mean over the "
            "folds. Every imputer was scored on the same cells."
        ),
    )


def ranking_table(imputers: Sequence[AssessedImputer]) -> Table | None:
    """Return all measures under the ranking's masking, the lowest error first; None if no imputer has them."""
    ranked = sorted(ranked_imputers(imputers), key=lambda pair: pair[1].mean["mae"])
    if not ranked:
        return None
    return Table(
        title="Imputers, the lowest error first",
        header=(
            "imputer",
            "MAE",
            "RMSE",
            "MRE",
            "Wasserstein",
            "correlation error",
            "epochs",
            "training minutes",
            "s per 1,000 stays",
            "same result alone and in a batch",
        ),
        lines=tuple(_ranking_line(imputer, scores) for imputer, scores in ranked),
        remark=(
            f"{masking_text(ranked[0][0].ranking)}; mean ± sample standard deviation over the test folds. MAE and "
            "RMSE: mean absolute error and root mean square error, in training standard deviations. MRE: sum of "
            "absolute errors divided by sum of absolute true values. Wasserstein: distance between the distributions "
            "of estimates and true values, mean over the variables, weighted by their number of cells. Correlation "
            "error: how far the correlation of two variables moves when held-out cells are imputed, mean over the "
            "pairs of variables. Training minutes: all folds together, including their scoring. Seconds: time to "
            "impute 1,000 stays. Both times are for one core, or for a GPU if there is one. CSAI was trained on cells "
            "masked by masking.pattern of params.yaml. PyPOTS's networks mask cells in their own ways."
        ),
    )


def _ranking_line(imputer: AssessedImputer, scores: PatternScores) -> tuple[str, ...]:
    measures = (
        spread_text(scores.mean[measure], scores.deviation[measure]) if measure in scores.mean else EMPTY
        for measure in MEASURES
    )
    mixes = f"no, stays influence each other (by {imputer.batch_difference:.2f})"
    return (
        imputer.label,
        *measures,
        str(imputer.epochs) if imputer.epochs else EMPTY,
        minutes_text(imputer.pretrain_seconds) if imputer.epochs else EMPTY,
        f"{imputer.seconds_per_1000_stays:.1f}",
        mixes if imputer.mixes_stays else "yes",
    )


def lowest_error_sentence(imputers: Sequence[AssessedImputer], test_to_train: float) -> str:
    """Say which imputer has the lowest error under the ranking's masking, and how far CSAI is from it.

    CSAI is compared with the best of the others on the test folds; the p-value does not account for this choice. Return
    "" without CSAI or without another imputer.
    """
    found = error_contrast(imputers, test_to_train)
    if found is None:
        return ""
    ours, theirs, other = found.our_mae, found.their_mae, imputer_kind(found.imputer).label
    distance = f"{abs(ours - theirs) / max(ours, theirs):.0%}"
    if ours <= theirs:
        lowest = (
            f"CSAI has the lowest error (MAE {ours:.3f} training standard deviations), {distance} below the next, "
            f"{other} ({theirs:.3f})"
        )
    else:
        lowest = (
            f"{other} has the lowest error (MAE {theirs:.3f} training standard deviations), {distance} below CSAI "
            f"({ours:.3f})"
        )
    if found.p_value is None:
        doubt = "; one split does not tell whether this is chance"
    else:
        significant = found.p_value < SIGNIFICANCE_LEVEL
        doubt = "" if significant else f"; this difference is not significant (p = {found.p_value:.2f})"
    return f"With {masking_text(imputers[0].ranking)}, {lowest}{doubt}."


def missing_table(imputers: Sequence[AssessedImputer], edges: Sequence[float]) -> Table | None:
    """Return the error by the share of a stay's cells that were never observed, under the ranking's masking."""
    ranked = ranked_imputers(imputers)
    if not ranked:
        return None
    groups = [str(group) for group in range(len(edges) - 1)]
    return Table(
        title="Imputation error by how much of a stay is missing",
        header=("imputer", *(f"{low:.0%} to {high:.0%} missing" for low, high in pairwise(edges))),
        lines=tuple(
            (imputer.label, *(_mae(scores.by_missing_share, group) for group in groups)) for imputer, scores in ranked
        ),
        remark=(
            "Mean absolute error, in training standard deviations. Stays are in groups of equal size, by the share of "
            "their cells that were never observed."
        ),
    )


def by_variable_table(imputers: Sequence[AssessedImputer]) -> Table | None:
    """Return the error by variable under the ranking's masking; None if no imputer has it."""
    ranked = ranked_imputers(imputers)
    if not ranked:
        return None
    names = dict.fromkeys(name for _, scores in ranked for name in scores.by_variable)
    return Table(
        title="Imputation error by variable",
        header=("variable", *(imputer.label for imputer, _ in ranked)),
        lines=tuple((name, *(_mae(scores.by_variable, name) for _, scores in ranked)) for name in names),
        remark="Mean absolute error, in training standard deviations.",
    )


def pretraining_table(rows: Sequence[ImputerRow]) -> Table:
    """Return the imputers' errors on masked cells of test stays."""
    lines = [
        (
            imputer_kind(row.imputer).label,
            LABELS[row.pattern],
            spread_text(row.mae_mean, row.mae_std),
            spread_text(row.mre_mean, row.mre_std),
        )
        for row in rows
        if row.split == "test"
    ]
    return Table(
        title="Imputation of masked cells, in training standard deviations",
        header=("imputer", "masking pattern", "test MAE", "test MRE"),
        lines=tuple(lines),
    )


def masking_text(ranking: Ranking) -> str:
    """Return the ranking's masking in words, such as "10% of the observed cells masked (non-uniform)"."""
    return f"{ranking.rate:.0%} of the observed cells masked ({LABELS[ranking.pattern]})"


def _mae(scores: Mapping[str, Mapping[Measure, float]], name: str) -> str:
    return f"{scores[name]['mae']:.3f}" if name in scores else EMPTY
