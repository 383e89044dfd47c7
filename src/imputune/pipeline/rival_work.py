"""The state of one rival during its training: finished folds, run, output, its part of the committed file."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import imputune
from imputune import signals
from imputune.artifacts.checkpoints import Checkpoints
from imputune.artifacts.results_files import Code
from imputune.artifacts.rivals_file import (
    RivalFold,
    RivalResult,
    RivalsFile,
    rates_tried,
    read_rivals_file,
    write_rivals_file,
)
from imputune.artifacts.stage_files import PREDICTIONS, find_training, read_fold, weights_file, write_training
from imputune.artifacts.stage_output import MadeFrom, TrainedFold, TrainingOutput
from imputune.data.record_features import RecordScaler
from imputune.errors import UserError
from imputune.pipeline.project import DividedCohort, Project, rival_settings
from imputune.pipeline.recording import log_curves, log_summary, replay
from imputune.pipeline.run_subject import divided_input, rival_subject
from imputune.pipeline.tracked import end_run, track_rival
from imputune.protocol.rivals import Rival
from imputune.reporting.run_notes import auc_result
from imputune.tracking.interrupted import end_interrupted
from imputune.tracking.runs import TrackedRun
from imputune.training.rivals import new_rival


@dataclass(frozen=True, kw_only=True)
class RivalSummary:
    """A rival's finished folds by number, and the run that tracked it, "" while folds are missing."""

    rival: Rival
    folds: dict[int, TrainedFold]
    run_id: str


class RivalWork:
    """A rival: finished already, or to be trained, checkpointed, tracked and written fold by fold.

    wanted: the folds that are requested. folds: the finished ones by number; those of a rival that was finished before
    have no weights.
    """

    def __init__(
        self, project: Project, data: DividedCohort, rival: Rival, *, wanted: Sequence[int], again: bool
    ) -> None:
        """Look up what there is of the rival: its output, or folds of an interrupted command."""
        self.project, self.data, self.rival, self.wanted = project, data, rival, sorted(wanted)
        settings = rival_settings(project, rival)
        self.made_from = MadeFrom.at(data.head_origin, stage="rivals", imputer="", rival=rival, settings=settings)
        self.folder = project.rival_folder(rival)
        self.checkpoints = Checkpoints(project.unfinished_rival_folder(rival), self.made_from)
        self.folds: dict[int, TrainedFold] = {}
        self.run_id = ""
        self.run: TrackedRun | None = None
        self._is_recorded = self._is_ended = False
        self._parameters: int | None = None
        self._stack = ExitStack()
        self.was_finished = self._look_up(again)

    @property
    def missing(self) -> list[int]:
        """The wanted folds that are not finished."""
        return [fold for fold in self.wanted if fold not in self.folds]

    @property
    def summary(self) -> RivalSummary:
        """The finished folds, in ascending order."""
        return RivalSummary(rival=self.rival, folds=dict(sorted(self.folds.items())), run_id=self.run_id)

    @property
    def is_complete(self) -> bool:
        """Whether every fold of the cohort is finished."""
        return set(self.data.numbers) <= set(self.folds)

    def start(self, stack: ExitStack, parent_run: str) -> None:
        """Open the rival's run, if it will become complete, and record the folds finished before."""
        if self.run is not None or not set(self.data.numbers) <= {*self.wanted, *self.folds}:
            return
        subject = rival_subject(self.made_from, divided_input(self.data, "training"))
        with signals.held():  # until the stack ends the run, and the next command knows of it
            stack.enter_context(self._stack)
            run = self.run = self._stack.enter_context(
                track_rival(self.project, self.made_from, self.data, subject, parent_run)
            )
            run.when_sent(self._note_run)
        for fold in self.folds.values():
            replay(run, fold)

    def save(self, fold: TrainedFold) -> None:
        """Keep a fold that was just finished, and write its scores into the committed file."""
        self.checkpoints.save(fold)
        self.folds[fold.fold] = fold
        self.keep_results()

    def keep_results(self) -> None:
        """Write the folds so far into the committed file, unless it has them already."""
        file, result = self.file(), self._result()
        earlier = next((each for each in file.rivals if each.rival == self.rival), None)
        if earlier is None or not _is_in(result, earlier):
            write_rivals_file(self.project.rivals_results_file, file.with_result(result))

    def file(self) -> RivalsFile:
        """Return the committed file of the rivals, a new one if it is missing or of other data; UserError if broken."""
        path, file = self.project.rivals_results_file, RivalsFile.about(self.made_from)
        if not path.is_file():
            return file
        try:
            found = read_rivals_file(path)
        except UserError as error:
            raise UserError(f"{error}: restore it with git, or delete it") from None
        return found if found.is_of_data(file) else file

    def finish_if_complete(self) -> None:
        """Write and end the rival, when all its folds are finished.

        Raises StoreUnavailableError while a server is away; called again, it goes on. Raises UserError if the end of
        the run could not be stored.
        """
        run = self.run
        if run is None or self._is_ended or not self.is_complete:
            return
        folds = [self.folds[number] for number in self.data.numbers]
        scored = [fold for fold in folds if not fold.failure]
        if not self._is_recorded:
            self._is_recorded = True
            run.log_metrics({"failed_folds": len(folds) - len(scored)})
            if scored and (parameters := self._num_parameters()) is not None:
                run.log_metrics({"num_parameters": parameters})
                log_summary(run, self.made_from, scored)
                log_curves(run, scored, "loss")
                log_curves(run, scored, "auc")
        run.sender.drain()
        self.run_id = run.run_id
        output = TrainingOutput(
            made_from=self.made_from,
            run_id=run.run_id,
            num_parameters=self._num_parameters(),
            trainable_parameters=self._num_parameters(),
            folds=tuple(fold.record for fold in folds),
        )
        write_training(self.folder, output, folds)
        self.keep_results()  # before the run ends: a run that ended has its results in the file
        self._is_ended = True
        failures = "\n".join(f"Fold {fold.fold} failed: {fold.failure}" for fold in folds if fold.failure)
        run.describe(failures or auc_result([fold.scores for fold in scored]))
        end_run(self._stack)
        run.when_sent(self.checkpoints.remove)

    def _note_run(self) -> None:
        """Note the run's id, for the next command too."""
        if self.run is not None:
            self.checkpoints.run_id = self.run.run_id

    def _look_up(self, again: bool) -> bool:
        """Take the folds of the rival's output if it is finished, else those of its checkpoints; say which.

        A command that was killed left the id of the rival's run among the checkpoints. If this run has ended, the rival
        is finished and its checkpoints are left over. If not, an output that the run wrote does not count.
        """
        interrupted = self.checkpoints.run_id
        has_ended = interrupted is not None and end_interrupted(self.project.root, interrupted)
        output = self._finished_output() if has_ended or not again else None
        if output is None or not (has_ended or output.run_id != interrupted):
            self.folds = self.checkpoints.begin()
            return False
        if has_ended:
            self.checkpoints.remove()
        self.run_id = output.run_id
        self.folds = {fold.fold: read_fold(self.folder, output, fold.fold, with_weights=False) for fold in output.folds}
        self._parameters = output.num_parameters
        return True

    def _finished_output(self) -> TrainingOutput | None:
        """Return the rival's output if it is whole and was made from the data and settings of now."""
        output = find_training(self.folder)
        if output is None or output.made_from.differences(self.made_from):
            return None
        scored = [fold.fold for fold in output.folds if not fold.failure]
        files = [weights_file(self.folder, fold) for fold in scored] + [self.folder / PREDICTIONS] * bool(scored)
        return output if all(path.is_file() for path in files) else None

    def _num_parameters(self) -> int | None:
        """Return the number of the rival's trainable parameters, by the first fold with weights; None without one."""
        weights = next((fold.weights for _, fold in sorted(self.folds.items()) if fold.weights), None)
        if self._parameters is None and weights is not None:
            record = RecordScaler.from_arrays(weights).size if self.rival.reads_static else 0
            shape = self.data.cohort.values_NTD.shape
            rival = new_rival(shape, self.project.params, self.rival, record=record)
            self._parameters = sum(weight.numel() for weight in rival.parameters())
        return self._parameters

    def _result(self) -> RivalResult:
        records = [fold.record for _, fold in sorted(self.folds.items())]
        code = Code.of(
            self.run.source if self.run else {},
            version=imputune.__version__,
            device=self.project.engine.device(self.project.params.device),
        )
        return RivalResult(
            rival=self.rival,
            settings=self.made_from.settings,
            num_parameters=self._num_parameters(),
            learning_rate=next((fold.learning_rate for fold in records if fold.learning_rate), None),
            rates=rates_tried(records),
            folds=tuple(map(RivalFold.of, records)),
            run_id=self.run_id,
            code=code,
        )


def _is_in(result: RivalResult, earlier: RivalResult) -> bool:
    """Say whether the file has all folds of a rival's result already, whatever computed them."""
    same = earlier.settings == result.settings and result.run_id in ("", earlier.run_id)
    return same and all(fold in earlier.folds for fold in result.folds)
