"""The comparison stage: tracked runs, or stage outputs where a run is gone, to the tables in results/<dataset>."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from imputune.data.cohort import cohort_hash
from imputune.errors import UserError
from imputune.evaluation.comparison import Comparison, Row, imputer_rows, make_row, to_markdown
from imputune.files import replace_text
from imputune.project import EXPERIMENT, Project, track
from imputune.tracking.history import RunRecord, finished_runs
from imputune.training.outputs import RESULT, read_result

CELL = ("head", "mode", "input", "schedule")
Key = tuple[str, ...]
COUNTS = ("num_parameters", "trainable_parameters")


def run_compare(project: Project) -> Comparison:
    """Compare every fine-tuned cell of the project's dataset, write and track the tables, return the comparison.

    A cell that stands in artifacts is read from the run that made it, or from the artifacts where that run is gone or
    did not finish; another cell from its newest finished run. What is of other data, or of another imputer than the one
    in artifacts, is left out and named. Raises UserError when nothing was fine-tuned or pretrained yet.
    """
    remedy = f"run `imputune pretrain {project.dataset}` (or `dvc repro`) first"
    imputer = read_result(project.imputer_folder, remedy)
    digest = cohort_hash(project.cohort_folder)
    if imputer["cohort_hash"] != digest:
        raise UserError(f"the imputer in artifacts was trained on other data than {project.cohort_folder}: {remedy}")
    with track(project, digest, "compare", {}, {}, folds=()) as run:
        rows, notes = _rows(project, imputer)
        if not rows:
            why = f" ({'; '.join(notes)})" if notes else ""
            raise UserError(
                f"nothing is fine-tuned on {project.dataset} yet{why}: run `imputune finetune {project.dataset}` first"
            )
        comparison = Comparison(
            project.dataset,
            imputer["stays"],
            imputer["deaths"],
            digest,
            tuple(rows[key] for key in sorted(rows)),
            tuple(imputer_rows([fold["imputation"] for fold in imputer["folds"]])),
            tuple(notes),
        )
        _write(comparison, project.results_folder)
        run.log_text(to_markdown(comparison), "comparison.md")
    return comparison


def _rows(project: Project, imputer: Mapping[str, Any]) -> tuple[dict[Key, Row], list[str]]:
    runs = {run.run_id: run for run in finished_runs(project.root, EXPERIMENT, "finetune", project.dataset)}
    rows: dict[Key, Row] = {}
    notes = []
    for folder in sorted(path.parent for path in project.cells_folder.glob(f"*/{RESULT}")):
        result = read_result(folder, f"delete {folder}, or fine-tune that cell again")
        if (result["cohort_hash"], result["imputer_run_id"]) != (imputer["cohort_hash"], imputer["run_id"]):
            notes.append(f"{folder.name} in artifacts is of other data or another imputer, and was left out")
            continue
        key = tuple(result["cell"][name] for name in CELL)
        run = runs.get(result["run_id"])
        if run is not None:
            rows[key] = _row_of_run(project.dataset, run)
        else:
            rows[key] = _row_of_outputs(project.dataset, result)
            notes.append(f"{folder.name}: its run {result['run_id']} is gone or unfinished, read from artifacts")
    _add_other_runs(project, imputer, runs.values(), rows, notes)
    return rows, notes


def _add_other_runs(
    project: Project, imputer: Mapping[str, Any], runs: Iterable[RunRecord], rows: dict[Key, Row], notes: list[str]
) -> None:
    """Add the newest run of each cell that artifacts do not hold; `runs` are newest first."""
    left_out = 0
    for run in runs:
        key = tuple(run.tags[f"imputune.{name}"] for name in CELL)
        if key in rows:
            continue
        ours = (imputer["cohort_hash"], imputer["run_id"], len(imputer["folds"]))
        if (run.tags["imputune.cohort_hash"], run.tags["imputune.imputer_run"], len(run.folds)) != ours:
            left_out += 1
            continue
        rows[key] = _row_of_run(project.dataset, run)
        notes.append(f"{'-'.join(key)}: not in artifacts, read from its newest run {run.run_id}")
    if left_out:
        notes.append(f"{left_out} finished runs of other data, folds or another imputer were left out")


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
