import pytest
from mlflow import MlflowClient

from imputune.runtime.recorder import Trial
from imputune.tracking import trials
from imputune.tracking.history import finished_runs
from imputune.tracking.run_details import RunDetails
from imputune.tracking.runs import tracked_run


@pytest.mark.parametrize(
    ("state", "status", "name"), [("complete", "FINISHED", "trial 4"), ("pruned", "KILLED", "trial 4, pruned")]
)
def test_a_trial_is_a_run_nested_in_its_folds_run(root, monkeypatch, state, status, name):
    """Its learning rate, its curve and how it ended are stored; it is no run of the command itself."""
    monkeypatch.setattr(trials, "BATCH_METRICS", 2)
    curve = [{"train_loss": 1.0 / (epoch + 1), "validation_loss": 2.0} for epoch in range(3)]
    trial = Trial(number=4, learning_rate=0.002, state=state, validation_loss=2.0, curve=curve)
    tags = {"imputune.dataset": "synthetic"}
    details = RunDetails(columns={"head": "mlp2"})
    with tracked_run(
        root, experiment=state, command="finetune", params={}, tags=tags, folds=(1,), details=details
    ) as run:
        run.trial_finished(1, trial)
        run.fold_finished(1, {"test_auc": 0.5})
    client = MlflowClient(run.tracking_uri)
    experiment = client.get_run(run.run_id).info.experiment_id
    [fold] = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    [stored] = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{fold.info.run_id}'")
    assert (stored.info.run_name, stored.info.status) == (name, status)
    assert stored.data.params == {"head": "mlp2", "learning_rate": "0.002"}
    assert stored.data.tags["imputune.trial"] == "4"
    assert stored.data.tags["imputune.trial_state"] == state
    assert stored.data.tags["imputune.dataset"] == "synthetic"
    points = client.get_metric_history(stored.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    [found] = finished_runs(root, state, "finetune", "synthetic")
    assert (found.run_id, [each.fold for each in found.folds]) == (run.run_id, [1])
