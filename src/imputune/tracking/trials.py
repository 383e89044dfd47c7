"""Trials of a learning-rate search as runs, nested in the run of the fold that searched."""

import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from imputune.runtime.recorder import Trial
from imputune.tracking.metric_names import stored_name

TRIAL_TAG = "imputune.trial"
STATE_TAG = "imputune.trial_state"
BATCH_METRICS = 1000  # mlflow's own limit


def log_trial(
    client: MlflowClient, experiment_id: str, trial: Trial, tags: Mapping[str, str], columns: Mapping[str, str]
) -> None:
    """Store a trial as a run with its learning rate and curve.

    A pruned trial ends as KILLED, and its name and a tag say that it was pruned. `tags` go to the run and name its
    parent; `columns` are further parameters. Passes on the errors of the client.
    """
    own_tags = {TRIAL_TAG: str(trial.number), STATE_TAG: trial.state}
    run_name = f"trial {trial.number}" + (", pruned" if trial.state == "pruned" else "")
    run_id = client.create_run(experiment_id, tags={**tags, **own_tags}, run_name=run_name).info.run_id
    now_ms = time.time_ns() // 1_000_000
    points = [
        Metric(stored_name(name), value, now_ms, epoch)
        for epoch, row in enumerate(trial.curve)
        for name, value in row.items()
    ]
    params = {**columns, "learning_rate": str(trial.learning_rate)}
    client.log_batch(run_id, params=[Param(name, text) for name, text in params.items()], synchronous=True)
    for start in range(0, len(points), BATCH_METRICS):
        client.log_batch(run_id, metrics=points[start : start + BATCH_METRICS], synchronous=True)
    client.set_terminated(run_id, "FINISHED" if trial.state == "complete" else "KILLED")
