"""Names and descriptions of runs, as the MLflow UI shows them: what was run, its result, how to run it again.

Descriptions are Markdown.
"""

import shlex
from collections.abc import Mapping, Sequence
from math import isnan
from statistics import fmean

from imputune.artifacts.stage_output import TrainedFold
from imputune.evaluation.gates import Gate
from imputune.evaluation.rows import Spread, VariantRow
from imputune.evaluation.subgroups import Interval
from imputune.protocol.imputers import DEFAULT_IMPUTER, imputer_kind
from imputune.protocol.variants import Variant
from imputune.reporting.tables import markdown_table, spread_text
from imputune.runtime.console import counted
from imputune.settings.names import ImputerName

BETWEEN = " · "
MOST_LINES = 12  # of a table of variants in a description
SPLITS = ("validation", "test")
Scores = Mapping[str, float]
"""Final scores of a fold by name."""


def run_name(*words: str) -> str:
    """Return a run's name of its parts, without the empty ones."""
    return BETWEEN.join(word for word in words if word)


def variant_name(variant: Variant) -> str:
    """Return the name of a variant's run, without words that say nothing of it.

    These are mode and schedule of a non-neural head, the input of a blend, and the default imputer.
    """
    imputer = "" if variant.imputer == DEFAULT_IMPUTER else variant.imputer
    if variant.is_blend:
        return variant.head
    if not variant.is_neural:
        return run_name(variant.head, variant.input, imputer)
    return run_name(variant.head, variant.mode, variant.input, variant.schedule, imputer)


def variant_sentence(variant: Variant, dataset: str, outcome: str, *, early_stopping: bool = True) -> str:
    """Say which variant is trained, on what, and for which outcome, in words."""
    if variant.is_blend:
        return f"Combines finished variants in a **blend**, on every fold of **{dataset}**. Outcome: {outcome}."
    reads = f"It reads `{variant.input}` of the imputer **{variant.imputer}**"
    if not variant.is_neural:
        return f"Fits the head **{variant.head}** on every fold of **{dataset}**. {reads}. Outcome: {outcome}."
    trained = "frozen" if variant.mode == "frozen" else "unfrozen: trained too"
    what = "Fine-tunes" if early_stopping else "Trains, without early stopping,"
    return (
        f"{what} the head **{variant.head}** on folds of **{dataset}**. {reads} ({trained}), with learning-rate "
        f"schedule `{variant.schedule}`. Outcome: {outcome}."
    )


def imputer_sentence(imputer: ImputerName, dataset: str, *, assessed: bool) -> str:
    """Say which imputer is pretrained, or scored alone."""
    what = f"the imputer **{imputer}** ({imputer_kind(imputer).label})"
    if assessed:
        return f"Scores {what} alone, on held-out values of the test stays of every fold of **{dataset}**."
    return f"Pretrains {what} on every fold of **{dataset}**, and scores it on held-out values."


def repeat_note(command: str, dataset: str, options: Mapping[str, str]) -> str:
    """Return how to run a command again, by imputune and by mlflow; options that are "" are left out."""
    given = {name: text for name, text in options.items() if text}
    words = ["imputune", command, dataset, *(word for name, text in given.items() for word in (f"--{name}", text))]
    parameters = [word for name, text in {"dataset": dataset, **given}.items() for word in ("-P", f"{name}={text}")]
    by_mlflow = ["mlflow", "run", ".", "-e", command, *parameters, "--env-manager", "local"]
    content = f"{shlex.join(words)}\n{shlex.join(by_mlflow)}"
    return f"Run it again, with this run's commit and parameters:\n\n```\n{content}\n```"


def auc_result(folds: Sequence[Scores]) -> str:
    """Return the AUC of a variant: mean and deviation over folds."""
    scores = {"validation AUC": "validation_auc", "test AUC": "test_auc"}
    lines = [(title, over_folds([fold[name] for fold in folds])) for title, name in scores.items()]
    return markdown_table(("score", over(len(folds))), lines)


def pretraining_result(folds: Sequence[Scores]) -> str:
    """Return the errors of a pretrained imputer on held-out values, by masking pattern."""
    patterns = [name.removeprefix("test_mae_") for name in folds[0] if name.startswith("test_mae_")]
    maes = {pattern: [[fold[f"{split}_mae_{pattern}"] for fold in folds] for split in SPLITS] for pattern in patterns}
    lines = [(pattern.replace("_", "-"), *map(over_folds, by_split)) for pattern, by_split in maes.items()]
    table = markdown_table(("masking pattern", "validation MAE", "test MAE"), lines)
    return f"MAE in training standard deviations, {over(len(folds))}:\n\n{table}"


def assessment_result(folds: Sequence[Scores]) -> str:
    """Return the errors of an imputer's assessment, by masking pattern and rate."""
    names = [name for name in folds[0] if name.startswith("mae_")]
    titles = {name: name.removeprefix("mae_").rpartition("_") for name in names}
    lines = [
        (f"{pattern.replace('_', '-')}, {rate} %", over_folds([fold[name] for fold in folds]))
        for name, (pattern, _, rate) in titles.items()
    ]
    lines.append(("**mean**", over_folds([fmean(fold[name] for name in names) for fold in folds])))
    table = markdown_table(("masking", "test MAE"), lines)
    return f"MAE in training standard deviations, {over(len(folds))}:\n\n{table}"


def variants_result(variants: Mapping[Variant, Sequence[Scores]]) -> str:
    """Return the AUC of several variants, the best by validation AUC first."""
    finished = {variant: folds for variant, folds in variants.items() if folds}
    ordered = sorted(finished.items(), key=lambda each: -fmean(fold["validation_auc"] for fold in each[1]))
    lines = [
        (variant_name(variant), *(over_folds([fold[f"{split}_auc"] for fold in folds]) for split in SPLITS))
        for variant, folds in ordered[:MOST_LINES]
    ]
    table = markdown_table(("variant", "validation AUC", "test AUC"), lines)
    more = len(ordered) - len(lines)
    return f"{table}\n\nand {more} more" if more else table


def rivals_result(rivals: Mapping[str, Sequence[TrainedFold]]) -> str:
    """Return the AUC of several rivals over their scored folds, in their order, and how many folds failed."""
    lines = []
    for label, folds in rivals.items():
        scored, failed = [fold.scores for fold in folds if not fold.failure], [fold for fold in folds if fold.failure]
        aucs = [over_folds([scores[f"{split}_auc"] for scores in scored]) if scored else "" for split in SPLITS]
        lines.append((label, *aucs, str(len(failed) or "")))
    return markdown_table(("rival", "validation AUC", "test AUC", "failed folds"), lines)


def rows_result(rows: Sequence[VariantRow]) -> str:
    """Return the AUC of the variants of a comparison, "" if it has none; see `variants_result`."""
    if not rows:
        return ""
    variants = {
        Variant.of((row.head, row.mode, row.input, row.schedule), row.imputer): [
            {"validation_auc": fold.validation_auc, "test_auc": fold.test_auc} for fold in row.folds
        ]
        for row in rows
    }
    table = f"{counted(len(rows), 'variant')}, AUC as mean ± deviation over folds:\n\n{variants_result(variants)}"
    return "\n\n".join(part for part in (best_sentence(rows), table) if part)


def best_sentence(rows: Sequence[VariantRow]) -> str:
    """Say which variant has the best validation AUC, and how far it is ahead of the next; "" with fewer than two."""
    if len(rows) < 2:
        return ""
    best, second, *_ = sorted(rows, key=lambda row: row.val_auc_mean, reverse=True)
    ahead, on_test = best.val_auc_mean - second.val_auc_mean, best.test_auc_mean - second.test_auc_mean
    varies = "" if isnan(best.val_auc_std) else f" Over folds, the best varies by ± {best.val_auc_std:.3f}."
    return (
        f"Best by validation AUC: **{_row_name(best)}**, {ahead:.4f} ahead of {_row_name(second)}; on test stays the "
        f"difference is {on_test:+.4f}.{varies}"
    )


def _row_name(row: VariantRow) -> str:
    return variant_name(Variant.of((row.head, row.mode, row.input, row.schedule), row.imputer))


def gates_result(outcome: str, gates: Sequence[Gate]) -> str:
    """Return the outcome of a promotion, with its gates."""
    lines = [(gate.name, gate.wanted, gate.found, "passed" if gate.passed else "**failed**") for gate in gates]
    table = markdown_table(("gate", "wanted", "found", ""), lines) if lines else ""
    return "\n\n".join(part for part in (outcome, table) if part)


def intervals_result(scores: Mapping[str, Interval]) -> str:
    """Return the scores of a model on a cohort, with their intervals."""
    lines = [
        (name.replace("_", " "), f"{each.value:.3f}", f"{each.low:.3f} to {each.high:.3f}")
        for name, each in scores.items()
    ]
    return markdown_table(("score, all stays", "value", "95 % interval"), lines)


def before_and_after(before: Scores, after: Scores) -> str:
    """Return scores before and after a recalibration."""
    lines = [(name.replace("_", " "), f"{before[name]:.3f}", f"{after[name]:.3f}") for name in before]
    return markdown_table(("score", "before", "after"), lines)


def over_folds(values: Sequence[float]) -> str:
    """Return mean ± deviation over folds; of one fold its value."""
    return spread_text(*Spread.of(values))


def over(folds: int) -> str:
    """Say over how many folds a mean is."""
    return f"mean ± deviation over {folds} folds" if folds > 1 else "one fold"
