"""Imputers alone, in words: their errors by masking, variable and missing share, and which one comes closest."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from imputune.data.masking_patterns import LABELS
from imputune.evaluation.assessed_imputers import MEASURES, AssessedImputer, Measure, PatternScores
from imputune.evaluation.significance import SIGNIFICANCE_LEVEL, corrected_t_test
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.reporting.tables import NONE, Table, minutes_text, spread_text
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
        errors = (f"{row.mean['mae']:.3f}" if row else NONE for row in rows)
        lines.append((LABELS[pattern], f"{100 * rate:g}%", *errors))
    return Table(
        title="Imputation error by masking pattern and rate",
        header=("masking pattern", "rate", *(each.label for each in imputers)),
        lines=tuple(lines),
        remark=(
            "Mean absolute error on held-out cells of the test stays, in training standard deviations; mean over the "
            "folds. Every imputer was scored on the same cells."
        ),
    )


def ranking_table(imputers: Sequence[AssessedImputer]) -> Table | None:
    """Return all measures under the ranking's masking, the lowest error first; None where no imputer has them."""
    ranked = sorted(ranked_imputers(imputers), key=lambda pair: pair[1].mean["mae"])
    if not ranked:
        return None
    return Table(
        title="Imputers, the closest first",
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
            "a stay alone = in a batch",
        ),
        lines=tuple(_ranking_line(imputer, scores) for imputer, scores in ranked),
        remark=(
            f"{masking_text(ranked[0][0].ranking)}; mean ± sample deviation over test folds. MAE and RMSE: mean "
            "absolute and root mean squared error, in training standard deviations. MRE: sum of errors over sum of "
            "magnitudes. "
            "Wasserstein: distance between the distributions of estimates and true values, averaged over the variables "
            "with their numbers of cells as weights. Correlation error: mean absolute difference between the "
            "correlations of two variables with held-out cells imputed and with true values. Training minutes: all "
            "folds together, with their scoring. Seconds: imputing 1,000 stays. Both are for one core each, or for a "
            "GPU if there is one. CSAI learns on cells masked by masking.pattern in params.yaml; PyPOTS's networks "
            "mask cells in their own ways."
        ),
    )


def _ranking_line(imputer: AssessedImputer, scores: PatternScores) -> tuple[str, ...]:
    measures = (
        spread_text(scores.mean[measure], scores.deviation[measure]) if measure in scores.mean else NONE
        for measure in MEASURES
    )
    mixes = f"no, stays influence each other (by {imputer.batch_difference:.2f})"
    return (
        imputer.label,
        *measures,
        str(imputer.epochs) if imputer.epochs else NONE,
        minutes_text(imputer.pretrain_seconds) if imputer.epochs else NONE,
        f"{imputer.seconds_per_1000_stays:.1f}",
        mixes if imputer.mixes_stays else "yes",
    )


def closest_sentence(imputers: Sequence[AssessedImputer], test_to_train: float) -> str:
    """Say which imputer has the lowest error under the ranking's masking, and how far CSAI is from it.

    The other imputer is the best of the others on the test folds; the p-value does not account for this choice. ""
    without CSAI or without another imputer.
    """
    errors = {each.imputer: each.mae_by_fold for each in imputers if each.mae_by_fold}
    labels = {each.imputer: each.label for each in imputers}
    if DEFAULT_IMPUTER not in errors or len(errors) < 2:
        return ""
    ours = errors.pop(DEFAULT_IMPUTER)
    other = min(errors, key=lambda name: fmean(errors[name]))
    theirs = errors[other]
    p_value = corrected_t_test([one - another for one, another in zip(theirs, ours, strict=True)], test_to_train)
    our_mean, their_mean = fmean(ours), fmean(theirs)
    distance = f"{abs(our_mean - their_mean) / max(our_mean, their_mean):.0%}"
    if our_mean <= their_mean:
        closest = (
            f"CSAI comes closest (MAE {our_mean:.3f} training standard deviations), {distance} below the next, "
            f"{labels[other]} ({their_mean:.3f})"
        )
    else:
        closest = (
            f"{labels[other]} comes closest (MAE {their_mean:.3f} training standard deviations), {distance} below CSAI "
            f"({our_mean:.3f})"
        )
    doubt = "" if p_value < SIGNIFICANCE_LEVEL else f"; the folds leave the difference undecided (p = {p_value:.2f})"
    return f"With {masking_text(imputers[0].ranking)}, {closest}{doubt}."


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
        remark="Mean absolute error. Stays are grouped by the share of their cells that were never observed.",
    )


def by_variable_table(imputers: Sequence[AssessedImputer]) -> Table | None:
    """Return the error by variable under the ranking's masking; None where no imputer has it."""
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


def masking_text(ranking: Ranking) -> str:
    """Say which cells were masked: 10% of the observed cells masked (non-uniform)."""
    return f"{ranking.rate:.0%} of the observed cells masked ({LABELS[ranking.pattern]})"


def _mae(scores: Mapping[str, Mapping[Measure, float]], name: str) -> str:
    return f"{scores[name]['mae']:.3f}" if name in scores else NONE
