"""What was fine-tuned on a dataset: outputs in artifacts, and rows read from the runs that made them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from imputune.artifacts.stage_output import (
    PREDICTIONS,
    RESULT,
    differences,
    read_result,
)
from imputune.data.cohort import Cohort
from imputune.errors import UserError
from imputune.evaluation.metrics import reliability
from imputune.evaluation.rows import SCORES, Row, make_row
from imputune.pipeline.project import EXPERIMENT, Project
from imputune.protocol.imputers import PRETRAINED
from imputune.protocol.variants import PARTS, Cell
from imputune.settings.names import ImputerName
from imputune.tracking.history import RunRecord, finished_runs

Key = tuple[str, ...]
COUNTS = ("num_parameters", "trainable_parameters")
ORIGIN = {
    "cohort_hash": "data",
    "folds_hash": "folds",
    "variables": "variables",
    "seed": "seed",
    "imputer_run_id": "imputer",
}
"""What an output may be made of, and what it is called where it differs."""


def outputs_of(
    project: Project, imputer: Mapping[str, Any], name: ImputerName = PRETRAINED
) -> tuple[dict[Key, dict[str, Any]], list[str]]:
    """Return the outputs in artifacts of an imputer's cells, by the four words of each, and what was left out and why.

    `imputer` is the output of its pretraining, to which they must belong.
    """
    found: dict[Key, dict[str, Any]] = {}
    notes = []
    ours = {name: imputer[name] for name in ORIGIN if name != "imputer_run_id"} | {"imputer_run_id": imputer["run_id"]}
    for folder in sorted(path.parent for path in project.cells_folder(name).glob(f"[!.]*/{RESULT}")):
        result = read_result(folder, f"delete {folder}, or fine-tune that cell again")
        if differing := differences(result, ours):
            words = " and ".join(ORIGIN[name] for name in differing)
            notes.append(f"{folder.name} in artifacts is of other {words}, and was left out")
        else:
            found[tuple(result["cell"][part] for part in PARTS)] = result
    return found, notes


def finetuned_runs(project: Project) -> dict[str, RunRecord]:
    """Return the finished runs of fine-tuning, by id, the newest first."""
    return {run.run_id: run for run in finished_runs(project.root, EXPERIMENT, "finetune", project.dataset)}


def rows_of(
    project: Project,
    cohort: Cohort,
    outputs: Mapping[Key, dict[str, Any]],
    runs: Mapping[str, RunRecord],
    notes: list[str],
) -> dict[Key, Row]:
    """Return a row for each output, read from the run that made it, or from the output where that run is gone."""
    rows: dict[Key, Row] = {}
    for key, result in outputs.items():
        name = cell_of(result).name
        calibration = _calibration(project.cells_folder(result["cell"]["imputer"]) / name, cohort)
        run = runs.get(result["run_id"])
        if run is not None:
            rows[key] = _row_of_run(project.dataset, run, calibration)
        else:
            rows[key] = _row_of_outputs(project.dataset, result, calibration)
            notes.append(f"{name}: its run {result['run_id']} is gone or unfinished, read from artifacts")
    return rows


def cell_of(result: Mapping[str, Any]) -> Cell:
    """Return the cell that an output is of."""
    return Cell(**result["cell"])


def add_other_runs(
    project: Project, imputer: Mapping[str, Any], runs: Iterable[RunRecord], rows: dict[Key, Row], notes: list[str]
) -> None:
    """Add the newest run of each cell that artifacts do not hold; `runs` are newest first."""
    left_out = 0
    for run in runs:
        key = tuple(run.tags[f"imputune.{part}"] for part in PARTS)
        if key in rows or imputer_of(run) != PRETRAINED:
            continue
        ours = (imputer["cohort_hash"], imputer["run_id"], len(imputer["folds"]))
        theirs = (run.tags["imputune.cohort_hash"], run.tags["imputune.imputer_run"], len(run.folds))
        if theirs != ours or not all(set(SCORES) <= set(fold.metrics) for fold in run.folds):
            left_out += 1
            continue
        rows[key] = _row_of_run(project.dataset, run, [])
        notes.append(f"{'-'.join(key)}: not in artifacts, read from its newest run {run.run_id}")
    if left_out:
        notes.append(f"{left_out} finished runs of other data, folds, imputers or versions were left out")


def _calibration(folder: Path, cohort: Cohort) -> list[dict[str, float]]:
    """Return the points of the calibration curve over all test stays of a cell's output."""
    if not (folder / PREDICTIONS).is_file():
        raise UserError(f"{folder / PREDICTIONS} is missing: delete {folder}, or fine-tune that cell again")
    table = pd.read_csv(folder / PREDICTIONS)
    test = table[table["partition"] == "test"]
    return reliability(cohort.died(test["stay_id"].to_numpy()), test["risk"].to_numpy())


def imputer_of(run: RunRecord) -> str:
    """Return the imputer of a run's cell; runs did not say when there was no other than CSAI."""
    return run.tags.get("imputune.imputer", PRETRAINED)


def _row_of_run(dataset: str, run: RunRecord, calibration: list[dict[str, float]]) -> Row:
    return make_row(
        dataset,
        {part: run.tags[f"imputune.{part}"] for part in PARTS} | {"imputer": imputer_of(run)},
        {name: int(run.metrics[name]) if name in run.metrics else None for name in COUNTS},
        run.metrics["seconds"],
        [{"fold": fold.fold} | fold.metrics for fold in run.folds],
        run.run_id,
        "tracked run",
        calibration,
    )


def _row_of_outputs(dataset: str, result: Mapping[str, Any], calibration: list[dict[str, float]]) -> Row:
    return make_row(
        dataset,
        result["cell"],
        {name: result[name] for name in COUNTS},
        sum(fold["seconds"] for fold in result["folds"]),
        [{"fold": fold["fold"]} | fold["scores"] for fold in result["folds"]],
        result["run_id"],
        "stage outputs",
        calibration,
    )
