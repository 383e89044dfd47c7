"""A project folder: where everything has its place, what is read of it, and how a command on it is tracked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from imputune.artifacts.stage_output import Origin
from imputune.data.cohort import Cohort, cohort_hash, read_cohort
from imputune.data.folds import Fold, folds_hash, read_folds
from imputune.errors import UserError
from imputune.protocol.imputers import PRETRAINED
from imputune.runtime.device import choose_device
from imputune.runtime.recorder import Recorder
from imputune.settings.file import read_params
from imputune.settings.names import ImputerName
from imputune.settings.schema import Budget, Params
from imputune.tracking.runs import TrackedRun, tracked_run

EXPERIMENT = "imputune"
IMPUTER_SECTIONS = ("pretrain", "csai", "scaling", "masking")
Watch = Callable[[Recorder, int], AbstractContextManager[Recorder]]
"""Wraps a recorder so that someone sees its progress, given the epochs at most of a fold."""


@dataclass(frozen=True)
class Project:
    """A project folder, with its parameters for one dataset; everything that has a place in it, by name."""

    root: Path
    params: Params

    @classmethod
    def open(cls, root: Path, dataset: str | None = None) -> "Project":
        """Read params.yaml, for `dataset` or the one it names; UserError for a bad file or unknown dataset."""
        params = read_params(root / "params.yaml")
        if dataset:
            params = params.model_copy(update={"dataset": dataset})
        params.budget_of(params.dataset)
        return cls(root, params)

    def with_imputer(self, settings: Mapping[str, Any]) -> "Project":
        """Return this project with the settings an imputer was pretrained with, whatever params.yaml now says."""
        sections = {name: type(getattr(self.params, name)).model_validate(settings[name]) for name in IMPUTER_SECTIONS}
        return replace(self, params=self.params.model_copy(update=sections))

    def with_epochs(self, epochs: int) -> "Project":
        """Return this project with so many epochs of fine-tuning at most, frozen or unfrozen."""
        changed = self.budget.model_copy(update={"frozen_epochs": epochs, "unfrozen_epochs": epochs})
        return replace(self, params=self.params.model_copy(update={"budget": {self.dataset: changed}}))

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.params.dataset

    @property
    def budget(self) -> Budget:
        """The dataset's epochs."""
        return self.params.budget_of(self.dataset)

    @property
    def cohort_folder(self) -> Path:
        """Where extract puts the cohort."""
        return self.root / "data" / self.dataset

    @property
    def folds_file(self) -> Path:
        """Where the folds are written."""
        return self.root / "artifacts" / self.dataset / "folds.json"

    def imputer_folder(self, imputer: ImputerName = PRETRAINED) -> Path:
        """Where the pretraining of an imputer leaves its output."""
        artifacts = self.root / "artifacts" / self.dataset
        return artifacts / imputer if imputer == PRETRAINED else artifacts / "imputers" / imputer

    def cells_folder(self, imputer: ImputerName = PRETRAINED) -> Path:
        """Where fine-tuning on an imputer leaves a folder for each cell."""
        artifacts = self.root / "artifacts" / self.dataset
        return artifacts / "finetune" if imputer == PRETRAINED else artifacts / "matrix" / imputer

    def assess_folder(self, imputer: ImputerName) -> Path:
        """Where the assessment of an imputer leaves its output."""
        return self.root / "artifacts" / self.dataset / "assess" / imputer

    @property
    def overfit_folder(self) -> Path:
        """Where training without early stopping leaves a folder for each cell."""
        return self.root / "artifacts" / self.dataset / "overfit"

    @property
    def unfinished_folder(self) -> Path:
        """Where training keeps the folds of cells and imputers that are not complete."""
        return self.root / "artifacts" / self.dataset / "unfinished"

    @property
    def results_folder(self) -> Path:
        """Where compare writes its tables."""
        return self.root / "results" / self.dataset


@dataclass(frozen=True, eq=False)
class Divided:
    """A cohort as read for a stage, with its folds and their hashes."""

    cohort: Cohort
    folds: list[Fold]
    origin: Origin

    @property
    def numbers(self) -> list[int]:
        """The numbers of the folds."""
        return [fold.number for fold in self.folds]


@contextmanager
def only_one(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock file for the block; the system lets go of it when the process ends, however.

    Raises UserError, saying what is being done, when another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another command is {doing}: wait for its end, or end it; this one then goes on") from None
    try:
        yield
    finally:
        lock.release()


def read_divided(project: Project) -> Divided:
    """Read the project's cohort and its folds; see `read_cohort` and `read_folds` for the errors."""
    cohort = read_cohort(project.cohort_folder)
    digest = cohort_hash(project.cohort_folder)
    folds = read_folds(project.folds_file, cohort, digest, project.params.folds.count, project.params.seed)
    return Divided(
        cohort, folds, Origin(project.dataset, digest, folds_hash(project.folds_file), cohort.variable_names)
    )


def about(project: Project, data: Divided) -> dict[str, Any]:
    """Return what every training output says of what it was trained on."""
    return asdict(data.origin) | {
        "variables": list(data.origin.variables),
        "stays": len(data.cohort.died_N),
        "deaths": int(data.cohort.died_N.sum()),
        "seed": project.params.seed,
    }


def settings_of(project: Project, *sections: str) -> dict[str, Any]:
    """Return sections of params.yaml as plain values, with the dataset's budget and the folds beside them."""
    chosen = project.params.model_dump(include=set(sections), mode="json")
    return chosen | {"budget": project.budget.model_dump(), "folds": project.params.folds.model_dump()}


def track(
    project: Project,
    digest: str,
    command: str,
    settings: Mapping[str, Any],
    tags: Mapping[str, str],
    folds: Sequence[int],
    parent: str | None = None,
) -> AbstractContextManager[TrackedRun]:
    """Track a command on the project's cohort, whose hash is `digest`; see `tracking.runs.tracked_run`."""
    params = {"cohort": {"dataset": project.dataset, "hash": digest}, "seed": project.params.seed}
    all_tags = {"dataset": project.dataset, "cohort_hash": digest, **tags}
    return tracked_run(
        project.root,
        EXPERIMENT,
        command,
        params | dict(settings),
        {f"imputune.{key}": text for key, text in all_tags.items()},
        folds,
        parent,
    )


def track_training(
    project: Project,
    data: Divided,
    command: str,
    about: Mapping[str, Any],
    tags: Mapping[str, str],
    parent: str | None = None,
) -> AbstractContextManager[TrackedRun]:
    """Track a training command with a child per fold, its parameters those that `about` names."""
    numbers = [fold.number for fold in data.folds]
    device = {"device": choose_device(project.params.device).type}
    return track(project, data.origin.cohort_hash, command, about["params"], {**tags, **device}, numbers, parent)
