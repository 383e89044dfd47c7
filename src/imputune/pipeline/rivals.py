"""The command rivals: train complex models end to end on the same folds; they are measured, not promoted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from imputune import signals
from imputune.artifacts.checkpoints import TrialKeeper
from imputune.artifacts.rivals_file import write_rivals_file
from imputune.artifacts.stage_output import TrainedFold
from imputune.data.static import unknown_for_all
from imputune.errors import UserError
from imputune.files import remove_leftovers
from imputune.pipeline.project import DividedCohort, Project, exclusive, read_divided_cohort
from imputune.pipeline.rival_results import seconds_of_head
from imputune.pipeline.rival_work import RivalSummary, RivalWork
from imputune.pipeline.run_subject import divided_input, rivals_subject
from imputune.pipeline.tracked import finish_complete, track
from imputune.protocol.rivals import Rival
from imputune.reporting.run_notes import rivals_result
from imputune.runtime.console import counted, epoch_lines
from imputune.runtime.epoch_lines import LineRecorder, TrainingPlan
from imputune.runtime.recorder import Recorder, SilentRecorder
from imputune.runtime.workers import Task
from imputune.training.rivals import RivalJob, train_rival_fold

LOCK = "lock.rivals"
Say = Callable[[str], None]
"""Shows the user a line."""


@dataclass(frozen=True, kw_only=True)
class RivalRequest:
    """What to train: rivals, and which folds of them (None: all).

    again: train finished rivals too. options: those with which the command can be run again, by name.
    """

    rivals: Sequence[Rival]
    folds: Sequence[int] | None = None
    again: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def run_rivals(project: Project, request: RivalRequest, say: Say) -> list[RivalSummary]:
    """Train the rivals that are requested and not finished yet; return the finished folds of each.

    A rival is finished when its output was made from the data, folds and settings that the project has now. Every fold
    that is finished is written into the committed file of the rivals. The first fold of a rival tries its learning
    rates, and its other folds wait for it: if it finds none, they fail too. Interrupted work, even by kill -9,
    continues with the missing folds.

    Raises UserError when the cohort or its folds are missing or do not belong together, the labels of a split have one
    value only, a fold does not exist, the first fold is neither requested nor finished, no stay has a static fact that
    a rival reads, or another command is training rivals on the dataset.
    """
    data = read_divided_cohort(project).for_outcome(project.outcome)
    numbers = [fold.number for fold in data.labelled_folds]  # read here, so that no run is opened in vain
    for number in request.folds or ():
        if number not in numbers:
            raise UserError(f"there is no fold {number}: choose from {', '.join(map(str, numbers))}")
    _check_static(data, request.rivals)
    with exclusive(project.unfinished_folder / LOCK, f"training rivals on {project.dataset}"), ExitStack() as stack:
        for folder in {project.unfinished_folder, *(project.rival_folder(rival).parent for rival in request.rivals)}:
            remove_leftovers(folder)
        wanted = request.folds or numbers
        works = [RivalWork(project, data, rival, wanted=wanted, again=request.again) for rival in request.rivals]
        for work in works:
            _check_first_fold(work)
        if any(work.missing for work in works):
            _tell_of_labels(data, say)
        folds = "all" if request.folds is None else ",".join(map(str, request.folds))
        subject = rivals_subject(project, divided_input(data, "training"), request.rivals, request.options)
        with signals.held():
            settings = {"rivals": ",".join(rival.label for rival in request.rivals), "folds": folds}
            run = stack.enter_context(track(project, subject, settings=settings))
        is_trained = any(work.missing for work in works)
        _RivalQueue(project, works, say).run(stack, run.run_id)
        file = works[0].file()
        if is_trained or file.head_seconds_for_1000_stays is None:
            timed = file.model_copy(update={"head_seconds_for_1000_stays": seconds_of_head(project, data)})
            write_rivals_file(project.rivals_results_file, timed)
        run.describe(rivals_result({work.rival.label: [*work.folds.values()] for work in works}))
        return [work.summary for work in works]


class _RivalQueue:
    """The rivals of one command."""

    def __init__(self, project: Project, works: Sequence[RivalWork], say: Say) -> None:
        self.project, self.works, self.say = project, works, say
        self.lines = epoch_lines(say)
        self.waiting = [(work, fold) for work in works for fold in work.missing]
        self.all, self.done = len(self.waiting), 0

    def run(self, stack: ExitStack, parent_run: str) -> None:
        """Train all that is missing."""
        finished = sum(work.was_finished for work in self.works)
        if finished:
            self.say(f"{finished} of {counted(len(self.works), 'rival')} done already")
        if folds := sum(len({*work.wanted} & {*work.folds}) for work in self.works if not work.was_finished):
            self.say(f"done already: {counted(folds, 'fold')} of unfinished rivals")
        for work in self.works:
            if work.folds:
                work.keep_results()
            if not work.was_finished and not work.missing:
                work.start(stack, parent_run)
                finish_complete(self.works)
        self.project.engine.run(self._tasks(stack, parent_run))
        for work in self.works:
            if work.run and work.is_complete:
                work.run.sender.insist(work.finish_if_complete)

    def _tasks(self, stack: ExitStack, parent_run: str) -> Iterator[Task[TrainedFold] | None]:
        while self.waiting:
            ready = next((each for each in self.waiting if _is_ready(*each)), None)
            if ready is None:
                yield None
                continue
            self.waiting.remove(ready)
            work, fold = ready
            work.start(stack, parent_run)
            first = work.folds.get(work.data.numbers[0])
            if first is not None and first.learning_rate is None:
                self._fold_done(work, replace(first, fold=fold, seconds=0.0, history=[], trials=[]))
            else:
                yield self._task(work, fold)

    def _task(self, work: RivalWork, number: int) -> Task[TrainedFold]:
        first = work.folds.get(work.data.numbers[0])
        job = RivalJob(
            cohort=work.data.cohort,
            fold=next(fold for fold in work.data.labelled_folds if fold.number == number),
            params=self.project.params,
            rival=work.rival,
            learning_rate=first.learning_rate if first else None,
            trials=work.checkpoints.trials(number),
        )
        recorder: Recorder = TrialKeeper(work.run or SilentRecorder(), work.checkpoints)
        if self.lines is not None:
            plan = TrainingPlan(label=work.rival.label, epochs=self.project.params.rivals.epochs, may_stop_early=True)
            recorder = LineRecorder(recorder, self.lines, plan, beyond=self._left)
        return Task(work=train_rival_fold, job=job, recorder=recorder, done=lambda fold: self._fold_done(work, fold))

    def _fold_done(self, work: RivalWork, fold: TrainedFold) -> None:
        work.save(fold)
        self.done += 1
        scores = fold.failure or (
            f"AUC validation {fold.scores['validation_auc']:.3f} test {fold.scores['test_auc']:.3f}"
        )
        self.say(f"{work.rival.label} fold {fold.fold}: {scores}, {fold.seconds:,.0f} s | {self._left()}")
        finish_complete(self.works)

    def _left(self) -> str:
        return f"{self.done} of {self.all} folds done"


def _is_ready(work: RivalWork, fold: int) -> bool:
    """Say whether the first fold, whose learning rate serves all, is finished, or is this one."""
    first = work.data.numbers[0]
    return fold == first or first in work.folds


def _check_first_fold(work: RivalWork) -> None:
    first = work.data.numbers[0]
    if work.missing and first not in {*work.wanted, *work.folds}:
        raise UserError(f"{work.rival.label} takes the learning rate of fold {first}: add this fold")


def _tell_of_labels(data: DividedCohort, say: Say) -> None:
    """Say how many stays have no label, if there are some."""
    cohort = data.cohort
    if unlabelled := int((~cohort.labelled_N).sum()):
        say(
            f"{unlabelled:,} of {counted(len(cohort.stay_ids_N), 'stay')} have no label of {cohort.outcome}: rivals "
            "neither train nor are scored on them"
        )


def _check_static(data: DividedCohort, rivals: Sequence[Rival]) -> None:
    """Refuse rivals that read static facts on a cohort that has none."""
    readers = [rival.label for rival in rivals if rival.reads_static]
    cohort = data.cohort
    if readers and len(unknown_for_all(cohort.static, cohort.static_variables)) == len(cohort.static_variables):
        raise UserError(
            f"{readers[0]} reads static facts, and no stay of {data.origin.dataset} has one: choose input raw, or "
            "extract the cohort with them"
        )
