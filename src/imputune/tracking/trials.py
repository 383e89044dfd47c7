"""Trials of a learning-rate search as runs, nested in the run of the fold that searched."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from imputune.runtime.recorder import Trial
from imputune.tracking.metric_names import stored_name
from imputune.tracking.outbox import Step
from imputune.tracking.starting import PARENT_TAG, PlannedRun

TRIAL_TAG = "imputune.trial"
STATE_TAG = "imputune.trial_state"
BATCH_METRICS = 1000  # mlflow's own limit


def trial_steps(
    client: MlflowClient, fold: PlannedRun, trial: Trial, tags: Mapping[str, str], columns: Mapping[str, str]
) -> Iterator[Step]:
    """Yield the steps that store a trial as a run, nested in a fold's run, with its learning rate and curve.

    A pruned trial ends as KILLED, and its name and a tag say that it was pruned. `columns` are further parameters. A
    step that is done again writes nothing twice; it passes on the errors of the client.
    """
    own_tags = {**tags, TRIAL_TAG: str(trial.number), STATE_TAG: trial.state}
    name = f"trial {trial.number}" + (", pruned" if trial.state == "pruned" else "")
    run = PlannedRun(
        client, name, experiment_id=lambda: fold.experiment_id, tags=lambda: own_tags | {PARENT_TAG: fold.run_id}
    )
    now_ms = time.time_ns() // 1_000_000
    points = [
        Metric(stored_name(name), value, now_ms, epoch)
        for epoch, row in enumerate(trial.curve)
        for name, value in row.items()
    ]
    params = [Param(name, text) for name, text in {**columns, "learning_rate": str(trial.learning_rate)}.items()]
    yield run.create
    yield lambda: client.log_batch(run.run_id, params=params, synchronous=True)
    for start in range(0, len(points), BATCH_METRICS):
        yield partial(_send, client, run, points[start : start + BATCH_METRICS])
    status = "FINISHED" if trial.state == "complete" else "KILLED"
    yield lambda: client.set_terminated(run.run_id, status, now_ms)


def _send(client: MlflowClient, run: PlannedRun, points: Sequence[Metric]) -> None:
    client.log_batch(run.run_id, metrics=points, synchronous=True)
