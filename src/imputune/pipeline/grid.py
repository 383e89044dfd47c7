"""Fine-tuning of any number of cells, fold by fold over the cores, tracked, and resumed where it was interrupted."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from imputune.artifacts.checkpoints import Checkpoints, read_run_id, write_run_id
from imputune.artifacts.stage_output import TrainedFold, read_fold, write_stage
from imputune.errors import UserError
from imputune.files import sweep
from imputune.pipeline.inputs import (
    CellResult,
    Request,
    Source,
    Work,
    made_from,
)
from imputune.pipeline.project import (
    Divided,
    Project,
    only_one,
    read_divided,
    track,
    track_training,
)
from imputune.pipeline.recording import (
    log_curves,
    log_summary,
    register,
    retell,
)
from imputune.protocol.imputers import PRETRAINED
from imputune.protocol.variants import Cell
from imputune.runtime.recorder import Recorder, Unheard
from imputune.runtime.time_left import TimeLeft
from imputune.runtime.workers import Task, run_tasks
from imputune.settings.names import ImputerName
from imputune.tracking.interrupted import end_interrupted
from imputune.training.finetune import (
    FinetuneJob,
    build_classifier,
    finetune_fold,
    new_head,
)
from imputune.training.non_neural import baseline_fold

LOCK, RUN = "lock", "grid.json"
Tell = Callable[[str], None]


def run_grid(project: Project, request: Request, tell: Tell, as_one: bool = True) -> list[CellResult]:
    """Fine-tune what is requested and not done yet, and return the result of every requested cell.

    A cell is done when its output was made from the data, folds, imputer and settings that the project now has. With
    `as_one`, a run tracks the command, the cells' runs nested in it. `tell` gets a line for every fold. Work that was
    interrupted, even by kill -9, goes on with the folds that were finished.

    Raises UserError when no imputer was pretrained, it was trained on other variables, data or folds, a fold does not
    exist, or another command is fine-tuning the dataset.
    """
    data = read_divided(project)
    imputers = dict.fromkeys(cell.imputer for cell in request.cells)
    sources = {imputer: Source.read(project, data, imputer) for imputer in imputers}
    for number in request.folds or ():
        if number not in data.numbers:
            raise UserError(f"there is no fold {number}: choose from {', '.join(map(str, data.numbers))}")
    with only_one(project.unfinished_folder / LOCK, f"fine-tuning {project.dataset}"), ExitStack() as stack:
        for folder in (project.unfinished_folder, project.overfit_folder, *map(project.cells_folder, imputers)):
            sweep(folder)
        parent = _track_command(project, data, request, stack) if as_one else None
        grid = _Grid(project, data, sources, request, tell, parent, stack)
        grid.run()
    return [work.result for work in grid.works]


class _Grid:
    """The cells of one command."""

    def __init__(
        self,
        project: Project,
        data: Divided,
        sources: Mapping[ImputerName, Source],
        request: Request,
        tell: Tell,
        parent: str | None,
        stack: ExitStack,
    ) -> None:
        self.project, self.data, self.sources = project, data, sources
        self.request, self.tell, self.parent, self.stack = request, tell, parent, stack
        self.complete = set(data.numbers)
        if not request.early_stopping and request.folds:
            self.complete = set(request.folds)
        cells = sorted(request.cells, key=lambda cell: cell.mode != "frozen")  # whose heads unfrozen ones start from
        self.works = [self._open(cell) for cell in cells]
        for work in self.works:
            self._check(work)
        self.left = TimeLeft(self.project.params.workers)

    def run(self) -> None:
        """Do all that is missing."""
        open_works = [work for work in self.works if work.checkpoints is not None]
        done = len(self.works) - len(open_works)
        if done:
            self.tell(f"{done} of {len(self.works)} cells are done already")
        if folds := sum(len({*work.wanted} & {*work.results}) for work in open_works):
            self.tell(f"{folds} folds of the others are done already")
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
        run_tasks(self._tasks(open_works), self.project.params.workers)

    def _open(self, cell: Cell) -> Work:
        """Look up what there is of a cell: its output, or folds of an interrupted try."""
        source = self.sources[cell.imputer]
        about = source.expected(cell)
        folder, name = self.project.cells_folder(cell.imputer) / cell.name, cell.name
        if not self.request.early_stopping:
            about, folder = about | {"stage": "overfit"}, self.project.overfit_folder / cell.name
            name = f"{name}-overfit"
        work = Work(cell, source, about, folder, sorted(self.request.folds or self.complete))
        checkpoints = Checkpoints(self.project.unfinished_folder / name, about)
        interrupted = checkpoints.run_id
        finished = interrupted is not None and end_interrupted(self.project.root, interrupted)
        made = None if self.request.again and not finished else made_from(folder, about)
        if made and (finished or made["run_id"] != interrupted):
            if finished:
                checkpoints.remove()  # the command was killed between the end of the cell's run and this
            work.run_id = made["run_id"]
            work.results = {fold["fold"]: read_fold(folder, fold["fold"], "", False) for fold in made["folds"]}
            return work
        work.checkpoints = checkpoints
        work.results = checkpoints.begin()
        return work

    def _check(self, work: Work) -> None:
        """Refuse what would lack something it starts from, before anything runs; UserError says what to add."""
        searching = self._searching_fold(work.cell)
        if searching is not None and work.missing and searching not in {*work.wanted, *work.results}:
            raise UserError(
                f"{work.cell.name} takes the learning rate of fold {searching}: add that fold, or set the scope under "
                "schedules.optuna to each_fold in params.yaml"
            )
        frozen = work.cell.frozen
        if work.cell.mode == "frozen" or not work.missing or self._searching_fold(frozen) is None:
            return
        if frozen not in [other.cell for other in self.works] and self._frozen_result(work, work.missing[0]) is None:
            raise UserError(
                f"{work.cell.name} starts from {frozen.name}, whose learning rate fold {searching} searches for all "
                "folds: fine-tune that cell first, or both in one `imputune grid`"
            )

    def _tasks(self, works: list[Work]) -> Iterator[Task[TrainedFold] | None]:
        waiting = [(work, fold) for work in works for fold in work.missing]
        while waiting:
            ready = next((each for each in waiting if self._is_ready(*each)), None)
            if ready is None:
                yield None
            else:
                waiting.remove(ready)
                yield self._task(*ready)

    def _is_ready(self, work: Work, fold: int) -> bool:
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
        return self.data.numbers[0] if first else None

    def _task(self, work: Work, number: int) -> Task[TrainedFold]:
        self._start(work)
        searching = self._searching_fold(work.cell)
        rate = None
        if searching not in (None, number):
            rate = work.results[searching].learning_rate
        assert work.checkpoints is not None
        job = FinetuneJob(
            self.data.cohort,
            next(fold for fold in self.data.folds if fold.number == number),
            work.source.project.params,
            work.cell,
            work.source.imputers[number],
            work.checkpoints.folder,
            rate,
            self._frozen_result(work, number),
            self.request.early_stopping,
        )
        recorder: Recorder = work.run or Unheard()
        function = finetune_fold if work.cell.is_neural else baseline_fold
        return Task(function, job, recorder, lambda result: self._fold_done(work, result))

    def _frozen_result(self, work: Work, fold: int) -> TrainedFold | None:
        """Return the frozen cell's result on a fold, where an unfrozen cell starts from it and it stands somewhere."""
        if work.cell.mode == "frozen":
            return None
        frozen = work.cell.frozen
        for other in self.works:
            if other.cell == frozen and other.checkpoints and fold in other.results and self.request.early_stopping:
                return other.results[fold]
        folder = self.project.cells_folder(frozen.imputer) / frozen.name
        wanted = work.source.expected(frozen)
        return read_fold(folder, fold, "") if made_from(folder, wanted) else None

    def _start(self, work: Work) -> None:
        """Open a cell's run, once it is sure to become complete, and tell it what was finished before."""
        if work.run is not None or not self.complete <= set(work.wanted) | set(work.results):
            return
        assert work.checkpoints is not None
        tags = work.cell.tags() | {"imputer_run": work.source.imputer_run_id}
        self.stack.enter_context(work.stack)
        run = work.stack.enter_context(
            track_training(work.source.project, self.data, work.about["stage"], work.about, tags, self.parent)
        )
        work.run, work.run_id = run, run.run_id
        work.checkpoints.run_id = run.run_id
        for result in work.results.values():
            retell(run, result)

    def _fold_done(self, work: Work, result: TrainedFold) -> None:
        assert work.checkpoints is not None
        work.checkpoints.save(result)
        work.results[result.fold] = result
        self.left.done(work.cell, result.fold, result.seconds)
        scores = " ".join(f"{name} {result.scores[f'{name}_auc']:.3f}" for name in ("validation", "test"))
        self.tell(f"{work.cell.name} fold {result.fold}: AUC {scores}, {result.seconds:,.0f} s | {self.left}")
        self._finish_if_complete(work)

    def _finish_if_complete(self, work: Work) -> None:
        """Write, register and end a cell whose folds are all there."""
        if work.run is None or not self.complete <= set(work.results):
            return
        assert work.checkpoints is not None
        run, results = work.run, [work.results[fold] for fold in sorted(self.complete)]
        counts = self._counts(work)
        run.log_metrics({name: count for name, count in counts.items() if count is not None})
        log_summary(run, work.about, results)
        if work.cell.is_neural:
            log_curves(run, results, "loss")
            log_curves(run, results, "auc")
        write_stage(work.folder, work.about | counts | {"run_id": run.run_id}, results)
        if work.cell.is_neural and self.request.early_stopping and work.cell.imputer == PRETRAINED:
            register(run, work.source.project, self.data, results, work.cell, work.source.imputer_run_id)
        work.stack.close()
        work.checkpoints.remove()

    def _counts(self, work: Work) -> dict[str, int | None]:
        cell, params, shape = work.cell, work.source.project.params, self.data.cohort.values_NTD.shape
        if not cell.is_neural:
            return {"num_parameters": None, "trainable_parameters": None}
        head = sum(weight.numel() for weight in new_head(shape, params, cell).parameters())
        below = 0
        if cell.mode == "unfrozen":
            below = sum(weight.numel() for weight in build_classifier(shape, params, cell).imputer.parameters())
        return {"num_parameters": head, "trainable_parameters": head + below}


def _track_command(project: Project, data: Divided, request: Request, stack: ExitStack) -> str:
    """Track the whole command, after the end of the run of one that was killed; return the run's id."""
    path = project.unfinished_folder / RUN
    if interrupted := read_run_id(path):
        end_interrupted(project.root, interrupted)
    settings = {
        "cells": str(len(request.cells)),
        "folds": "all" if request.folds is None else ",".join(map(str, request.folds)),
    }
    run = stack.enter_context(track(project, data.origin.cohort_hash, "grid", settings, {}, folds=()))
    write_run_id(path, run.run_id)
    stack.callback(path.unlink)
    return run.run_id
