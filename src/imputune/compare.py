"""The comparison stage: tracked runs, or stage outputs where a run is gone, to the tables in results/<dataset>."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imputune.data.cohort import cohort_hash
from imputune.errors import UserError
from imputune.evaluation.comparison import Comparison, Row, imputer_rows, make_row, to_markdown
from imputune.files import replace_text
from imputune.stages import EXPERIMENT, Project
from imputune.tracking.history import RunRecord, finished_runs, run_exists
from imputune.training.outputs import RESULT, read_result

CELL = ("head", "mode", "input", "schedule")
COUNTS = ("num_parameters", "trainable_parameters")


def run_compare(project: Project) -> Comparison:
    """Compare every fine-tuned cell of the project's dataset, write results/<dataset>, and return the comparison.

    The newest finished run of a cell counts; runs on other data, or on another imputer than the one in artifacts, are
    left out and named. Raises UserError when nothing was fine-tuned or pretrained yet.
    """
    remedy = f"run `imputune pretrain {project.dataset}` (or `dvc repro`) first"
    imputer = read_result(project.imputer_folder, remedy)
    data_hash = cohort_hash(project.cohort_folder)
    if imputer["cohort_hash"] != data_hash:
        raise UserError(f"the imputer in artifacts was trained on other data than {project.cohort_folder}: {remedy}")
    rows, notes = _tracked_rows(project, data_hash, imputer["run_id"])
    for folder in sorted(path.parent for path in project.cells_folder.glob(f"*/{RESULT}")):
        _add_from_outputs(project, folder, data_hash, imputer["run_id"], rows, notes)
    if not rows:
        why = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(
            f"nothing is fine-tuned on {project.dataset} yet{why}: run `imputune finetune {project.dataset}` first"
        )
    comparison = Comparison(
        project.dataset,
        imputer["stays"],
        imputer["deaths"],
        data_hash,
        tuple(rows[key] for key in sorted(rows)),
        tuple(imputer_rows([fold["imputation"] for fold in imputer["folds"]])),
        tuple(notes),
    )
    _write(comparison, project.results_folder)
    return comparison


def _tracked_rows(project: Project, data_hash: str, imputer_run: str) -> tuple[dict[tuple[str, ...], Row], list[str]]:
    rows: dict[tuple[str, ...], Row] = {}
    other_data = other_imputer = unfinished = 0
    for run in finished_runs(project.root, EXPERIMENT, "finetune", project.dataset):
        key = tuple(run.tags[f"imputune.{name}"] for name in CELL)
        if run.tags["imputune.cohort_hash"] != data_hash:
            other_data += 1
        elif run.tags["imputune.imputer_run"] != imputer_run:
            other_imputer += 1
        elif len(run.folds) != project.params.folds.count:
            unfinished += 1
        elif key not in rows:
            rows[key] = _row_of_run(project.dataset, run)
    notes = [
        f"{count} finished runs {why} left out"
        for count, why in (
            (other_data, "on other data"),
            (other_imputer, "on another pretrained imputer"),
            (unfinished, "with another number of folds"),
        )
        if count
    ]
    return rows, notes


def _row_of_run(dataset: str, run: RunRecord) -> Row:
    return make_row(
        dataset,
        {name: run.tags[f"imputune.{name}"] for name in CELL},
        {name: int(run.metrics[name]) for name in COUNTS},
        run.metrics["seconds"],
        [{"fold": fold.fold} | fold.metrics for fold in run.folds],
        run.run_id,
        "tracked run",
    )


def _add_from_outputs(
    project: Project,
    folder: Path,
    data_hash: str,
    imputer_run: str,
    rows: dict[tuple[str, ...], Row],
    notes: list[str],
) -> None:
    result = read_result(folder, "")
    if result["cohort_hash"] != data_hash or result["imputer_run_id"] != imputer_run:
        notes.append(f"{folder.name} in artifacts is of other data or another imputer and was left out")
        return
    if run_exists(project.root, result["run_id"]):
        return
    notes.append(f"{folder.name}: its run {result['run_id']} is gone from the tracking store, read from artifacts")
    row = _row_of_outputs(project.dataset, result)
    rows.setdefault(tuple(result["cell"][name] for name in CELL), row)


def _row_of_outputs(dataset: str, result: Mapping[str, Any]) -> Row:
    folds = [{"fold": fold["fold"]} | fold["scores"] for fold in result["folds"]]
    return make_row(
        dataset,
        {name: result["cell"][name] for name in CELL},
        {name: result[name] for name in COUNTS},
        sum(fold["seconds"] for fold in result["folds"]),
        folds,
        result["run_id"],
        "stage outputs",
    )


def _write(comparison: Comparison, folder: Path) -> None:
    for name, text in (
        ("comparison.md", to_markdown(comparison)),
        ("results.json", json.dumps(comparison.as_json(), indent=1) + "\n"),
        ("metrics.json", json.dumps(comparison.metrics(), indent=1) + "\n"),
    ):
        replace_text(folder / name, text)
