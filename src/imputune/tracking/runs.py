"""Tracked runs: one parent run for each command, with a child run for each fold."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.models.model import ModelInfo
from pydantic import JsonValue

from imputune import signals
from imputune.errors import UserError
from imputune.runtime.console import say_once
from imputune.runtime.recorder import Trial
from imputune.tracking import outbox, store
from imputune.tracking.delivery import Delivery, delivery
from imputune.tracking.fold_runs import FoldRuns, log_cohorts, log_params, points_of
from imputune.tracking.outbox import Step
from imputune.tracking.provenance import flattened, source_tags
from imputune.tracking.run_details import NO_DETAILS, UNFINISHED, RunDetails, ended_early
from imputune.tracking.starting import PARENT_TAG, PlannedRun, adopt_run, new_run
from imputune.tracking.store_failures import StoreUnavailableError, failures

logger = logging.getLogger(__name__)

COMMAND_TAG = "imputune.command"
EXPERIMENT_TAG = "imputune.experiment"
DATASET_TAG = "imputune.dataset"
IMPUTER_TAG = "imputune.imputer"


class TrackedRun:
    """The run of one command: a runtime.recorder.Recorder that writes to MLflow by run id.

    There is no global active run. Points of curves wait in a buffer and are sent at most every two seconds, and only
    when nothing waits; points that could not be sent stay in it. Infinite metrics are stored as NaN, because stores
    replace infinity by a huge number. `source` holds the tags that say which code runs. Every method raises UserError
    when the store fails; a server that is away is no failure, because what is recorded waits in the outbox of `sender`.
    `logged_bundles` holds, by registered name, each model that is stored in the run, and the checksum of its bundle.
    """

    def __init__(
        self,
        *,
        client: MlflowClient,
        run: PlannedRun,
        sender: Delivery,
        fold_tags: Mapping[str, str],
        folds: Sequence[int],
        source: Mapping[str, str],
        details: RunDetails,
    ) -> None:
        self.sender = sender
        self.source = dict(source)
        self.tracking_uri: str = client.tracking_uri
        self.params: dict[str, str] = run.params
        self.logged_bundles: dict[str, tuple[ModelInfo, str]] = {}
        self.is_left_running = False  # whether its end could not be stored
        self._client = client
        self._run = run
        self._details = details
        self._folds = FoldRuns(client, run, sender, folds=folds, tags=fold_tags, details=details)
        self._result = ""

    @property
    def run_id(self) -> str:
        """The run's id; ValueError while its creation waits for a server, see `when_sent`."""
        return self._run.run_id

    def when_sent(self, step: Step) -> None:
        """Do a step as soon as everything that was recorded before is in the store; a thread may do it."""
        self.sender.then(step)

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Buffer one point of each curve of a fold; ValueError for an unknown or finished fold."""
        self._folds.epoch(fold, epoch, metrics)

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Store a fold's final metrics, one step after its last epoch, and end its run as FINISHED."""
        self._folds.fold_finished(fold, metrics)

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Store a trial of a fold's search as a run nested in the fold's run; see `trials.trial_steps`."""
        self._folds.trial_finished(fold, trial)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Store metrics of the whole command."""
        points = points_of(metrics, 0)
        self.sender.put(lambda: self._client.log_batch(self.run_id, metrics=points, synchronous=True))

    def log_params(self, params: Mapping[str, JsonValue]) -> None:
        """Store nested parameters under dotted keys; a key that the run already has keeps its text."""
        missing = {key: text for key, text in flattened(params).items() if key not in self.params}
        log_params(self._client, self.sender, self._run, missing)
        self.params |= missing

    def describe(self, result: str) -> None:
        """Write the result, Markdown, into the run's description; a store that refuses it gives a warning.

        The description keeps it if the run fails or is killed afterwards. Raises UserError if an earlier record failed.
        """
        self._result = result
        self._note(result, is_required=False)

    def log_picture(self, content: bytes, name: str) -> None:
        """Store a drawn figure as the artifact `name`, such as "figures/loss.png"."""
        folder, file = os.path.split(name)

        def send() -> None:
            with TemporaryDirectory() as temporary:
                path = Path(temporary, file)
                path.write_bytes(content)
                self._client.log_artifact(self.run_id, str(path), folder or None)

        self.sender.put(send)

    def log_text(self, text: str, name: str) -> None:
        """Store a text as the artifact `name`."""
        self.sender.put(lambda: self._client.log_text(self.run_id, text, name))

    def log_dict(self, content: Mapping[str, JsonValue], name: str) -> None:
        """Store a mapping as the artifact `name`, as JSON or YAML by its ending."""
        copy = dict(content)
        self.sender.put(lambda: self._client.log_dict(self.run_id, copy, name))

    def _begin(self, tags: Mapping[str, str], params: Mapping[str, JsonValue]) -> None:
        """Store what is known when the run begins."""
        entries = [RunTag(key, text) for key, text in {**tags, **self._details.note_tag(UNFINISHED)}.items()]
        self.sender.put(lambda: self._client.log_batch(self.run_id, tags=entries, synchronous=True))
        self.log_params({**self._details.columns, **params})
        log_cohorts(self._client, self.sender, self._run, self._details.cohorts)

    def _note(self, result: str, *, is_required: bool = True) -> None:
        for key, text in self._details.note_tag(result).items():
            self.sender.put(partial(self._tag, key, text, is_required=is_required))

    def _tag(self, key: str, text: str, *, is_required: bool) -> None:
        try:
            with failures(self.tracking_uri):
                self._client.set_tag(self.run_id, key, text)
        except UserError as error:
            if is_required or isinstance(error, StoreUnavailableError):  # the outbox tries again
                raise
            logger.warning("run %s keeps its description without the result: %s", self._run, error)

    def _end_folds(self, status: str) -> None:
        # The store is asked, because an interrupt can come between creating a fold's run and noting it in `FoldRuns`.
        running = f"tags.`{PARENT_TAG}` = '{self.run_id}' and attributes.status = 'RUNNING'"
        for child in self._client.search_runs([self._run.experiment_id], running):
            self._client.set_terminated(child.info.run_id, status)

    def _endings(self, status: str) -> tuple[Callable[[], None], ...]:
        """Return the steps that end the run, in order."""
        ended_ms = time.time_ns() // 1_000_000
        return (
            self._folds.flush,
            lambda: self.sender.put(lambda: self._end_folds(status)),
            lambda: self.sender.put(lambda: self._client.set_terminated(self.run_id, status, ended_ms)),
        )

    def _abandon(self, status: str) -> None:
        """End the run as far as the store allows; raise nothing, so that the user sees the error that ended it."""
        if self.sender.is_away:
            self._leave()
            say_once("the runs of this command stay marked as running until the next command of its kind ends them")
            return
        failed: list[UserError] = []
        with signals.held(), store.impatient():
            note = partial(self._note, ended_early(status, self._result))
            drain = partial(self.sender.drain, store.ENDING_SECONDS)
            ends: list[Callable[[], None]] = [*self._endings(status), note, drain]
            for end in ends:
                try:
                    end()
                except UserError as error:
                    failed.append(error)
        if failed:
            self._leave()
            logger.warning("run %s could not be ended as %s: %s", self._run, status, failed[0])

    def _leave(self) -> None:
        """Leave the run as it is in the store: running, until the next command of its kind ends it."""
        self.is_left_running = True
        self.sender.give_up()


@contextmanager
def tracked_run(
    root: Path,
    *,
    experiment: str,
    command: str,
    params: Mapping[str, JsonValue],
    tags: Mapping[str, str],
    folds: Sequence[int],
    details: RunDetails = NO_DETAILS,
) -> Iterator[TrackedRun]:
    """Track the block as one run of `command`, ended as FINISHED, KILLED (by a stop) or FAILED.

    Under `mlflow run`, the run that mlflow created is used, with its own experiment and parameters. Elsewhere, also
    under `dvc repro`, a run is created in `experiment`; if `mlflow run` started dvc, mlflow's run becomes its parent,
    unless `details` names another. MLFLOW_RUN_ID is always removed from the environment. Only `folds` may report. The
    run and its folds get `tags`, the command and the experiment as tags; `finished_runs` finds runs by these and by
    `imputune.dataset`. `details` are what the MLflow UI shows of the run. mlflow's run gets our name, unless somebody
    has named it.

    Raises UserError when the store fails or does not hold mlflow's run; passes on what the block raises.
    """
    outer = os.environ.pop("MLFLOW_RUN_ID", None)
    uri = store.open_store(root)
    client = MlflowClient(uri)
    own_tags = {**tags, COMMAND_TAG: command, EXPERIMENT_TAG: experiment}
    source, name = source_tags(root), details.name or command
    with signals.held(), delivery(uri) as (sender, is_first):
        if outer is not None and "DVC_STAGE" not in os.environ:
            planned = PlannedRun.existing(client, adopt_run(client, outer, name))
        else:
            os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
            above = details.parent or outer
            tags_of_run = own_tags | ({} if above is None else {PARENT_TAG: above})
            planned = new_run(client, experiment, tags_of_run, name, command)
            if is_first:
                with failures(uri):
                    planned.create()
            else:
                sender.put(planned.create)
        run = TrackedRun(
            client=client,
            run=planned,
            sender=sender,
            fold_tags=own_tags,
            folds=folds,
            source=source,
            details=details,
        )
        try:
            with signals.released():
                run._begin(own_tags | source, params)
                yield run
            for end in run._endings("FINISHED"):
                end()
            if is_first:
                with signals.released():
                    sender.drain(outbox.PATIENCE_SECONDS)  # also inside `not_waiting`: nobody comes back to this run
        except BaseException as reason:
            stopped = signals.asked() or isinstance(reason, KeyboardInterrupt)
            run._abandon("KILLED" if stopped else "FAILED")
            raise
