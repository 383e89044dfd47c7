"""What fine-tuning starts from, what is to be fine-tuned, and what of it there is already."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from imputune.cells import Cell
from imputune.config import UNFROZEN_ALONE
from imputune.errors import UserError
from imputune.project import IMPUTER_SECTIONS, Divided, Project, about, read_divided, settings_of
from imputune.tracking.runs import TrackedRun
from imputune.training.checkpoints import Checkpoints
from imputune.training.outputs import (
    PREDICTIONS,
    RESULT,
    TrainedFold,
    differences,
    read_result,
    read_weights,
    weights_file,
)


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


@dataclass(frozen=True, eq=False)
class Source:
    """What cells are fine-tuned from: a project, its divided cohort, and the imputers in its artifacts by fold."""

    project: Project
    data: Divided
    imputer_run_id: str
    imputers: dict[int, dict[str, torch.Tensor]]

    @classmethod
    def read(cls, project: Project) -> "Source":
        """Read everything, with the settings that the imputers were pretrained with.

        Raises UserError when no imputer was pretrained, or it was trained on other variables, data or folds.
        """
        data = read_divided(project)
        remedy = f"run `imputune pretrain {project.dataset}` (or `dvc repro`) first"
        imputer = read_result(project.imputer_folder, remedy)
        data.origin.check(imputer, project.imputer_folder, remedy)
        imputers = {fold.number: read_weights(project.imputer_folder, fold.number) for fold in data.folds}
        return cls(project.with_imputer(imputer["params"]), data, imputer["run_id"], imputers)

    @property
    def folds(self) -> list[int]:
        """The numbers of the folds."""
        return [fold.number for fold in self.data.folds]

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
    """A cell on its way: what its output will say and where it goes, the folds wanted, and what is there of it.

    checkpoints: None for a cell that is done. stack: closes its run.
    """

    cell: Cell
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
