"""What fine-tuning starts from, what is to be fine-tuned, and what of it there is already."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from imputune.artifacts.checkpoints import Checkpoints
from imputune.artifacts.stage_output import (
    PREDICTIONS,
    RESULT,
    TrainedFold,
    differences,
    read_result,
    read_weights,
    weights_file,
)
from imputune.errors import UserError
from imputune.pipeline.project import (
    IMPUTER_SECTIONS,
    Divided,
    Project,
    about,
    settings_of,
)
from imputune.protocol.imputers import PRETRAINED, check_installed
from imputune.protocol.variants import Cell
from imputune.settings.names import ImputerName
from imputune.settings.schema import UNFROZEN_ALONE
from imputune.tracking.runs import TrackedRun


@dataclass(frozen=True)
class Request:
    """What to fine-tune: cells, and which folds of them (None: all).

    again: train also what is done already. early_stopping: False trains the whole budget, to show overfitting.
    """

    cells: Sequence[Cell]
    folds: Sequence[int] | None = None
    again: bool = False
    early_stopping: bool = True


@dataclass
class CellResult:
    """What became of a cell: its folds' results by number, and the run that tracked it, "" while folds are missing."""

    cell: Cell
    results: dict[int, TrainedFold]
    run_id: str


def pretrain_first(dataset: str, imputer: ImputerName) -> str:
    """Return what to do where an imputer's output is missing."""
    if imputer == PRETRAINED:
        return f"run `imputune pretrain {dataset}` (or `dvc repro`) first"
    return f"run `imputune pretrain {dataset} --imputer {imputer}` first"


@dataclass(frozen=True, eq=False)
class Source:
    """What cells are fine-tuned from: a project, its divided cohort, and an imputer in its artifacts, by fold."""

    project: Project
    data: Divided
    imputer_run_id: str
    imputers: dict[int, dict[str, torch.Tensor]]

    @classmethod
    def read(cls, project: Project, data: Divided, imputer: ImputerName) -> "Source":
        """Read an imputer, with the settings that it was pretrained with.

        Raises UserError when it was not pretrained, was trained on other variables, data or folds, or its package is
        not installed.
        """
        check_installed(imputer)
        folder, remedy = project.imputer_folder(imputer), pretrain_first(project.dataset, imputer)
        found = read_result(folder, remedy)
        data.origin.check(found, folder, remedy)
        weights = {fold.number: read_weights(folder, fold.number) for fold in data.folds}
        return cls(project.with_imputer(found["params"]), data, found["run_id"], weights)

    def expected(self, cell: Cell) -> dict[str, Any]:
        """Return what the output of a cell says of what it was made from, where that is what there is now."""
        return about(self.project, self.data) | {
            "stage": "finetune",
            "cell": cell.tags(),
            "imputer_run_id": self.imputer_run_id,
            "params": cell_settings(self.project, cell),
        }


def cell_settings(project: Project, cell: Cell) -> dict[str, Any]:
    """Return the sections of params.yaml that a cell depends on."""
    params = project.params
    if not cell.is_neural:
        settings = settings_of(project, *IMPUTER_SECTIONS)
        settings["shallow"] = {cell.head: getattr(params.shallow, cell.head).model_dump(mode="json")}
        settings.pop("budget")
        return settings
    settings = settings_of(project, "finetune", *IMPUTER_SECTIONS)
    schedule = getattr(params.schedules, cell.schedule).model_dump(mode="json")
    settings["budget"].pop("pretrain_epochs")
    if cell.mode == "frozen":
        settings["budget"].pop("unfrozen_epochs")
        for name in UNFROZEN_ALONE:
            settings["finetune"].pop(name)
        schedule.pop("unfrozen_scope", None)
    settings["schedules"] = {cell.schedule: schedule}
    return settings


@dataclass
class Work:
    """A cell on its way: what it is made from, what its output will say, the folds wanted, and what is there of it.

    folder: where its output goes. checkpoints: None for a cell that is done. stack: closes its run.
    """

    cell: Cell
    source: Source
    about: dict[str, Any]
    folder: Path
    wanted: list[int]
    checkpoints: Checkpoints | None = None
    run: TrackedRun | None = None
    stack: ExitStack = field(default_factory=ExitStack)
    results: dict[int, TrainedFold] = field(default_factory=dict)
    run_id: str = ""

    @property
    def missing(self) -> list[int]:
        """The wanted folds that are not finished."""
        return [fold for fold in self.wanted if fold not in self.results]

    @property
    def result(self) -> CellResult:
        """What became of it."""
        return CellResult(self.cell, dict(sorted(self.results.items())), self.run_id)


def made_from(folder: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result.json of a cell's output if it was made from what `about` says, else None."""
    if not (folder / RESULT).is_file():
        return None
    try:
        made = read_result(folder, "")
    except UserError:
        return None
    files = [folder / PREDICTIONS, *(weights_file(folder, fold["fold"]) for fold in made["folds"])]
    needed = files if made["cell"]["schedule"] != "none" else files[:1]
    return made if not differences(made, about) and all(map(Path.is_file, needed)) else None
