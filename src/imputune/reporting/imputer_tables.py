"""Imputers alone: tables and the sentence about the closest."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from imputune.data.masking_patterns import LABELS
from imputune.evaluation.assessed_imputers import TARGET, AssessedImputer
from imputune.evaluation.imputation import MEASURES
from imputune.evaluation.significance import LEVEL, corrected_t_test
from imputune.protocol.imputers import PRETRAINED
from imputune.reporting.tables import Table, spread


def errors_table(imputers: Sequence[AssessedImputer]) -> Table:
    """Return mean absolute errors, a line for each way of hiding and share, a column for each imputer."""
    ways = dict.fromkeys((row.hiding, row.share) for each in imputers for row in each.rows)
    lines = tuple(
        (
            LABELS[hiding],
            f"{100 * share:g}%",
            *(f"{row.mean['mae']:.3f}" if (row := each.row(hiding, share)) else "" for each in imputers),
        )
        for hiding, share in ways
    )
    remark = (
        "Mean absolute error on held-out cells of the test stays, in training standard deviations, mean over folds; "
        "every imputer met the same cells."
    )
    header = ("hidden", "share", *(each.label for each in imputers))
    return Table("Imputation error by way of hiding and share of cells hidden", header, lines, remark)


def target_table(imputers: Sequence[AssessedImputer]) -> Table | None:
    """Return all measures under TARGET, in order of error; None where no imputer has that."""
    found = [(each, row) for each in imputers if (row := each.row(*TARGET))]
    if not found:
        return None
    found.sort(key=lambda pair: pair[1].mean["mae"])
    lines = tuple(
        (
            each.label,
            *(spread(row.mean[name], row.deviation[name]) if name in row.mean else "" for name in MEASURES),
            f"{each.epochs}" if each.epochs else "",
            f"{each.pretrain_seconds / 60:,.0f}" if each.epochs else "",
            f"{each.seconds_per_1000_stays:.1f}",
            f"no, mixes patients (by {each.batch_difference:.2f})" if each.mixes_stays else "yes",
        )
        for each, row in found
    )
    header = (
        *("imputer", "MAE", "RMSE", "MRE", "Wasserstein", "correlation error", "epochs", "training minutes"),
        *("s per 1,000 stays", "a stay alone = in a batch"),
    )
    remark = (
        f"{TARGET[1]:.0%} of the observed cells hidden ({LABELS[TARGET[0]]}); mean ± sample deviation over test folds. "
        "Wasserstein: distance between the distributions of estimates and truth, mean over the variables by their "
        "cells. Correlation error: how far the correlations between variables, held-out cells imputed, lie from the "
        "true ones. Training minutes are the folds' added up, their scoring included, seconds those of imputing, both "
        "on a core each, or a GPU where there is one. CSAI learns on cells hidden by masking.hiding of params.yaml, "
        "non-uniform unless it was changed; PyPOTS's networks on cells hidden in ways of their own."
    )
    return Table("Imputers, the closest first", header, lines, remark)


def winner_sentence(imputers: Sequence[AssessedImputer], test_to_train: float) -> str:
    """Say which imputer has the lowest error under TARGET, and by how much CSAI wins or loses.

    The rival is the best of the others on the test folds, which the p-value does not account for.
    """
    scored = {each.imputer: each for each in imputers if each.mae_by_fold}
    if PRETRAINED not in scored or len(scored) < 2:
        return ""
    order = sorted(scored.values(), key=lambda each: fmean(each.mae_by_fold or ()))
    csai = scored[PRETRAINED]
    rival = order[1] if order[0] is csai else order[0]
    ours, theirs = (each.mae_by_fold or () for each in (csai, rival))
    p_value = corrected_t_test([one - other for one, other in zip(theirs, ours, strict=True)], test_to_train)
    means = fmean(ours), fmean(theirs)
    how = f"{abs(means[0] - means[1]) / max(means):.0%}"
    doubt = "" if p_value < LEVEL else f", which the folds leave undecided (p = {p_value:.2f})"
    if order[0] is csai:
        told = f"CSAI comes closest ({means[0]:.3f} deviations), {how} below the next, {rival.label} ({means[1]:.3f})"
    else:
        told = f"{rival.label} comes closest ({means[1]:.3f} deviations), {how} below CSAI ({means[0]:.3f})"
    return f"With {TARGET[1]:.0%} of the observed cells hidden ({LABELS[TARGET[0]]}), {told}{doubt}."


def missing_table(imputers: Sequence[AssessedImputer], edges: Sequence[float]) -> Table | None:
    """Return the error by the share of a stay's cells that were missing before any was hidden, under TARGET."""
    found = [(each, row) for each in imputers if (row := each.row(*TARGET))]
    if not found:
        return None
    groups = [str(group) for group in range(len(edges) - 1)]
    header = ("imputer", *(f"{low:.0%} to {high:.0%} missing" for low, high in pairwise(edges)))
    lines = tuple((each.label, *(_mae(row.by_missing_share, group) for group in groups)) for each, row in found)
    remark = "Mean absolute error; stays in groups of equal size by the share of their cells that were never observed."
    return Table("Imputation error by how much of a stay is missing", header, lines, remark)


def variables_table(imputers: Sequence[AssessedImputer]) -> Table | None:
    """Return the error by variable under TARGET; None where no imputer has that."""
    found = [(each, row) for each in imputers if (row := each.row(*TARGET))]
    if not found:
        return None
    names = dict.fromkeys(name for _, row in found for name in row.by_variable)
    lines = tuple((name, *(_mae(row.by_variable, name) for _, row in found)) for name in names)
    header = ("variable", *(each.label for each, _ in found))
    return Table("Imputation error by variable", header, lines, "Mean absolute error, in training deviations.")


def _mae(scores: Mapping[str, Mapping[str, float]], name: str) -> str:
    return f"{scores[name]['mae']:.3f}" if name in scores else ""
