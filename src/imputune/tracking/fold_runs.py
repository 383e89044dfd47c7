"""The runs of a command's folds, nested in its own run: curves, trials and final scores."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from imputune.runtime.recorder import Trial
from imputune.tracking.cohort_input import CohortInput
from imputune.tracking.delivery import Delivery
from imputune.tracking.metric_names import stored_name
from imputune.tracking.run_details import RunDetails
from imputune.tracking.starting import PARENT_TAG, PlannedRun
from imputune.tracking.trials import trial_steps

FLUSH_SECONDS = 2.0
FLUSH_METRICS = 500
BATCH_PARAMS = 100  # mlflow's own limit
FOLD_TAG = "imputune.fold"


@dataclass(kw_only=True)
class _FoldState:
    run: PlannedRun
    next_step: int = 0
    finished: bool = False
    unsent: list[Metric] = field(default_factory=list)


class FoldRuns:
    """Creates a run for each fold that reports, and records what it reports.

    Points of curves wait in a buffer and are sent at most every two seconds, and only when nothing waits; points that
    could not be sent stay in it. Methods raise UserError when the store fails, ValueError for a
    fold that is unknown or finished.
    """

    def __init__(
        self,
        client: MlflowClient,
        parent: PlannedRun,
        sender: Delivery,
        *,
        folds: Sequence[int],
        tags: Mapping[str, str],
        details: RunDetails,
    ) -> None:
        self._client, self._parent, self._sender = client, parent, sender
        self._folds, self._tags, self._details = tuple(folds), dict(tags), details
        self._started: dict[int, _FoldState] = {}
        self._last_flush = time.monotonic()

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Buffer one point of each curve of a fold."""
        state = self._state(fold)
        state.unsent += points_of(metrics, epoch)
        state.next_step = max(state.next_step, epoch + 1)
        unsent = sum(len(each.unsent) for each in self._started.values())
        is_due = unsent >= FLUSH_METRICS or time.monotonic() - self._last_flush >= FLUSH_SECONDS
        if is_due and self._sender.is_idle:
            self.flush()

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Store a fold's final metrics, one step after its last epoch, and end its run as FINISHED."""
        state = self._state(fold)
        state.unsent += points_of(metrics, state.next_step)
        self.flush()
        ended_ms = time.time_ns() // 1_000_000
        self._sender.put(lambda: self._client.set_terminated(state.run.run_id, "FINISHED", ended_ms))
        state.finished = True

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Store a trial of a fold's search as a run nested in the fold's run."""
        state = self._state(fold)
        for step in trial_steps(self._client, state.run, trial, self._tags, self._details.columns):
            self._sender.put(step)

    def flush(self) -> None:
        """Send the points in the buffer."""
        for state in self._started.values():
            while batch := state.unsent[:FLUSH_METRICS]:
                self._sender.put(partial(self._send_points, state.run, batch))
                del state.unsent[: len(batch)]
        self._last_flush = time.monotonic()

    def _state(self, fold: int) -> _FoldState:
        if fold not in self._folds:
            raise ValueError(f"fold must be one of {self._folds}, got {fold}")
        if fold not in self._started:
            run = PlannedRun(
                self._client,
                f"fold {fold}",
                experiment_id=lambda: self._parent.experiment_id,
                tags=lambda: self._tags | {PARENT_TAG: self._parent.run_id, FOLD_TAG: str(fold)},
            )
            self._sender.put(run.create)
            self._started[fold] = _FoldState(run=run)
            log_params(self._client, self._sender, run, self._details.columns)
            log_cohorts(self._client, self._sender, run, self._details.cohorts)
        if self._started[fold].finished:
            raise ValueError(f"a finished fold must report nothing more, got a report of fold {fold}")
        return self._started[fold]

    def _send_points(self, run: PlannedRun, points: Sequence[Metric]) -> None:
        # Sent again, the same points are stored once: key, time, step and value are the primary key of stored metrics.
        self._client.log_batch(run.run_id, metrics=points, synchronous=True)


def log_params(client: MlflowClient, sender: Delivery, run: PlannedRun, params: Mapping[str, str]) -> None:
    """Store a run's parameters, as many at a time as mlflow takes."""
    entries = [Param(key, text) for key, text in params.items()]
    for start in range(0, len(entries), BATCH_PARAMS):
        send = partial(client.log_batch, params=entries[start : start + BATCH_PARAMS], synchronous=True)
        sender.put(partial(_with_id, send, run))


def log_cohorts(client: MlflowClient, sender: Delivery, run: PlannedRun, cohorts: Sequence[CohortInput]) -> None:
    """Store the cohorts that a run reads."""
    if datasets := [cohort.as_dataset() for cohort in cohorts]:
        sender.put(lambda: client.log_inputs(run.run_id, datasets=datasets))


def points_of(metrics: Mapping[str, float], step: int) -> list[Metric]:
    """Return metrics as points of this moment; infinite ones become NaN."""
    now_ms = time.time_ns() // 1_000_000
    finite = {key: float(value) if math.isfinite(value) else math.nan for key, value in metrics.items()}
    return [Metric(stored_name(key), value, now_ms, step) for key, value in finite.items()]


def _with_id(send: Callable[[str], object], run: PlannedRun) -> None:
    send(run.run_id)
