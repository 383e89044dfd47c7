"""The command compare: assemble fine-tuned variants, compute the comparison, render its tables and figures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from imputune.artifacts.stage_files import RESULT, read_training
from imputune.data.cohort import outcome_hash, read_cohort
from imputune.errors import UserError
from imputune.evaluation.comparison import VariantComparison
from imputune.evaluation.decision_curve import DecisionPoint
from imputune.files import replace_bytes, replace_text
from imputune.pipeline.assembled import Assembled, assemble, read_default_imputer
from imputune.pipeline.calibration import decision_of
from imputune.pipeline.comparison_notes import protocol_notes, settings_notes, unfinished_notes
from imputune.pipeline.dvc_outputs import write_dvc_outputs
from imputune.pipeline.project import Project
from imputune.pipeline.rival_results import rival_comparison
from imputune.pipeline.run_subject import comparison_subject
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
from imputune.reporting.run_notes import rows_result

CURVES = ("curves", "decision", "overfitting")
"""Figures of curves, which only artifacts have."""
FORMS = {"png": to_png, "svg": to_svg}


def run_compare(project: Project) -> VariantComparison:
    """Compare every fine-tuned variant of CSAI, write and track the tables; return the comparison.

    Without permission to write in the project, nothing is written or tracked.

    A variant in artifacts is read from the run that made it, or from the artifacts if that run is gone; any other
    variant from its newest finished run, or else from its committed file in results/. Results from other data, folds
    or another pretraining are skipped, and the notes say why. Without artifacts the committed files are enough; figures
    of training curves then stay as they are. Raises UserError when nothing was pretrained or fine-tuned yet.
    """
    found = read_default_imputer(project)
    subject = comparison_subject(project, found.imputer)
    with track_if_allowed(project, subject, settings={"folds": found.imputer.settings["folds"]}) as run:
        assemble(found)
        curves = dict(_curves(found))
        kept = [name for name in CURVES if name not in curves and _is_kept(found, name)]
        comparison = _compare(found, kept)
        if run is None:
            return comparison
        figures = dict(_figures(comparison)) | curves
        pictures = {f"{name}.{form}": draw(figure) for name, figure in figures.items() for form, draw in FORMS.items()}
        _write(comparison, pictures, kept, project.results_folder)
        if found.output is not None and project.is_of_pipeline:
            write_dvc_outputs(comparison, found)
        run.log_text(variant_markdown(comparison), "comparison.md")
        run.describe(rows_result(comparison.rows))
        best = max(comparison.rows, key=lambda row: row.val_auc_mean)
        run.log_metrics({"validation_auc": best.val_auc_mean, "test_auc": best.test_auc_mean})
        for name, picture in pictures.items():
            if name.endswith(".png"):
                run.log_picture(picture, f"figures/{name}")
    return comparison


def _compare(found: Assembled, kept: list[str]) -> VariantComparison:
    """Compute the comparison of what was assembled; UserError when there is nothing."""
    project, imputer = found.project, found.imputer
    stays, events = found.size
    if not found.rows:
        why = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise UserError(
            f"nothing is fine-tuned on {project.dataset} yet{why}: run `imputune finetune {project.dataset}"
            f"{''.join(f' --outcome {outcome}' for outcome in project.outcome_words)}` first"
        )
    labels_hash = outcome_hash(found.cohort) if found.cohort else None
    rivals, rival_notes = rival_comparison(project, imputer, found.rows.values(), labels_hash)
    notes = [
        *found.notes,
        *rival_notes,
        *unfinished_notes(project, DEFAULT_IMPUTER, found.rows, len(imputer.folds)),
        *settings_notes(project, found.files.values()),
        *protocol_notes(found.files.values()),
    ]
    if kept:
        notes.append(
            f"figures of curves ({', '.join(kept)}) are kept from an earlier comparison, because not all "
            "curves are in artifacts"
        )
    return VariantComparison(
        dataset=project.dataset,
        outcome=project.outcome,
        stays=stays,
        events=events,
        cohort_hash=imputer.cohort_hash,
        division=imputer.division,
        rows=tuple(found.rows[variant] for variant in in_order(found.rows)),
        imputers=imputer.rows,
        notes=tuple(notes),
        rivals=rivals,
    )


def _figures(comparison: VariantComparison) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of the protocol's scores."""
    rows = comparison.protocol_rows
    for mode in ("frozen", "unfrozen"):
        if figure := parameters_figure(rows, mode, comparison.references):
            yield f"parameters-{mode}", figure
    if figure := calibration_figure(rows, comparison.outcome):
        yield "calibration", figure


def _curves(found: Assembled) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of training curves, as far as artifacts have them.

    Where artifacts lack some curves of schedule plateau, an earlier figure, which may have more, is not replaced.
    """
    plateau = [
        variant
        for variant in in_order(found.rows)
        if variant.schedule == "plateau" and found.rows[variant].is_of_protocol
    ]
    histories = {variant.name: found.outputs[variant].histories for variant in plateau if variant in found.outputs}
    if histories and (not any(map(found.is_from_file, plateau)) or not _has_figure(found, "curves")):
        yield "curves", mean_curves_figure(histories, "auc")
    from_files = any(map(found.is_from_file, (variant for variant, row in found.rows.items() if row.is_of_protocol)))
    if (not from_files or not _has_figure(found, "decision")) and (panels := _decisions(found)):
        yield "decision", decision_figure(panels)
    if overfit := _overfitting(found):
        yield "overfitting", mean_curves_figure(overfit, "auc")


def _decisions(found: Assembled) -> dict[str, dict[str, tuple[DecisionPoint, ...]]]:
    """Return by mode the decision curves of the protocol's variants in artifacts, by head and input."""
    outputs = {variant.label: output for variant, output in found.outputs.items()}
    rows = best_schedules([row for row in found.rows.values() if row.is_of_protocol and row.label in outputs])
    panels: dict[str, dict[str, tuple[DecisionPoint, ...]]] = {}
    if rows:
        cohort = found.cohort or read_cohort(found.project.cohort_folder).with_outcome(found.project.outcome)
        for row in rows:
            curve = decision_of(found.project, cohort, outputs[row.label])
            panels.setdefault(row.mode, {})[", ".join(row.head_and_input)] = curve
    return panels


def _is_kept(found: Assembled, name: str) -> bool:
    """Say whether a figure that cannot be drawn here stays: if some scores come from elsewhere, its curves may too."""
    return any(map(found.is_from_file, found.rows)) and _has_figure(found, name)


def _has_figure(found: Assembled, name: str) -> bool:
    return any((found.project.results_folder / "figures" / f"{name}.{form}").is_file() for form in FORMS)


def _overfitting(found: Assembled) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Return the curves of variants trained without early stopping on the imputer in artifacts, by name."""
    curves: dict[str, dict[int, list[dict[str, float]]]] = {}
    if found.output is None:
        return curves
    for path in sorted(found.project.overfit_folder(DEFAULT_IMPUTER).glob(f"[!.]*/{RESULT}")):
        output = read_training(path.parent, f"delete {path.parent}, or run `imputune overfit` again")
        if output.made_from.imputer_run_id == found.output.run_id:
            curves[path.parent.name] = output.histories
    return curves


def _write(comparison: VariantComparison, pictures: Mapping[str, bytes], kept: Sequence[str], folder: Path) -> None:
    texts = {
        "comparison.md": variant_markdown(comparison),
        "comparison.tex": variant_latex(comparison),
        "results.json": json.dumps(comparison.as_json(), indent=1) + "\n",
    }
    for name, text in texts.items():
        replace_text(folder / name, text)
    for name, picture in pictures.items():
        replace_bytes(folder / "figures" / name, picture)
    for path in (folder / "figures").glob("*.*"):
        if path.name not in pictures and path.stem not in kept:
            path.unlink()  # of an earlier comparison
