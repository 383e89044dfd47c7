"""The state of one variant during fine-tuning: inputs, finished folds, run, output."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from imputune import signals
from imputune.artifacts.checkpoints import Checkpoints
from imputune.artifacts.stage_files import read_fold, write_training
from imputune.artifacts.stage_output import MadeFrom, TrainedFold, TrainingOutput
from imputune.data.record_features import RecordScaler
from imputune.pipeline.blend_members import BlendMember
from imputune.pipeline.inputs import PretrainedImputer, finished_output
from imputune.pipeline.kept_results import keep_finished_variant, keep_variant
from imputune.pipeline.recording import log_curves, log_risks, log_summary, register_blend, register_classifier, replay
from imputune.pipeline.run_subject import divided_input, training_subject
from imputune.pipeline.tracked import end_run, track_training
from imputune.protocol.variants import Variant
from imputune.reporting.run_notes import auc_result
from imputune.tracking.interrupted import end_interrupted
from imputune.tracking.runs import TrackedRun
from imputune.training.finetune import build_classifier, new_head


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest:
    """What to fine-tune: variants, and which folds of them (None: all).

    again: train finished variants too. early_stopping: False trains every epoch of the budget, to show overfitting.
    options: those with which the command can be run again, by name.
    """

    variants: Sequence[Variant]
    folds: Sequence[int] | None = None
    again: bool = False
    early_stopping: bool = True
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VariantResult:
    """A variant's finished folds by number, and the run that tracked it, "" while folds are missing."""

    variant: Variant
    folds: dict[int, TrainedFold]
    run_id: str


class VariantWork:
    """A variant: finished already, or to be trained, checkpointed, tracked and written fold by fold.

    members: of a blend. folds: the finished ones by number. was_finished: whether the variant was finished before; its
    folds then have no weights.
    """

    def __init__(
        self,
        variant: Variant,
        imputer: PretrainedImputer,
        request: FinetuneRequest,
        *,
        members: Sequence[BlendMember] = (),
    ) -> None:
        """Look up what there is of the variant: its output, or folds of an interrupted try."""
        self.variant, self.imputer, self.request, self.members = variant, imputer, request, members
        project, data = imputer.project, imputer.data
        stage = "finetune" if request.early_stopping else "overfit"
        self.made_from: MadeFrom = imputer.variant_made_from(
            variant, stage, {each.variant.label: each.digest for each in members}
        )
        if members:  # a blend stands on the imputers of all its members
            further = {cohort.cohort_hash: cohort for each in members for cohort in each.imputer.also}
            self.made_from = self.made_from.model_copy(update={"also": tuple(further.values())})
        self.folder: Path = project.variant_folder(variant, early_stopping=request.early_stopping)
        # An overfitting run of some folds is complete with these; fine-tuning needs every fold.
        partial = request.folds if not request.early_stopping else None
        self.complete = set(partial or data.numbers)
        self.wanted = sorted(request.folds or self.complete)
        self.folds: dict[int, TrainedFold] = {}
        self.run_id = ""
        self.checkpoints = Checkpoints(project.unfinished_variant_folder(variant, stage), self.made_from)
        self.was_finished = False
        self._finished: TrainingOutput | None = None
        self._run: TrackedRun | None = None
        self._is_recorded = self._is_ended = False
        self._stack = ExitStack()
        self._look_up()

    @property
    def missing(self) -> list[int]:
        """The wanted folds that are not finished."""
        return [fold for fold in self.wanted if fold not in self.folds]

    @property
    def result(self) -> VariantResult:
        """The finished folds, in ascending order."""
        return VariantResult(self.variant, dict(sorted(self.folds.items())), self.run_id)

    @property
    def run(self) -> TrackedRun | None:
        """The run that tracks the variant; None before `start`, and if request and finished folds do not cover all."""
        return self._run

    @property
    def can_finish(self) -> bool:
        """Whether all folds are finished, and the run that tracks the variant has not ended."""
        return self._run is not None and not self._is_ended and self.complete <= set(self.folds)

    def start(self, stack: ExitStack, parent_run: str) -> None:
        """Open the variant's run, once it is sure to become complete, and record the folds finished before."""
        can_become_complete = not self.was_finished and self.complete <= set(self.wanted) | set(self.folds)
        if self._run is not None or not can_become_complete:
            return
        project, data = self.imputer.project, self.imputer.data
        subject = training_subject(self.made_from, [divided_input(data, "training")])
        if self.request.folds and not self.request.early_stopping:
            folds = ",".join(map(str, self.request.folds))
            subject = replace(subject, options={**subject.options, "fold": folds})
        with signals.held():  # until the stack ends the run, and the next command knows of it
            stack.enter_context(self._stack)
            run = self._stack.enter_context(track_training(project, self.made_from, data, subject, parent_run))
            self._run = run
            run.when_sent(self._note_run)
        for fold in self.folds.values():
            replay(run, fold)

    def save(self, fold: TrainedFold) -> None:
        """Keep a fold that was just finished."""
        self.checkpoints.save(fold)
        self.folds[fold.fold] = fold

    def finish_if_complete(self) -> None:
        """Write, register and end the variant, and write its committed scores, when all its folds are finished.

        Raises StoreUnavailableError while a server is away; called again, it goes on. Raises UserError if the end of
        the run could not be stored.
        """
        if self._run is None or not self.can_finish:
            return
        run, folds = self._run, [self.folds[number] for number in sorted(self.complete)]
        head_parameters, trainable = self._count_parameters()
        if not self._is_recorded:
            self._is_recorded = True
            self._record(run, folds, head_parameters, trainable)
        run.sender.drain()
        output = TrainingOutput(
            made_from=self.made_from,
            run_id=run.run_id,
            num_parameters=head_parameters,
            trainable_parameters=trainable,
            folds=tuple(fold.record for fold in folds),
        )
        write_training(self.folder, output, folds)
        if self.request.early_stopping:
            keep_variant(self.imputer, output, run)  # before the run ends: a run that ended has its file
        project, data = self.imputer.project, self.imputer.data
        if self.variant.is_blend:
            register_blend(run, project, data, folds, self.made_from)
        elif self.variant.is_registered and self.request.early_stopping:
            register_classifier(run, project, data, folds, self.made_from)
        self._is_ended = True
        run.describe(auc_result([fold.scores for fold in folds]))
        end_run(self._stack)
        run.when_sent(self.checkpoints.remove)

    def _note_run(self) -> None:
        """Note the run's id, for the next command too."""
        if self._run is not None:
            self.run_id = self.checkpoints.run_id = self._run.run_id

    def _record(
        self, run: TrackedRun, folds: Sequence[TrainedFold], head_parameters: int | None, trainable: int | None
    ) -> None:
        """Record the scores and figures of the finished variant in its run."""
        log_summary(run, self.made_from, folds)
        if head_parameters is not None and trainable is not None:
            run.log_metrics({"num_parameters": head_parameters, "trainable_parameters": trainable})
        if self.variant.is_neural:
            log_curves(run, folds, "loss")
            log_curves(run, folds, "auc")
        if self.request.early_stopping:
            log_risks(run, self.variant, self.imputer.data.cohort, folds)

    def keep_results(self) -> None:
        """Write the committed file of a variant that was finished before, where it is missing or of other settings."""
        if self._finished is not None and self.request.early_stopping:
            keep_finished_variant(self.imputer, self._finished)

    def _look_up(self) -> None:
        """Take the folds of the variant's output if it is finished, else those of its checkpoints.

        A command that was killed left the id of the variant's run among the checkpoints. If this run has ended, the
        variant is finished and its checkpoints are left over. If not, an output that the run wrote does not count.
        """
        interrupted = self.checkpoints.run_id
        has_ended = interrupted is not None and end_interrupted(self.imputer.project.root, interrupted)
        output = finished_output(self.folder, self.made_from) if has_ended or not self.request.again else None
        self.was_finished = output is not None and (has_ended or output.run_id != interrupted)
        if output is None or not self.was_finished:
            self.folds = self.checkpoints.begin()
            return
        if has_ended:
            self.checkpoints.remove()
        self._finished = output
        self.run_id = output.run_id
        self.folds = {fold.fold: read_fold(self.folder, output, fold.fold, with_weights=False) for fold in output.folds}

    def _count_parameters(self) -> tuple[int | None, int | None]:
        """Return the number of parameters of the head, and of everything trained; None for a non-neural head."""
        params, shape = self.imputer.project.params, self.imputer.data.cohort.values_NTD.shape
        if not self.variant.is_neural:
            return None, None
        first = self.folds[min(self.complete)].weights
        record = RecordScaler.from_arrays(first).size if self.variant.record_parts else 0
        head = sum(weight.numel() for weight in new_head(shape, params, self.variant, record=record).parameters())
        if self.variant.mode == "frozen":
            return head, head
        imputer = build_classifier(shape, params, self.variant).imputer
        return head, head + sum(weight.numel() for weight in imputer.parameters())
