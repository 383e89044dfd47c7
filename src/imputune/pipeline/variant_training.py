"""Fine-tuning of several variants: order of the folds, parallel training, resuming."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from imputune import signals
from imputune.artifacts.checkpoints import TrialKeeper
from imputune.artifacts.stage_files import read_fold
from imputune.artifacts.stage_output import TrainedFold
from imputune.data.leaks import leak_notes
from imputune.data.static import unknown_for_all
from imputune.errors import UserError
from imputune.files import remove_leftovers
from imputune.pipeline.blend_members import BlendMember, find_members
from imputune.pipeline.inputs import PretrainedImputer, finished_output
from imputune.pipeline.kept_results import keep_finished_imputer
from imputune.pipeline.project import DividedCohort, Project, exclusive, read_divided_cohort
from imputune.pipeline.run_subject import divided_input, grid_subject
from imputune.pipeline.tracked import finish_complete, track
from imputune.pipeline.variant_work import FinetuneRequest, VariantResult, VariantWork
from imputune.protocol.choice import blend_members
from imputune.protocol.variants import Variant
from imputune.reporting.run_notes import variants_result
from imputune.runtime.console import counted, epoch_lines, warn
from imputune.runtime.epoch_lines import LineRecorder, TrainingPlan
from imputune.runtime.recorder import Recorder, SilentRecorder
from imputune.runtime.time_left import TimeLeft
from imputune.runtime.workers import Task
from imputune.settings.names import ImputerName
from imputune.tracking.runs import TrackedRun
from imputune.training.blend import BlendJob, blend_fold
from imputune.training.finetune import FinetuneJob, finetune_fold
from imputune.training.non_neural import fit_non_neural_fold

LOCK = "lock"
Say = Callable[[str], None]
"""Shows the user a line."""


def train_variants(project: Project, request: FinetuneRequest, say: Say, one_run: bool = True) -> list[VariantResult]:
    """Fine-tune what is requested and not finished yet; return the result of every requested variant.

    A variant is finished when its output was made from the data, folds, imputer and settings that the project has now.
    With `one_run`, a run tracks the command and the variants' runs are nested in it. `say` gets a line for every fold.
    Interrupted work, even by kill -9, continues with the missing folds.

    A blend's members are trained before it, if they are requested too.

    Raises UserError when no imputer was pretrained, it was trained on other variables, data or folds, a fold does not
    exist, a member of a blend is neither requested nor finished, or another command is fine-tuning the dataset.
    """
    data = read_divided_cohort(project).for_outcome(project.outcome)
    blended = blend_members(project.params.blend) if any(variant.is_blend for variant in request.variants) else []
    names = dict.fromkeys(variant.imputer for variant in request.variants)
    imputers = {
        name: PretrainedImputer.read(project, data, name)
        for name in names | dict.fromkeys(member.imputer for member in blended)
    }
    for number in request.folds or ():
        if number not in data.numbers:
            raise UserError(f"there is no fold {number}: choose from {', '.join(map(str, data.numbers))}")
    with exclusive(project.unfinished_folder / LOCK, f"fine-tuning {project.dataset}"), ExitStack() as stack:
        folders = [project.unfinished_folder]
        for name in names:
            folders += [project.heads_folder(name), project.overfit_folder(name)]
        for folder in folders:
            remove_leftovers(folder)
        for imputer in imputers.values():
            keep_finished_imputer(imputer)
        run = _track_command(project, data, request, stack) if one_run else None
        training = _VariantQueue(imputers, request, say, members=find_members(blended, imputers))
        training.run(stack, run.run_id if run else "")
        results = [work.result for work in training.works]
        if run:
            scores = {each.variant: [fold.scores for fold in each.folds.values()] for each in results}
            run.describe(variants_result(scores))
        return results


class _VariantQueue:
    """The variants of one command."""

    def __init__(
        self,
        imputers: Mapping[ImputerName, PretrainedImputer],
        request: FinetuneRequest,
        say: Say,
        *,
        members: Sequence[BlendMember],
    ) -> None:
        self.request, self.say = request, say
        first = next(iter(imputers.values()))
        self.project, self.data = first.project, first.data
        in_order = sorted(request.variants, key=lambda variant: (variant.is_blend, variant.mode != "frozen"))
        self.works = [
            VariantWork(variant, imputers[variant.imputer], request, members=members if variant.is_blend else ())
            for variant in in_order
        ]
        for work in self.works:
            self._check(work)
        self._check_static()
        self._tell_of_labels()
        self.left = TimeLeft(self.project.engine.at_once)
        self.lines = epoch_lines(say)

    def run(self, stack: ExitStack, parent_run: str) -> None:
        """Train all that is missing."""
        unfinished = [work for work in self.works if not work.was_finished]
        finished = len(self.works) - len(unfinished)
        if finished:
            of = f"{finished} of " if unfinished else "all " if finished > 1 else ""
            are = "is" if finished == 1 else "are"
            self.say(f"{of}{counted(len(self.works), 'variant')} {are} done already")
        if folds := sum(len({*work.wanted} & {*work.folds}) for work in unfinished):
            self.say(f"done already: {counted(folds, 'fold')} of unfinished variants")
        for work in self.works:
            work.keep_results()
            for fold in work.folds.values():
                self.left.took(work.variant, fold.seconds)
        for work in unfinished:
            if not work.missing:
                work.start(stack, parent_run)
                finish_complete(self.works)
        for work in unfinished:
            for number in work.missing:
                self.left.add(work.variant, number)
        self.project.engine.run(self._tasks(unfinished, stack, parent_run))
        for work in unfinished:
            if work.run and work.can_finish:
                work.run.sender.insist(work.finish_if_complete)
        for work in self.works:
            _tell_of_constant_risks(work)

    def _check(self, work: VariantWork) -> None:
        """Fail early if a variant needs a fold or a frozen variant that is neither requested nor finished."""
        searching = self._searching_fold(work.variant)
        if searching is not None and work.missing and searching not in {*work.wanted, *work.folds}:
            raise UserError(
                f"{work.variant.label} takes the learning rate of fold {searching}: add this fold, or set "
                f"schedules.optuna.{work.variant.mode}_scope to each_fold in params.yaml"
            )
        requested = [each.variant for each in self.works]
        for member in work.members if work.missing else ():
            if member.variant not in requested:
                member.check_finished(work.variant.label)
        frozen = work.variant.frozen
        if work.variant.mode == "frozen" or not work.missing or self._searching_fold(frozen) is None:
            return
        if frozen not in requested and not self._frozen_result(work, work.missing[0]):
            raise UserError(
                f"{work.variant.label} starts from {frozen.label}, and fold {self._searching_fold(frozen)} searches "
                "the learning rate of all its folds: fine-tune the frozen variant first, or both in one `imputune grid`"
            )

    def _check_static(self) -> None:
        """Refuse heads that read static facts on a cohort that has none; say which facts no stay has."""
        readers = [each.variant.label for each in self.works if each.missing and "static" in each.variant.record_parts]
        if not readers:
            return
        cohort = self.data.cohort
        unknown = unknown_for_all(cohort.static, cohort.static_variables)
        if len(unknown) == len(cohort.static_variables):
            raise UserError(
                f"{readers[0]} reads static facts, and no stay of {self.project.dataset} has one: choose an input "
                "without +static, or extract the cohort with them"
            )
        if unknown:
            self.say(f"no stay has {', '.join(unknown)}: heads do not use {'it' if len(unknown) == 1 else 'them'}")

    def _tell_of_labels(self) -> None:
        """Say how many stays have no label, and which variables may give the outcome away, if something is trained."""
        cohort = self.data.cohort
        if not any(work.missing for work in self.works):
            return
        if unlabelled := int((~cohort.labelled_N).sum()):
            self.say(
                f"{unlabelled:,} of {counted(len(cohort.stay_ids_N), 'stay')} have no label of {cohort.outcome}: heads "
                "neither train nor are scored on them"
            )
        for note in leak_notes(cohort, self.data.labelled_folds[0].train):
            self.say(f"note: {note}")

    def _tasks(self, works: list[VariantWork], stack: ExitStack, parent_run: str) -> Iterator[Task[TrainedFold] | None]:
        waiting = [(work, fold) for work in works for fold in work.missing]
        while waiting:
            ready = next((each for each in waiting if self._is_ready(*each)), None)
            if ready is None:
                yield None
                continue
            waiting.remove(ready)
            work, fold = ready
            work.start(stack, parent_run)
            self.left.start(work.variant, fold)
            yield self._task(work, fold)

    def _is_ready(self, work: VariantWork, fold: int) -> bool:
        """Say whether all that this fold starts from is finished."""
        if work.variant.is_blend:
            blended = [member.variant for member in work.members]
            return all(fold in each.folds for each in self.works if each.variant in blended)
        searching = self._searching_fold(work.variant)
        if searching not in (None, fold) and searching in work.missing:
            return False
        frozen = next((each for each in self.works if each.variant == work.variant.frozen and each is not work), None)
        return frozen is None or fold not in frozen.missing

    def _searching_fold(self, variant: Variant) -> int | None:
        """Return the fold whose learning rate serves all folds of a variant, if there is one."""
        optuna = self.project.params.schedules.optuna
        shared = variant.schedule == "optuna" and optuna.scope(variant.mode) == "first_fold"
        return self.data.numbers[0] if shared else None

    def _task(self, work: VariantWork, number: int) -> Task[TrainedFold]:
        if work.variant.is_blend:
            return self._blend_task(work, number)
        searching = self._searching_fold(work.variant)
        rate = None if searching in (None, number) else work.folds[searching].learning_rate
        job = FinetuneJob(
            cohort=self.data.cohort,
            fold=next(fold for fold in self.data.labelled_folds if fold.number == number),
            params=work.imputer.project.params,
            variant=work.variant,
            pretrained=work.imputer.weights[number],
            trials=work.checkpoints.trials(number),
            learning_rate=rate,
            frozen=self._frozen_result(work, number),
            early_stopping=self.request.early_stopping,
        )
        recorder = self._recorder(work)
        train = finetune_fold if work.variant.is_neural else fit_non_neural_fold
        return Task(work=train, job=job, recorder=recorder, done=lambda fold: self._fold_done(work, fold))

    def _recorder(self, work: VariantWork) -> Recorder:
        """Return what records a fold of a variant and, where no terminal has bars, tells of its epochs in lines."""
        recorder: Recorder = TrialKeeper(work.run or SilentRecorder(), work.checkpoints)
        if self.lines is None:
            return recorder
        budget = self.project.budget
        plan = TrainingPlan(
            label=work.variant.label,
            epochs=budget.frozen_epochs if work.variant.mode == "frozen" else budget.unfrozen_epochs,
            may_stop_early=self.request.early_stopping,
        )
        return LineRecorder(recorder, self.lines, plan, beyond=lambda: str(self.left))

    def _blend_task(self, work: VariantWork, number: int) -> Task[TrainedFold]:
        requested = {each.variant: each.folds for each in self.works}
        folds = {
            member.variant.label: requested[member.variant][number]
            if member.variant in requested
            else member.fold(number)
            for member in work.members
        }
        job = BlendJob(
            cohort=self.data.cohort,
            fold=number,
            params=self.project.params,
            predictions={label: fold.predictions for label, fold in folds.items()},
        )
        recorder: Recorder = work.run or SilentRecorder()
        return Task(work=blend_fold, job=job, recorder=recorder, done=lambda fold: self._fold_done(work, fold))

    def _frozen_result(self, work: VariantWork, number: int) -> TrainedFold | None:
        """Return the fold of the frozen variant that an unfrozen one starts from, where it is finished."""
        if work.variant.mode == "frozen":
            return None
        frozen = work.variant.frozen
        if self.request.early_stopping:
            for other in self.works:
                if other.variant == frozen and not other.was_finished and number in other.folds:
                    return other.folds[number]
        folder = self.project.variant_folder(frozen)
        finished = finished_output(folder, work.imputer.variant_made_from(frozen))
        return read_fold(folder, finished, number) if finished else None

    def _fold_done(self, work: VariantWork, fold: TrainedFold) -> None:
        work.save(fold)
        self.left.done(work.variant, fold.fold, fold.seconds)
        scores = f"validation {fold.scores['validation_auc']:.3f} test {fold.scores['test_auc']:.3f}"
        self.say(f"{work.variant.label} fold {fold.fold}: AUC {scores}, {fold.seconds:,.0f} s | {self.left}")
        finish_complete(self.works)


def _tell_of_constant_risks(work: VariantWork) -> None:
    """Warn of folds that give all test stays the same risk."""
    alike = [
        str(number)
        for number, fold in sorted(work.folds.items())
        if (risk := fold.predictions.loc[fold.predictions["split"] == "test", "risk"]).size > 1 and risk.nunique() == 1
    ]
    if not alike:
        return
    remedy = "there may be too few events"
    if work.variant.head == "xgboost":
        remedy += ", or non_neural.xgboost.min_child_weight in params.yaml is too high for them"
    folds = f"fold{'s' * (len(alike) > 1)} {', '.join(alike)}"
    warn(f"note: {work.variant.label} learned nothing in {folds}: all test stays have the same risk; {remedy}")


def _track_command(project: Project, data: DividedCohort, request: FinetuneRequest, stack: ExitStack) -> TrackedRun:
    """Track the whole command; return its run."""
    folds = "all" if request.folds is None else ",".join(map(str, request.folds))
    settings = {"variants": str(len(request.variants)), "folds": folds}
    subject = grid_subject(project, divided_input(data, "training"), request.variants, request.options)
    with signals.held():
        return stack.enter_context(track(project, subject, settings=settings))
