import os
import shutil
import signal
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from imputune.errors import UserError
from imputune.tracking import database, store
from imputune.tracking.address import check_address
from imputune.tracking.starting import adopt_run
from imputune.tracking.store_failures import failures
from projects import hear_interrupts

ONE_OF_FOUR = """
import sys
from pathlib import Path
from imputune.tracking.runs import tracked_run

tags = {"number": sys.argv[2]}
with tracked_run(
    Path(sys.argv[1]), experiment="heads", command="finetune", params={}, tags=tags, folds=[0, 1]
) as run:
    for epoch in range(300):
        for fold in (0, 1):
            run.epoch(fold, epoch, {"train_loss": epoch + fold / 2})
    for fold in (0, 1):
        run.fold_finished(fold, {"test_auc": 0.75})
"""

INTERRUPTED = """
import sys, time
from pathlib import Path
from imputune import signals
from imputune.tracking.runs import tracked_run

signals.LONGEST_SECONDS = 60  # the machine may be busy
signals.install()
signals.loaded()
with tracked_run(
    Path(sys.argv[1]), experiment="interrupted", command="pretrain", params={}, tags={}, folds=[0]
) as run:
    run.epoch(0, 0, {"train_loss": 0.5})
    print("training", flush=True)
    time.sleep(60)
"""


def test_store_is_a_database_in_the_root_whatever_the_current_folder(root, tmp_path, monkeypatch):
    """Without MLFLOW_TRACKING_URI the store is root/mlflow.db, and the variable stays unset."""
    monkeypatch.chdir(tmp_path)
    uri = store.open_store(root)
    assert uri == f"sqlite:///{root}/mlflow.db"
    assert (root / "mlflow.db").is_file()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert list(tmp_path.iterdir()) == []
    assert MlflowClient().get_experiment("0").artifact_location == f"{(root / 'mlruns').as_uri()}/0"


def test_relative_uri_becomes_absolute(root, tmp_path, monkeypatch):
    """A relative SQLite URI means a file of the current folder, odd characters in its path included."""
    folder = tmp_path / "50 % é"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    uri = store.open_store(root)
    assert uri == f"sqlite:///{tmp_path}/50 %25 é/mlflow.db"
    client = MlflowClient(uri)
    run = client.create_run(store.experiment(uri, "heads"))
    client.log_text(run.info.run_id, "seen", "note.txt")
    written = folder / "mlruns" / "heads" / run.info.run_id / "artifacts" / "note.txt"
    assert written.read_text() == "seen"


def test_experiment_is_created_once(root):
    """The second call returns the experiment that the first one created; its artifacts go beside the database."""
    uri = store.open_store(root)
    first = store.experiment(uri, "imputers")
    assert store.experiment(uri, "imputers") == first
    assert MlflowClient(uri).get_experiment(first).artifact_location == (root / "mlruns" / "imputers").as_uri()


def test_deleted_experiment_is_named_with_its_remedy(root):
    """A deleted experiment is neither restored nor replaced."""
    uri = store.open_store(root)
    number = store.experiment(uri, "gone")
    MlflowClient(uri).delete_experiment(number)
    with pytest.raises(UserError, match=f"'gone' was deleted.*restore --experiment-id {number}"):
        store.experiment(uri, "gone")


@pytest.mark.slow
def test_four_processes_on_a_fresh_store_lose_nothing(tmp_path):
    """Four commands that start at once on a missing store all succeed, with every point of every fold."""
    commands = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_FOUR, str(tmp_path), str(number)]) for number in range(4)
    ]
    assert [command.wait(timeout=120) for command in commands] == [0, 0, 0, 0]
    client = MlflowClient(store.open_store(tmp_path))
    runs = client.search_runs([client.get_experiment_by_name("heads").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sorted(run.data.tags["number"] for run in runs) == sorted("0123" * 3)
    for run in runs:
        if "imputune.fold" in run.data.tags:
            fold = int(run.data.tags["imputune.fold"])
            history = client.get_metric_history(run.info.run_id, "train/loss")
            assert [(point.step, point.value) for point in history] == [(n, n + fold / 2) for n in range(300)]
            assert run.data.metrics["test/auc"] == 0.75


@pytest.mark.slow
def test_repeated_ctrl_c_leaves_a_marked_run(tmp_path):
    """Several Ctrl-C in a row end the run and its fold as KILLED, the buffered point included."""
    command = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    assert command.stdout.readline() == "training\n"
    command.send_signal(signal.SIGINT)
    for _ in range(5):
        time.sleep(0.002)
        command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=120)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    client = MlflowClient(store.open_store(tmp_path))
    runs = client.search_runs([client.get_experiment_by_name("interrupted").experiment_id])
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    assert [run.data.metrics for run in runs if "imputune.fold" in run.data.tags] == [{"train/loss": 0.5}]


class _Server(socketserver.ThreadingTCPServer):
    """A server that closes each connection without an answer, and counts them."""

    connections = 0

    def process_request(self, request, client_address):
        self.connections += 1
        self.shutdown_request(request)


def test_server_that_does_not_answer_is_asked_once(root, monkeypatch):
    """Opening a store tries once; mlflow alone would try again for minutes."""
    with _Server(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_address[1]}")
        try:
            with pytest.raises(UserError, match=r"failed \(no answer\); start the server"):
                store.open_store(root)
        finally:
            server.shutdown()
            thread.join()
        assert server.connections == 1


def test_impatience_ends_with_its_block(monkeypatch):
    """Requests get five seconds and no second try inside the block, and the earlier settings after it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "70")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with store.impatient():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "70"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_unreachable_server_is_a_user_error(root, monkeypatch):
    """A server that does not answer is named, without its password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 failed \(no answer\); start the server") as caught:
        store.open_store(root)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_file_that_is_no_database_is_a_user_error(tmp_path):
    """The error names a damaged mlflow.db, which is not changed."""
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(UserError, match=r"mlflow\.db failed \(file is not a database\); .*move a damaged file"):
        store.open_store(tmp_path)
    assert (tmp_path / "mlflow.db").read_text() == "not a database " * 100


def test_unusable_folder_is_a_user_error(tmp_path):
    """A root that is no folder cannot hold a store."""
    (tmp_path / "root").write_text("")
    with pytest.raises(UserError, match=r"mlflow\.db failed .*check that its folder exists"):
        store.open_store(tmp_path / "root")


def test_schema_of_another_version_names_the_upgrade(root, tmp_path):
    """A database of another mlflow version is not touched; the message says how to upgrade it."""
    store.open_store(root)
    older = shutil.copy(root / "mlflow.db", tmp_path)
    with sqlite3.connect(older) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(
        UserError, match=r"has the database schema \w+, and mlflow .* run `mlflow db upgrade sqlite:///"
    ):
        store.open_store(tmp_path)


def test_interrupted_creation_does_not_break_the_store(tmp_path):
    """The remains of an interrupted creation are replaced by a complete database."""
    (tmp_path / "mlflow.db.new").write_text("half a database")
    (tmp_path / "mlflow.db").write_bytes(b"")
    uri = store.open_store(tmp_path)
    assert MlflowClient(uri).get_experiment("0").name == "Default"
    assert not (tmp_path / "mlflow.db.new").exists()


def test_a_missing_database_driver_is_named(root, monkeypatch):
    """The error says what is not installed, without the password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://me:secret@127.0.0.1:9/runs")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError) as caught:
        store.open_store(root)
    assert "secret" not in str(caught.value)
    assert "needs a database driver that is not installed (" in str(caught.value)


def test_a_store_that_the_environment_chose_is_told(root, monkeypatch):
    """A message that names the store says who chose it."""
    assert store.shown_store(f"sqlite:///{root}/mlflow.db") == f"{root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracker:5000")
    told = store.shown_store("http://me:secret@tracker:5000")
    assert "secret" not in told
    assert told.endswith(", which MLFLOW_TRACKING_URI names")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:5077", "localhost:5077", "tracker.example.org", "./mlruns", "file:///a"]
)
def test_an_address_without_its_beginning_is_told(root, monkeypatch, address):
    """mlflow would take it for a folder, and say how to move one into a database."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for opened in (store.open_store, store.open_existing_store):
        with pytest.raises(UserError, match=r"is no address of a tracking store: that of a server begins with http://"):
            opened(root)


@pytest.mark.parametrize("address", ["http://host", "postgresql+psycopg://host/a", "sqlite:///a.db", "databricks"])
def test_addresses_of_stores_are_taken(address):
    """Servers, databases and Databricks."""
    check_address(address)


def test_a_folder_that_the_user_allowed_is_left_to_mlflow(monkeypatch):
    """mlflow has a variable for it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_address("./mlruns")


def test_the_database_of_a_server_is_refused_before_anything_is_recorded(root, tmp_path, monkeypatch):
    """Its artifacts go through the server: mlflow would refuse the first, after training. Reading is allowed."""
    store.open_store(root)
    uri = f"sqlite:///{shutil.copy(root / 'mlflow.db', tmp_path / 'server.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store.open_store(tmp_path)
    client = MlflowClient(uri)
    client.create_experiment(store.EXPERIMENT, artifact_location="mlflow-artifacts:/1")
    with pytest.raises(UserError, match=r"server\.db is the database of a tracking server.*\(http://\.\.\.\)$"):
        store.open_store(tmp_path)
    store.open_existing_store(tmp_path)
    run = client.create_run(client.get_experiment_by_name(store.EXPERIMENT).experiment_id)
    with pytest.raises(UserError, match="is the database of a tracking server") as caught, failures(uri):
        client.log_text(run.info.run_id, "text", "note.txt")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is the database of a tracking server"):
        adopt_run(client, run.info.run_id, "finetune")


@pytest.mark.parametrize(("uri", "is_refused"), [("postgresql://host/runs", True), ("sqlite:///runs.db", False)])
def test_a_servers_database_without_our_experiment_is_known_by_its_default_one(monkeypatch, uri, is_refused):
    """A new experiment of a file keeps its artifacts beside the file; another database's would not reach the server."""
    default = SimpleNamespace(artifact_location="mlflow-artifacts:/0")
    client = SimpleNamespace(get_experiment_by_name=lambda name: None, get_experiment=lambda number: default)
    monkeypatch.setattr(database, "MlflowClient", lambda uri: client)
    with pytest.raises(UserError, match="server's address") if is_refused else nullcontext():
        database.check_place(uri, store.EXPERIMENT)
