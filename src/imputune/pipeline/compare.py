"""The command compare: collect fine-tuned variants, compute the comparison, render its tables and figures."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from imputune.artifacts.stage_files import RESULT, read_training
from imputune.artifacts.stage_output import TrainingOutput
from imputune.data.cohort import cohort_hash, read_cohort
from imputune.data.folds import folds_hash
from imputune.errors import UserError
from imputune.evaluation.comparison import VariantComparison
from imputune.evaluation.decision_curve import DecisionPoint
from imputune.evaluation.rows import imputer_rows
from imputune.evaluation.significance import test_to_train
from imputune.files import replace_bytes, replace_text
from imputune.pipeline.collected import Collected, add_other_runs, collect, finetuned_runs
from imputune.pipeline.comparison_notes import protocol_notes, settings_notes, unfinished_notes
from imputune.pipeline.inputs import pretrain_first, read_imputer
from imputune.pipeline.project import Project
from imputune.pipeline.tracked import track_if_allowed
from imputune.protocol.choice import in_order
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.reporting.comparison import variant_latex, variant_markdown
from imputune.reporting.figures import (
    best_schedules,
    calibration_figure,
    decision_figure,
    mean_curves_figure,
    parameters_figure,
    to_png,
    to_svg,
)


def run_compare(project: Project) -> VariantComparison:
    """Compare every fine-tuned variant of the default imputer, write and track the tables; return the comparison.

    Without permission to write in the project, nothing is written or tracked.

    A variant in artifacts is read from the run that made it, or from the artifacts if that run is gone; any other
    variant from its newest finished run. Results from other data, folds or another pretraining are skipped, and the
    notes say why. Raises UserError when nothing was pretrained or fine-tuned yet.
    """
    imputer, digest = _read_default_imputer(project)
    with track_if_allowed(project, "compare", cohort_hash=digest, settings={}) as run:
        runs = finetuned_runs(project)
        found = collect(project, read_cohort(project.cohort_folder), imputer, runs)
        add_other_runs(found, runs.values())
        comparison = _compare(found)
        if run is None:
            return comparison
        pictures = {
            f"{name}.{form}": draw(figure)
            for name, figure in _figures(comparison, found)
            for form, draw in (("png", to_png), ("svg", to_svg))
        }
        _write(comparison, pictures, project.results_folder)
        run.log_text(variant_markdown(comparison), "comparison.md")
        for name, picture in pictures.items():
            if name.endswith(".png"):
                run.log_picture(picture, f"figures/{name}")
    return comparison


def _read_default_imputer(project: Project) -> tuple[TrainingOutput, str]:
    """Return the imputer's output and the cohort's hash; UserError where they do not belong together."""
    dataset = project.dataset
    remedy = pretrain_first(dataset, DEFAULT_IMPUTER)
    imputer = read_imputer(project, DEFAULT_IMPUTER, remedy)
    digest = cohort_hash(project.cohort_folder)
    if imputer.made_from.cohort_hash != digest:
        again = f"run `imputune folds {dataset}`, then `imputune pretrain {dataset}` (or `dvc repro`)"
        raise UserError(f"the imputer in artifacts was trained on other data than {project.cohort_folder}: {again}")
    if project.folds_file.is_file() and imputer.made_from.folds_hash != folds_hash(project.folds_file):
        raise UserError(f"the imputer in artifacts was trained on other folds than {project.folds_file}: {remedy}")
    return imputer, digest


def _compare(found: Collected) -> VariantComparison:
    """Compute the comparison of what was collected; UserError when there is nothing."""
    project, made_from = found.project, found.imputer.made_from
    if not found.rows:
        why = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise UserError(
            f"nothing is fine-tuned on {project.dataset} yet{why}: run `imputune finetune {project.dataset}` first"
        )
    notes = (*found.notes, *unfinished_notes(found), *settings_notes(found), *protocol_notes(found.outputs.values()))
    return VariantComparison(
        dataset=project.dataset,
        stays=made_from.stays,
        deaths=made_from.deaths,
        cohort_hash=made_from.cohort_hash,
        test_to_train=test_to_train(len(found.imputer.folds)),
        rows=tuple(found.rows[variant] for variant in in_order(found.rows)),
        imputers=tuple(imputer_rows([fold.imputation for fold in found.imputer.folds])),
        notes=notes,
    )


def _figures(comparison: VariantComparison, found: Collected) -> Iterator[tuple[str, Figure]]:
    for mode in ("frozen", "unfrozen"):
        if figure := parameters_figure(comparison.rows, mode, comparison.references):
            yield f"parameters-{mode}", figure
    if figure := calibration_figure(comparison.rows):
        yield "calibration", figure
    if panels := _decisions(comparison, found):
        yield "decision", decision_figure(panels)
    plateau = [variant for variant in in_order(found.outputs) if variant.schedule == "plateau"]
    if plateau:
        yield "curves", mean_curves_figure({each.name: found.outputs[each].histories for each in plateau}, "auc")
    if overfit := _overfitting(found):
        yield "overfitting", mean_curves_figure(overfit, "auc")


def _decisions(comparison: VariantComparison, found: Collected) -> dict[str, dict[str, tuple[DecisionPoint, ...]]]:
    """Return by mode the decision curves that stand beside those of the calibration figure, by head and input."""
    curves = {variant.name: points for variant, points in found.decisions.items()}
    panels: dict[str, dict[str, tuple[DecisionPoint, ...]]] = {}
    for row in best_schedules([row for row in comparison.rows if row.name in curves]):
        panels.setdefault(row.mode, {})[", ".join(row.head_and_input)] = curves[row.name]
    return panels


def _overfitting(found: Collected) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Return the curves of variants trained without early stopping on the imputer in artifacts, by name."""
    curves = {}
    for path in sorted(found.project.overfit_folder(found.name).glob(f"[!.]*/{RESULT}")):
        output = read_training(path.parent, f"delete {path.parent}, or run `imputune overfit` again")
        if output.made_from.imputer_run_id == found.imputer.run_id:
            curves[path.parent.name] = output.histories
    return curves


def _write(comparison: VariantComparison, pictures: Mapping[str, bytes], folder: Path) -> None:
    texts = {
        "comparison.md": variant_markdown(comparison),
        "comparison.tex": variant_latex(comparison),
        "results.json": json.dumps(comparison.as_json(), indent=1) + "\n",
        "metrics.json": json.dumps(comparison.metrics(), indent=1) + "\n",
    }
    for name, text in texts.items():
        replace_text(folder / name, text)
    for name, picture in pictures.items():
        replace_bytes(folder / "figures" / name, picture)
    for path in (folder / "figures").glob("*.*"):
        if path.name not in pictures:
            path.unlink()  # of an earlier comparison
