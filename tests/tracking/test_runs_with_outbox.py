"""Runs whose records pass through an outbox, as on a server; the store behind it is a file."""

import logging
from contextlib import contextmanager

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from imputune.errors import UserError
from imputune.tracking import outbox, runs
from imputune.tracking.outbox import Outbox
from imputune.tracking.run_details import RunDetails
from imputune.tracking.runs import tracked_run
from imputune.tracking.store import open_store
from imputune.tracking.store_failures import StoreUnavailableError

REFUSED = MlflowException("a value that no store takes")


@pytest.fixture
def client(root, monkeypatch):
    """The store's client, to which an outbox sends."""

    @contextmanager
    def with_outbox(uri):
        box = Outbox(uri)
        try:
            yield box, True
        finally:
            box.close()

    monkeypatch.setattr(runs, "delivery", with_outbox)
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.01)
    return MlflowClient(open_store(root))


def failing(method, failure, times):
    """Return a method that fails a few times before it works."""
    left = [failure] * times

    def call(*arguments, **options):
        if left:
            raise left.pop()
        return method(*arguments, **options)

    return call


def start(root):
    """Track a block as a run with a description."""
    return tracked_run(
        root, experiment="heads", command="finetune", params={}, tags={}, folds=(), details=RunDetails(doing="Trains.")
    )


def test_an_absence_at_the_very_end_loses_neither_the_end_nor_what_follows_it(root, client, monkeypatch):
    """Where nobody waits for a server, the end of the run that opened the outbox does; then its checkpoints go."""
    away = StoreUnavailableError("the store failed", "it answers with error 503")
    monkeypatch.setattr(MlflowClient, "set_terminated", failing(MlflowClient.set_terminated, away, 2))
    removed = []
    block = start(root)
    run = block.__enter__()
    with run.sender.not_waiting():
        run.describe("test AUC 0.5")
        block.__exit__(None, None, None)
        run.when_sent(lambda: removed.append(run.run_id))
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert removed == [run.run_id]


def test_a_refused_metric_is_not_taken_for_a_refused_description(root, client, monkeypatch, caplog):
    """The metric's failure ends the run as FAILED, with its description; no line says that the description is lost."""
    with pytest.raises(UserError, match="a value that no store takes"), start(root) as run:  # noqa: PT012
        run.sender.drain()
        monkeypatch.setattr(MlflowClient, "log_batch", failing(MlflowClient.log_batch, REFUSED, 1))
        run.log_metrics({"test_auc": 0.5})
        while not run.sender.is_idle:
            pass
        run.describe("test AUC 0.5")
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FAILED"
    assert "test AUC 0.5" in stored.data.tags["mlflow.note.content"]
    assert not caplog.records


def test_a_refused_description_is_a_warning(root, client, monkeypatch, caplog):
    """The result is stored elsewhere, so the run goes on and ends as FINISHED."""
    with start(root) as run:
        run.sender.drain()
        monkeypatch.setattr(MlflowClient, "set_tag", failing(MlflowClient.set_tag, REFUSED, 1))
        run.describe("test AUC 0.5")
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"run {run.run_id} keeps its description without the result" in caplog.text
