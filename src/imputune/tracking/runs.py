"""Tracked runs: one parent run for each command, with a child run for each fold."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from pydantic import JsonValue

from imputune import signals
from imputune.errors import UserError
from imputune.runtime.recorder import Trial
from imputune.tracking import store
from imputune.tracking.metric_names import stored_name
from imputune.tracking.provenance import flattened, source_tags
from imputune.tracking.run_details import NO_DETAILS, UNFINISHED, RunDetails, ended_early
from imputune.tracking.starting import adopt_run, new_run
from imputune.tracking.trials import log_trial

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
FLUSH_METRICS = 500
BATCH_PARAMS = 100  # mlflow's own limit
PARENT_TAG = "mlflow.parentRunId"
COMMAND_TAG = "imputune.command"
EXPERIMENT_TAG = "imputune.experiment"
DATASET_TAG = "imputune.dataset"
IMPUTER_TAG = "imputune.imputer"
FOLD_TAG = "imputune.fold"


@dataclass(kw_only=True)
class _FoldState:
    run_id: str
    next_step: int = 0
    finished: bool = False
    unsent: list[Metric] = field(default_factory=list)


class TrackedRun:
    """The run of one command: a runtime.recorder.Recorder that writes to MLflow by run id.

    There is no global active run. Points of curves wait in a buffer and are sent about every two seconds; points that
    could not be sent stay in it. Infinite metrics are stored as NaN, because stores replace infinity by a huge number.
    `source` holds the tags that say which code runs. Every method raises UserError when the store fails.
    """

    def __init__(
        self,
        *,
        client: MlflowClient,
        run: Run,
        fold_tags: Mapping[str, str],
        folds: Sequence[int],
        source: Mapping[str, str],
        details: RunDetails,
    ) -> None:
        self.run_id: str = run.info.run_id
        self.source = dict(source)
        self.tracking_uri: str = client.tracking_uri
        self.params: dict[str, str] = dict(run.data.params)
        self._client = client
        self._experiment_id = run.info.experiment_id
        self._fold_tags = dict(fold_tags)
        self._folds = tuple(folds)
        self._details = details
        self._started: dict[int, _FoldState] = {}
        self._last_flush = time.monotonic()
        self._result = ""

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Buffer one point of each curve of a fold; ValueError for an unknown or finished fold."""
        state = self._state(fold)
        state.unsent += _points(metrics, epoch)
        state.next_step = max(state.next_step, epoch + 1)
        unsent = sum(len(each.unsent) for each in self._started.values())
        if unsent >= FLUSH_METRICS or time.monotonic() - self._last_flush >= FLUSH_SECONDS:
            self._flush()

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Store a fold's final metrics, one step after its last epoch, and end its run as FINISHED."""
        state = self._state(fold)
        state.unsent += _points(metrics, state.next_step)
        self._flush()
        with store.failures(self.tracking_uri):
            self._client.set_terminated(state.run_id, "FINISHED")
        state.finished = True

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Store a trial of a fold's search as a run nested in the fold's run; see `trials.log_trial`."""
        state = self._state(fold)
        with store.failures(self.tracking_uri):
            tags = self._fold_tags | {PARENT_TAG: state.run_id}
            log_trial(self._client, self._experiment_id, trial, tags, self._details.columns)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Store metrics of the whole command, at once."""
        with store.failures(self.tracking_uri):
            self._client.log_batch(self.run_id, metrics=_points(metrics, 0), synchronous=True)

    def log_params(self, params: Mapping[str, JsonValue]) -> None:
        """Store nested parameters under dotted keys; a key that the run already has keeps its text."""
        missing = [(key, text) for key, text in flattened(params).items() if key not in self.params]
        with store.failures(self.tracking_uri):
            for start in range(0, len(missing), BATCH_PARAMS):
                batch = [Param(key, text) for key, text in missing[start : start + BATCH_PARAMS]]
                self._client.log_batch(self.run_id, params=batch, synchronous=True)
        self.params |= dict(missing)

    def describe(self, result: str) -> None:
        """Write the result, Markdown, into the run's description. A store that fails gives a warning, and no error.

        The description keeps it if the run fails or is killed afterwards.
        """
        self._result = result
        try:
            self._note(result)
        except UserError as error:
            logger.warning("run %s keeps its description without the result: %s", self.run_id, error)

    def log_picture(self, content: bytes, name: str) -> None:
        """Store a drawn figure as the artifact `name`, such as "figures/loss.png"."""
        folder, file = os.path.split(name)
        with store.failures(self.tracking_uri), TemporaryDirectory() as temporary:
            path = Path(temporary, file)
            path.write_bytes(content)
            self._client.log_artifact(self.run_id, str(path), folder or None)

    def log_text(self, text: str, name: str) -> None:
        """Store a text as the artifact `name`."""
        with store.failures(self.tracking_uri):
            self._client.log_text(self.run_id, text, name)

    def log_dict(self, content: Mapping[str, JsonValue], name: str) -> None:
        """Store a mapping as the artifact `name`, as JSON or YAML by its ending."""
        with store.failures(self.tracking_uri):
            self._client.log_dict(self.run_id, dict(content), name)

    def _state(self, fold: int) -> _FoldState:
        if fold not in self._folds:
            raise ValueError(f"fold must be one of {self._folds}, got {fold}")
        if fold not in self._started:
            tags = self._fold_tags | {PARENT_TAG: self.run_id, FOLD_TAG: str(fold)}
            with store.failures(self.tracking_uri):
                child = self._client.create_run(self._experiment_id, tags=tags, run_name=f"fold {fold}")
            self._started[fold] = _FoldState(run_id=child.info.run_id)
            columns = [Param(key, text) for key, text in self._details.columns.items()]
            with store.failures(self.tracking_uri):
                self._client.log_batch(child.info.run_id, params=columns, synchronous=True)
            self._log_cohorts(child.info.run_id)
        if self._started[fold].finished:
            raise ValueError(f"a finished fold must report nothing more, got a report of fold {fold}")
        return self._started[fold]

    def _note(self, result: str) -> None:
        for key, text in self._details.note_tag(result).items():
            with store.failures(self.tracking_uri):
                self._client.set_tag(self.run_id, key, text)

    def _log_cohorts(self, run_id: str) -> None:
        if cohorts := [cohort.as_dataset() for cohort in self._details.cohorts]:
            with store.failures(self.tracking_uri):
                self._client.log_inputs(run_id, datasets=cohorts)

    def _flush(self) -> None:
        with store.failures(self.tracking_uri):
            for state in self._started.values():
                while batch := state.unsent[:FLUSH_METRICS]:
                    self._client.log_batch(state.run_id, metrics=batch, synchronous=True)
                    del state.unsent[: len(batch)]
        self._last_flush = time.monotonic()

    def _end_folds(self, status: str) -> None:
        # The store is asked, because an interrupt can come between creating a fold's run and noting it in `_started`.
        running = f"tags.`{PARENT_TAG}` = '{self.run_id}' and attributes.status = 'RUNNING'"
        with store.failures(self.tracking_uri):
            for child in self._client.search_runs([self._experiment_id], running):
                self._client.set_terminated(child.info.run_id, status)

    def _end_parent(self, status: str) -> None:
        with store.failures(self.tracking_uri):
            self._client.set_terminated(self.run_id, status)

    def _endings(self, status: str) -> tuple[Callable[[], None], ...]:
        """Return the steps that end the run, in order."""
        return self._flush, lambda: self._end_folds(status), lambda: self._end_parent(status)

    def _abandon(self, status: str) -> None:
        """End the run as far as the store allows; raise nothing, so that the user sees the error that ended it."""
        failed: list[UserError] = []
        with signals.held(), store.impatient():
            for end in (*self._endings(status), lambda: self._note(ended_early(status, self._result))):
                try:
                    end()
                except UserError as error:
                    failed.append(error)
        if failed:
            logger.warning("run %s could not be ended as %s: %s", self.run_id, status, failed[0])


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
    with signals.held():
        if outer is not None and "DVC_STAGE" not in os.environ:
            started = adopt_run(client, outer, name)
        else:
            os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
            above = details.parent or outer
            tags_of_run = own_tags | ({} if above is None else {PARENT_TAG: above})
            started = new_run(client, experiment, tags_of_run, name, command)
        run = TrackedRun(client=client, run=started, fold_tags=own_tags, folds=folds, source=source, details=details)
        try:
            with signals.released():
                all_tags = own_tags | source | details.note_tag(UNFINISHED)
                entries = [RunTag(key, text) for key, text in all_tags.items()]
                with store.failures(uri):
                    client.log_batch(run.run_id, tags=entries, synchronous=True)
                run.log_params({**details.columns, **params})
                run._log_cohorts(run.run_id)
                yield run
            for end in run._endings("FINISHED"):
                end()
        except BaseException as reason:
            stopped = signals.asked() or isinstance(reason, KeyboardInterrupt)
            run._abandon("KILLED" if stopped else "FAILED")
            raise


def _points(metrics: Mapping[str, float], step: int) -> list[Metric]:
    now_ms = time.time_ns() // 1_000_000
    finite = {key: float(value) if math.isfinite(value) else math.nan for key, value in metrics.items()}
    return [Metric(stored_name(key), value, now_ms, step) for key, value in finite.items()]
