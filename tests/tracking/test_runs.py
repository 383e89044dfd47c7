import logging
import math
import os
import shutil
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param

from imputune.errors import UserError
from imputune.tracking import fold_runs, store
from imputune.tracking.runs import tracked_run

TAGS = {"imputune.dataset": "synthetic"}


def start(root, params=None, experiment="heads", folds=(0, 1)):
    """Return a tracked run of finetune on the synthetic cohort, not entered yet."""
    return tracked_run(root, experiment=experiment, command="finetune", params=params or {}, tags=TAGS, folds=folds)


def folds_of(run):
    """Return the fold runs of a parent by fold."""
    client = MlflowClient(run.tracking_uri)
    experiment = client.get_run(run.run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    return {int(child.data.tags["imputune.fold"]): child for child in children}


@pytest.fixture
def client(root):
    """A client of the module's store."""
    return MlflowClient(store.open_store(root))


@pytest.fixture
def breakable(client, root, tmp_path):
    """A copy of the module's store, which a test may break."""
    shutil.copy(root / "mlflow.db", tmp_path)
    return tmp_path


@pytest.fixture
def outer(client, monkeypatch):
    """The run and the environment that `mlflow run` hands to a command."""
    run = client.create_run("0", tags={"mlflow.source.type": "PROJECT"})
    client.log_batch(run.info.run_id, params=[Param("head", "mlp2"), Param("learning_rate", "1e-3")])
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    return run.info.run_id


def test_parent_and_a_child_per_reporting_fold_finish(root, client):
    """Each fold that reports gets a nested run with its curve and final scores; a silent fold gets none."""
    with start(root, {"seed": 7, "csai": {"hidden_size": 108}}, folds=(0, 1, 2)) as run:
        for epoch in range(3):
            run.epoch(0, epoch, {"train_loss": 1.0 - epoch / 4, "validation_auc": 0.9})
            run.epoch(1, epoch, {"train_loss": 2.0})
        assert folds_of(run)[1].info.status == "RUNNING"
        run.fold_finished(1, {"test_auc": 0.75})
        assert folds_of(run)[1].info.status == "FINISHED"
        run.fold_finished(0, {"test_auc": 0.5, "validation_auc": 0.625})
        run.log_metrics({"test_auc_mean": 0.625})
    parent = client.get_run(run.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"seed": "7", "csai.hidden_size": "108"}
    assert parent.data.metrics == {"test/auc_mean": 0.625}
    assert parent.data.tags["imputune.command"] == "finetune"
    assert parent.data.tags["imputune.dataset"] == "synthetic"
    assert parent.data.tags["imputune.python"].startswith("3.")
    children = folds_of(run)
    assert {fold: child.info.run_name for fold, child in children.items()} == {0: "fold 0", 1: "fold 1"}
    assert {child.info.status for child in children.values()} == {"FINISHED"}
    assert children[0].data.metrics == {"train/loss": 0.5, "validation/auc": 0.625, "test/auc": 0.5}
    history = client.get_metric_history(children[0].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 0.75), (2, 0.5)]


@pytest.mark.parametrize(("reason", "status"), [(ValueError("diverged"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_exception_marks_the_run_and_is_passed_on(root, client, reason, status):
    """Parent and unfinished folds are marked, buffered points arrive, finished folds stay FINISHED."""
    with pytest.raises(type(reason)) as caught, start(root) as run:  # noqa: PT012 the block is tested
        run.epoch(0, 0, {"train_loss": 0.5})
        run.fold_finished(1, {"test_auc": 0.75})
        run.epoch(0, 1, {"train_loss": 0.25})
        raise reason
    assert caught.value is reason
    assert client.get_run(run.run_id).info.status == status
    children = folds_of(run)
    assert {fold: child.info.status for fold, child in children.items()} == {0: status, 1: "FINISHED"}
    assert children[0].data.metrics == {"train/loss": 0.25}


def test_broken_store_does_not_hide_why_the_block_failed(breakable, caplog):
    """When the store breaks too, the block's own exception is raised, with one warning about the store."""
    with pytest.raises(ValueError, match="diverged"), start(breakable) as run:  # noqa: PT012 as above
        run.epoch(0, 0, {"train_loss": 0.5})
        (breakable / "mlflow.db").write_bytes(b"not a database" * 100_000)
        raise ValueError("diverged")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"run {run.run_id} could not be ended as FAILED" in caplog.text


def test_store_that_breaks_during_the_run_is_a_user_error(breakable):
    """A command whose scores cannot be stored fails with one line."""
    with pytest.raises(UserError, match=r"mlflow\.db failed"), start(breakable) as run:  # noqa: PT012 as above
        (breakable / "mlflow.db").write_bytes(b"not a database" * 100_000)
        run.fold_finished(0, {"test_auc": 0.75})


STOPPED_IN_A_COMMIT = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from imputune import signals
from imputune.tracking.runs import tracked_run

signals.LONGEST_SECONDS = 60  # the machine may be busy
signals.install()
signals.loaded()
armed = False

@event.listens_for(Engine, "after_cursor_execute")
def stop(*arguments):
    global armed
    if armed:
        armed = False
        os.kill(os.getpid(), signal.SIGTERM)

with tracked_run(
    Path(sys.argv[1]), experiment="stopped", command="pretrain", params={}, tags={}, folds=[0]
) as run:
    armed = True
    run.log_metrics({"seconds": 1.0})
    print("too far")
"""


@pytest.mark.slow
def test_a_stop_in_the_middle_of_a_commit_leaves_a_marked_run(tmp_path):
    """The commit ends first, so that the store is not locked when the run is marked."""
    words = [sys.executable, "-c", STOPPED_IN_A_COMMIT, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.stdout == ""
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "locked" not in done.stderr
    client = MlflowClient(store.open_store(tmp_path))
    [run] = client.search_runs([client.get_experiment_by_name("stopped").experiment_id])
    assert (run.info.status, run.data.metrics) == ("KILLED", {"seconds": 1.0})


def test_run_of_mlflow_run_is_adopted(root, client, outer):
    """The run that MLFLOW_RUN_ID names is used, in its experiment; parameters it already has keep their text."""
    with start(root, {"head": "mlp2", "learning_rate": 0.001, "seed": 7}, experiment="elsewhere") as run:
        assert "MLFLOW_RUN_ID" not in os.environ
        run.epoch(0, 0, {"train_loss": 0.5})
    assert run.run_id == outer
    adopted = client.get_run(outer)
    assert adopted.info.status == "FINISHED"
    assert adopted.data.params == {"head": "mlp2", "learning_rate": "1e-3", "seed": "7"} == run.params
    assert adopted.data.tags["mlflow.source.type"] == "PROJECT"
    assert adopted.data.tags["imputune.experiment"] == "elsewhere"
    assert folds_of(run)[0].info.experiment_id == "0"
    assert client.get_experiment_by_name("elsewhere") is None


def test_stage_of_dvc_inside_mlflow_run_gets_its_own_run(root, client, outer, monkeypatch):
    """Under dvc the outer run is not adopted: it becomes the parent of a new run in the given experiment."""
    monkeypatch.setenv("DVC_STAGE", "finetune@mlp2")
    with start(root) as run:
        assert "MLFLOW_RUN_ID" not in os.environ
        assert "MLFLOW_EXPERIMENT_ID" not in os.environ
    nested = client.get_run(run.run_id)
    assert run.run_id != outer
    assert nested.data.tags["mlflow.parentRunId"] == outer
    assert nested.info.experiment_id == client.get_experiment_by_name("heads").experiment_id
    assert client.get_run(outer).info.status == "RUNNING"


def test_stage_of_dvc_alone_gets_a_run_without_parent(root, client, monkeypatch):
    """Under plain dvc repro there is no outer run."""
    monkeypatch.setenv("DVC_STAGE", "finetune@mlp2")
    with start(root) as run:
        pass
    tags = client.get_run(run.run_id).data.tags
    assert "mlflow.parentRunId" not in tags
    assert tags["mlflow.source.name"] == "imputune finetune"


def test_run_to_adopt_must_exist(root, monkeypatch):
    """The error for a stale MLFLOW_RUN_ID names it and the remedy."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(UserError, match=r"has no run 0{32} .*unset MLFLOW_RUN_ID"), start(root):
        pass


def test_params_logged_again_in_another_form_do_not_raise(root, client):
    """A parameter keeps its first text, and more than one batch of parameters can be stored."""
    with start(root, {"learning_rate": "1e-3"}) as run:
        run.log_params({"learning_rate": 0.001, "many": {f"p{n:03}": n for n in range(150)}})
    params = client.get_run(run.run_id).data.params
    assert params["learning_rate"] == "1e-3"
    assert params["many.p149"] == "149"
    assert len(params) == 151


def test_undefined_and_infinite_metrics_are_stored_as_nan(root):
    """Neither NaN nor infinity stops a run or becomes a number."""
    with start(root) as run:
        run.epoch(0, 0, {"train_loss": math.inf, "validation_auc": math.nan})
        run.fold_finished(0, {"test_auc": -math.inf})
    metrics = folds_of(run)[0].data.metrics
    assert sorted(metrics) == ["test/auc", "train/loss", "validation/auc"]
    assert all(math.isnan(value) for value in metrics.values())


def test_points_wait_in_a_buffer_of_limited_size(root, monkeypatch):
    """Fewer than 500 points wait in the buffer, more are sent before the run ends."""
    monkeypatch.setattr(fold_runs, "FLUSH_SECONDS", 3600.0)
    with start(root) as run:
        run.epoch(0, 0, {f"m{n}": 1.0 for n in range(100)})
        assert folds_of(run)[0].data.metrics == {}
        run.epoch(0, 1, {f"m{n}": 2.0 for n in range(400)})
        assert len(folds_of(run)[0].data.metrics) == 400


def test_points_wait_for_a_limited_time(root, monkeypatch):
    """Once the waiting time is over, the next point sends the buffer."""
    monkeypatch.setattr(fold_runs, "FLUSH_SECONDS", 0.0)
    with start(root) as run:
        run.epoch(0, 0, {"train_loss": 0.5})
        assert folds_of(run)[0].data.metrics == {"train/loss": 0.5}


def test_reports_of_unknown_and_finished_folds_are_refused(root):
    """An unknown fold and a report after a fold's end are programming errors."""
    with start(root) as run:
        with pytest.raises(ValueError, match=r"fold must be one of \(0, 1\), got 2"):
            run.epoch(2, 0, {"train_loss": 0.5})
        run.fold_finished(0, {"test_auc": 0.75})
        with pytest.raises(ValueError, match="got a report of fold 0"):
            run.fold_finished(0, {"test_auc": 0.75})


def test_artifacts_are_stored_under_their_names(root):
    """Figures, texts and dictionaries are written to the run's folder beside the store."""
    with start(root) as run:
        run.log_picture(b"\x89PNG", "figures/loss.png")
        run.log_picture(b"\x89PNG", "whole.png")
        run.log_text("two\nlines", "note.txt")
        run.log_dict({"auc": 0.5}, "scores.json")
    [folder] = root.glob(f"mlruns/*/{run.run_id}/artifacts")
    assert [(folder / name).read_bytes() for name in ("figures/loss.png", "whole.png")] == [b"\x89PNG"] * 2
    assert (folder / "note.txt").read_text() == "two\nlines"
    assert '"auc": 0.5' in (folder / "scores.json").read_text()
