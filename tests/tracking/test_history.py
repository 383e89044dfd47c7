import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from imputune.tracking import history, store
from imputune.tracking.history import FoldRun, finished_runs
from imputune.tracking.runs import tracked_run


def record(root, experiment, seed, dataset="synthetic", command="finetune"):
    """Track a finished run with two folds and return its id."""
    tags = {"imputune.dataset": dataset}
    with tracked_run(
        root, experiment=experiment, command=command, params={"seed": seed}, tags=tags, folds=(0, 1)
    ) as run:
        for fold in (1, 0):
            run.fold_finished(fold, {"test_auc": (seed + fold) / 8})
        run.log_metrics({"seconds": 2.0})
    return run.run_id


def test_finished_runs_come_newest_first_with_their_folds(root, monkeypatch):
    """Every finished run of the command and dataset is read, over several pages, with ascending folds."""
    monkeypatch.setattr(history, "PAGE_RUNS", 2)
    ids = [record(root, "pages", seed) for seed in range(3)]
    record(root, "pages", 3, dataset="physionet2012")
    record(root, "pages", 4, command="pretrain")
    record(root, "other", 5)
    found = finished_runs(root, "pages", "finetune", "synthetic")
    assert [run.run_id for run in found] == ids[::-1]
    newest = found[0]
    assert newest.params == {"seed": "2"}
    assert newest.metrics == {"seconds": 2.0}
    assert newest.tags["imputune.dataset"] == "synthetic"
    assert newest.folds == (FoldRun(0, {"test_auc": 0.25}), FoldRun(1, {"test_auc": 0.375}))


def test_runs_of_earlier_versions_are_read(root):
    """Metrics that were stored without a group, as validation_auc, are found by that name."""
    client = MlflowClient(store.open_store(root))
    experiment = store.experiment(client.tracking_uri, "old")
    common = {"imputune.experiment": "old", "imputune.command": "finetune", "imputune.dataset": "synthetic"}
    parent = client.create_run(experiment, tags=common).info.run_id
    fold = client.create_run(experiment, tags=common | {"imputune.fold": "0", "mlflow.parentRunId": parent})
    for run_id, metrics in ((parent, {"seconds": 2.0}), (fold.info.run_id, {"validation_auc": 0.75, "test_auc": 0.5})):
        client.log_batch(run_id, metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()])
        client.set_terminated(run_id, "FINISHED")
    [found] = finished_runs(root, "old", "finetune", "synthetic")
    assert found.metrics == {"seconds": 2.0}
    assert found.folds == (FoldRun(0, {"validation_auc": 0.75, "test_auc": 0.5}),)


def test_failed_and_deleted_runs_are_skipped(root):
    """Only runs that finished and still exist can be compared."""
    kept = record(root, "skipped", 0)
    deleted = record(root, "skipped", 1)
    MlflowClient(store.open_store(root)).delete_run(deleted)
    tags = {"imputune.dataset": "synthetic"}
    with (
        pytest.raises(ValueError, match="diverged"),
        tracked_run(root, experiment="skipped", command="finetune", params={}, tags=tags, folds=(0,)),
    ):
        raise ValueError("diverged")
    assert [run.run_id for run in finished_runs(root, "skipped", "finetune", "synthetic")] == [kept]


def test_runs_started_by_mlflow_run_are_found(root, monkeypatch):
    """A run that mlflow put into the Default experiment is read by its tags."""
    adopted = MlflowClient(store.open_store(root)).create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", adopted)
    assert record(root, "heads", 0) == adopted
    (found,) = finished_runs(root, "heads", "finetune", "synthetic")
    assert found.run_id == adopted
    assert [fold.fold for fold in found.folds] == [0, 1]


def test_nothing_tracked_yet_is_an_empty_list(root):
    """An experiment that does not exist has no runs."""
    assert finished_runs(root, "never used", "finetune", "synthetic") == []
