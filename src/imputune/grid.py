"""Fine-tuning of any number of cells, fold by fold over the cores, tracked, and resumed where it was interrupted."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from imputune.cells import Cell
from imputune.errors import UserError
from imputune.estimate import TimeLeft
from imputune.project import (
    IMPUTER_SECTIONS,
    Divided,
    Project,
    about,
    read_divided,
    settings_of,
    track,
    track_training,
)
from imputune.stages import log_curves, log_summary, register
from imputune.tracking.interrupted import end_interrupted
from imputune.tracking.runs import TrackedRun
from imputune.training.baselines import baseline_fold
from imputune.training.checkpoints import Checkpoints
from imputune.training.finetune import FinetuneJob, build_classifier, finetune_fold
from imputune.training.outputs import (
    RESULT,
    TrainedFold,
    differences,
    read_fold,
    read_result,
    read_weights,
    write_stage,
)
from imputune.training.parallel import Task, run_tasks
from imputune.training.recorder import Recorder, Unheard

LOCK, RUN = ".lock", "grid.json"
Tell = Callable[[str], None]


@dataclass
class CellResult:
    """What became of a cell: its folds' results by number, and the run that tracked it, "" while folds are missing."""

    cell: Cell
    results: dict[int, TrainedFold]
    run_id: str


@dataclass(frozen=True)
class Request:
    """What to fine-tune: cells, and which folds of them (None: all).

    again: train also what is done already. early_stopping: False trains the whole budget, to show overfitting.
    """

    cells: Sequence[Cell]
    folds: Sequence[int] | None = None
    again: bool = False
    early_stopping: bool = True


def run_grid(project: Project, request: Request, tell: Tell, as_one: bool = True) -> list[CellResult]:
    """Fine-tune what is requested and not done yet, and return the result of every requested cell.

    A cell is done when its output was made from the data, folds, imputer and settings that the project now has. With
    `as_one`, a run tracks the command, the cells' runs nested in it. `tell` gets a line for every fold. Work that was
    interrupted, even by kill -9, goes on with the folds that were finished.

    Raises UserError when no imputer was pretrained, it was trained on other variables, data or folds, a fold does not
    exist, or another command is fine-tuning the dataset.
    """
    data = read_divided(project)
    remedy = f"run `imputune pretrain {project.dataset}` (or `dvc repro`) first"
    imputer = read_result(project.imputer_folder, remedy)
    data.origin.check(imputer, project.imputer_folder, remedy)
    numbers = [fold.number for fold in data.folds]
    for number in request.folds or ():
        if number not in numbers:
            raise UserError(f"there is no fold {number}: choose from {', '.join(map(str, numbers))}")
    weights = {number: read_weights(project.imputer_folder, number) for number in numbers}
    project = project.with_imputer(imputer["params"])
    project.unfinished_folder.mkdir(parents=True, exist_ok=True)
    with _alone(project), ExitStack() as stack:
        parent = _track_command(project, data, request, stack) if as_one else None
        grid = _Grid(project, data, imputer["run_id"], weights, request, tell, parent, stack)
        grid.run()
    return [work.result for work in grid.works]


def expected(project: Project, data: Divided, imputer_run_id: str, cell: Cell) -> dict[str, Any]:
    """Return what the output of a cell says of what it was trained on, if it was made from what the project now has."""
    if cell.is_neural:
        settings = settings_of(project, "finetune", *IMPUTER_SECTIONS)
        settings["schedules"] = {
            cell.schedule: getattr(project.params.schedules, cell.schedule).model_dump(mode="json")
        }
        settings["budget"].pop("pretrain_epochs")
        if cell.mode == "frozen":
            settings["budget"].pop("unfrozen_epochs")
    else:
        settings = settings_of(project, *IMPUTER_SECTIONS)
        settings["shallow"] = {cell.head: getattr(project.params.shallow, cell.head).model_dump(mode="json")}
        settings.pop("budget")
    return about(project, data) | {
        "stage": "finetune",
        "cell": cell.tags(),
        "imputer_run_id": imputer_run_id,
        "params": settings,
    }


@dataclass
class _Work:
    """A cell on its way."""

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


class _Grid:
    """The cells of one command."""

    def __init__(
        self,
        project: Project,
        data: Divided,
        imputer_run_id: str,
        weights: dict[int, Any],
        request: Request,
        tell: Tell,
        parent: str | None,
        stack: ExitStack,
    ) -> None:
        self.project, self.data, self.imputer_run_id, self.weights = project, data, imputer_run_id, weights
        self.request, self.tell, self.parent, self.stack = request, tell, parent, stack
        self.complete = {fold.number for fold in data.folds}
        if not request.early_stopping and request.folds:
            self.complete = set(request.folds)
        cells = sorted(request.cells, key=lambda cell: cell.mode != "frozen")  # whose heads unfrozen ones start from
        self.works = [self._open(cell) for cell in cells]
        self.left = TimeLeft(project.params.workers)

    def run(self) -> None:
        """Do all that is missing."""
        open_works = [work for work in self.works if work.checkpoints is not None]
        done = len(self.works) - len(open_works)
        if done:
            self.tell(f"{done} of {len(self.works)} cells are done already")
        for work in self.works:
            for result in work.results.values():
                self.left.took(work.cell, result.seconds)
        for work in open_works:
            if not work.missing:
                self._start(work)
                self._finish_if_complete(work)
        for work in open_works:
            for fold in work.missing:
                self.left.add(work.cell, fold)
        run_tasks(self._tasks([(work, fold) for work in open_works for fold in work.missing]), self._workers())

    def _workers(self) -> int:
        return self.project.params.workers

    def _open(self, cell: Cell) -> _Work:
        """Look up what there is of a cell: its output, or folds of an interrupted try."""
        about = expected(self.project, self.data, self.imputer_run_id, cell)
        folder, name = self.project.cells_folder / cell.name, cell.name
        if not self.request.early_stopping:
            about, folder = about | {"stage": "overfit"}, self.project.overfit_folder / cell.name
            name = f"{name}-overfit"
        work = _Work(cell, about, folder, sorted(self.request.folds or self.complete))
        checkpoints = self.project.unfinished_folder / name
        if not self.request.again and not checkpoints.exists() and (made := _matching(folder, about)):
            work.run_id = made["run_id"]
            work.results = {fold["fold"]: read_fold(folder, fold["fold"], "") for fold in made["folds"]}
            return work
        work.checkpoints = Checkpoints(checkpoints, about)
        work.results = work.checkpoints.load()
        if (run_id := work.checkpoints.run_id) and end_interrupted(self.project.root, run_id):
            work.checkpoints.remove()
            return self._open(cell)
        return work

    def _tasks(self, waiting: list[tuple[_Work, int]]) -> Iterator[Task[TrainedFold] | None]:
        while waiting:
            ready = next((each for each in waiting if self._is_ready(*each)), None)
            if ready is None:
                yield None
            else:
                waiting.remove(ready)
                yield self._task(*ready)

    def _is_ready(self, work: _Work, fold: int) -> bool:
        """Say whether nothing is on its way that this fold starts from."""
        searching = self._searching_fold(work.cell)
        if searching not in (None, fold) and searching in work.missing:
            return False
        frozen = next((each for each in self.works if each.cell == work.cell.frozen and each is not work), None)
        return frozen is None or fold not in frozen.missing

    def _searching_fold(self, cell: Cell) -> int | None:
        """Return the fold whose learning rate serves all folds of a cell, if there is one."""
        optuna = self.project.params.schedules.optuna
        first = cell.schedule == "optuna" and optuna.scope(cell.mode) == "first_fold"
        return self.data.folds[0].number if first else None

    def _task(self, work: _Work, number: int) -> Task[TrainedFold]:
        self._start(work)
        searching = self._searching_fold(work.cell)
        rate = None
        if searching not in (None, number):
            if searching not in work.results:
                raise UserError(
                    f"fold {number} of {work.cell.name} takes the learning rate of fold {searching}: add that fold, "
                    "or set schedules.optuna's scope to each_fold in params.yaml"
                )
            rate = work.results[searching].learning_rate
        assert work.checkpoints is not None
        job = FinetuneJob(
            self.data.cohort,
            next(fold for fold in self.data.folds if fold.number == number),
            self.project.params,
            work.cell,
            self.weights[number],
            work.checkpoints.folder,
            rate,
            self._frozen_result(work, number),
            self.request.early_stopping,
        )
        recorder: Recorder = work.run or Unheard()
        function = finetune_fold if work.cell.is_neural else baseline_fold
        return Task(function, job, recorder, lambda result: self._fold_done(work, result))

    def _frozen_result(self, work: _Work, fold: int) -> TrainedFold | None:
        """Return the frozen cell's result on a fold, where an unfrozen cell starts from it and it stands somewhere."""
        if work.cell.mode == "frozen":
            return None
        frozen = work.cell.frozen
        for other in self.works:
            if other.cell == frozen and fold in other.results and self.request.early_stopping:
                return other.results[fold]
        folder = self.project.cells_folder / frozen.name
        wanted = expected(self.project, self.data, self.imputer_run_id, frozen)
        return read_fold(folder, fold, "") if _matching(folder, wanted) else None

    def _start(self, work: _Work) -> None:
        """Open a cell's run, once it is sure to become complete, and tell it what was finished before."""
        if work.run is not None or not self.complete <= set(work.wanted) | set(work.results):
            return
        assert work.checkpoints is not None
        tags = work.cell.tags() | {"imputer_run": self.imputer_run_id}
        self.stack.enter_context(work.stack)
        run = work.stack.enter_context(
            track_training(self.project, self.data, work.about["stage"], work.about, tags, self.parent)
        )
        work.run, work.run_id = run, run.run_id
        work.checkpoints.run_id = run.run_id
        for result in work.results.values():
            for epoch, metrics in enumerate(result.history):
                run.epoch(result.fold, epoch, metrics)
            for trial in result.trials:
                run.trial_finished(result.fold, trial)
            run.fold_finished(result.fold, result.final_metrics)

    def _fold_done(self, work: _Work, result: TrainedFold) -> None:
        assert work.checkpoints is not None
        work.checkpoints.save(result)
        work.results[result.fold] = result
        self.left.done(work.cell, result.fold, result.seconds)
        scores = " ".join(f"{name} {result.scores[f'{name}_auc']:.3f}" for name in ("validation", "test"))
        self.tell(f"{work.cell.name} fold {result.fold}: AUC {scores}, {result.seconds:,.0f} s | {self.left}")
        self._finish_if_complete(work)

    def _finish_if_complete(self, work: _Work) -> None:
        """Write, register and end a cell whose folds are all there."""
        if work.run is None or not self.complete <= set(work.results):
            return
        assert work.checkpoints is not None
        run, results = work.run, [work.results[fold] for fold in sorted(self.complete)]
        counts = self._counts(work.cell)
        run.log_metrics({name: count for name, count in counts.items() if count is not None})
        log_summary(run, work.about, results)
        if work.cell.is_neural:
            log_curves(run, results, "loss")
            log_curves(run, results, "auc")
        write_stage(work.folder, work.about | counts | {"run_id": run.run_id}, results)
        if work.cell.is_neural and self.request.early_stopping:
            name = f"imputune-mortality-{self.project.dataset}"
            register(run, self.project, self.data, results, name, work.cell)
        work.stack.close()
        work.checkpoints.remove()

    def _counts(self, cell: Cell) -> dict[str, int | None]:
        if not cell.is_neural:
            return {"num_parameters": None, "trainable_parameters": None}
        classifier = build_classifier(self.data.cohort.values_NTD.shape, self.project.params, cell)
        return {
            "num_parameters": sum(weight.numel() for weight in classifier.head.parameters()),
            "trainable_parameters": sum(w.numel() for w in classifier.parameters() if w.requires_grad),
        }


def _matching(folder: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result.json of a cell's output if it was made from what `about` says."""
    if not (folder / RESULT).is_file():
        return None
    try:
        made = read_result(folder, "")
    except UserError:
        return None
    return None if differences(made, about) else made


def _track_command(project: Project, data: Divided, request: Request, stack: ExitStack) -> str:
    """Track the whole command, after the end of the run of one that was killed; return the run's id."""
    path = project.unfinished_folder / RUN
    if path.is_file():
        end_interrupted(project.root, json.loads(path.read_text(encoding="utf-8"))["run_id"])
    settings = {
        "cells": str(len(request.cells)),
        "folds": "all" if request.folds is None else ",".join(map(str, request.folds)),
    }
    run = stack.enter_context(track(project, data.origin.cohort_hash, "grid", settings, {}, folds=()))
    path.write_text(json.dumps({"run_id": run.run_id}), encoding="utf-8")
    stack.callback(path.unlink)
    return run.run_id


def _alone(project: Project) -> ExitStack:
    """Hold the dataset's fine-tuning for this command; the system lets go of it when the process ends, however."""
    stack = ExitStack()
    try:
        stack.enter_context(FileLock(project.unfinished_folder / LOCK, timeout=0))
    except Timeout:
        raise UserError(
            f"another command is fine-tuning {project.dataset}: wait for its end, or end it; this one then goes on"
        ) from None
    return stack
