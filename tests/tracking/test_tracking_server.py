"""A real `mlflow server` behind a proxy that loses answers, and that is killed and started again."""

import http.client
import http.server
import os
import socket
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from mlflow import MlflowClient

from benchmarks.tracking_server import TrackingServer, postgres, postgres_programs
from imputune.runtime.recorder import Trial
from imputune.tracking import outbox
from imputune.tracking.run_details import RunDetails
from imputune.tracking.runs import tracked_run
from imputune.tracking.store_failures import StoreUnavailableError

pytestmark = pytest.mark.slow
PLANTED = "planted-password-7719"
EPOCHS = 40
TRIAL = Trial(
    number=3,
    learning_rate=0.002,
    state="complete",
    validation_loss=0.5,
    curve=[{"validation_loss": 1.0 - epoch / 10} for epoch in range(4)],
)


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on, and drops the answer of every n-th that writes: the server has written, nobody knows."""

    protocol_version = "HTTP/1.1"

    def _pass_on(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        try:
            upstream.request(self.command, self.path, content, dict(self.headers))
            answer = upstream.getresponse()
            body = answer.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            upstream.close()
        if any(part in self.path for part in ("runs/create", "log-batch", "log-inputs", "artifacts/")):
            self.server.writes += 1
            if self.server.loses and self.server.writes % self.server.loses == 0:
                self.close_connection = True
                return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A tracking server on SQLite, with a password where mlflow's extra `auth` is installed."""
    password = PLANTED if find_spec("flask_wtf") else ""
    server = TrackingServer(tmp_path_factory.mktemp("server"), free_port(), password=password)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server, monkeypatch):
    """The proxy before the server; the environment names it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy) as proxy:
        proxy.upstream, proxy.writes, proxy.loses = server.port, 0, 0
        proxy.daemon_threads = True
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        environment = server.environment | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy.server_address[1]}"}
        for name, text in environment.items():
            monkeypatch.setenv(name, text)
        monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.05)
        monkeypatch.setattr(outbox, "LONGEST_PAUSE", 0.5)
        monkeypatch.setattr(outbox, "TELL_SECONDS", 0.2)
        yield proxy
        proxy.shutdown()
        thread.join()


def record(run, away=None, back=None):
    """Record two folds, a trial and figures in a run, and another run nested in it, which begins after `away`."""
    for epoch in range(EPOCHS):
        for fold in (0, 1):
            run.epoch(fold, epoch, {"train_loss": epoch + fold / 2})
        if epoch == EPOCHS // 4 and away:
            run.sender.drain()
            away()
    run.trial_finished(0, TRIAL)
    for fold in (0, 1):
        run.fold_finished(fold, {"test_auc": 0.75})
    run.log_text("two\nlines", "note.txt")
    nested = RunDetails(name="nested", parent=run.run_id)
    with tracked_run(
        root=Path(), experiment="server", command="finetune", params={"seed": 7}, tags={}, folds=(0,), details=nested
    ) as inner:
        inner.epoch(0, 0, {"train_loss": 0.5})
        inner.fold_finished(0, {"test_auc": 0.5})
    if back:
        back()


def recorded(folder, record=record, **changes):
    """Track a run that records, and return its id."""
    with tracked_run(folder, experiment="server", command="grid", params={"seed": 7}, tags={}, folds=(0, 1)) as run:
        record(run, **changes)
    return run.run_id


def stored(run_id):
    """Return all that the server has of a run and of those below it: names with status, and points by run and key."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_run(run_id).info.experiment_id
    statuses, points, pending = {}, Counter(), [(client.get_run(run_id), "")]
    while pending:
        run, above = pending.pop()
        name = f"{above}/{run.info.run_name}"
        assert name not in statuses, f"{name} is there twice"
        statuses[name] = run.info.status
        for key in run.data.metrics:
            points[name, key] = len(client.get_metric_history(run.info.run_id, key))
        children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
        pending += [(child, name) for child in children]
    return statuses, dict(points)


WHOLE = {
    ("/grid/fold 0", "train/loss"): EPOCHS,
    ("/grid/fold 0", "test/auc"): 1,
    ("/grid/fold 1", "train/loss"): EPOCHS,
    ("/grid/fold 1", "test/auc"): 1,
    ("/grid/fold 0/trial 3", "validation/loss"): 4,
    ("/grid/nested/fold 0", "train/loss"): 1,
    ("/grid/nested/fold 0", "test/auc"): 1,
}


def test_lost_answers_double_nothing(tmp_path, proxy):
    """Every third answer is lost after the server has written: each run and point is there once."""
    proxy.loses = 3
    run_id = recorded(tmp_path)
    assert proxy.writes > 20
    proxy.loses = 0
    statuses, points = stored(run_id)
    assert set(statuses.values()) == {"FINISHED"}
    assert points == WHOLE


def test_a_server_that_is_killed_and_started_again_loses_nothing(tmp_path, server, proxy, capfd):
    """While it is away, work goes on: it records curves, a trial, and a whole nested run. Two lines tell of it."""
    run_id = recorded(tmp_path, away=server.kill, back=server.start)
    statuses, points = stored(run_id)
    assert set(statuses.values()) == {"FINISHED"}
    assert points == WHOLE
    lines = capfd.readouterr().err.splitlines()
    about = [line for line in lines if not line.startswith("the work is done; waiting")]  # if the block ended first
    assert [" is away since " in line for line in about] == [True, False]
    assert " answers again" in about[1]
    note = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).download_artifacts(run_id, "note.txt", str(tmp_path))
    assert Path(note).read_text() == "two\nlines"


def test_a_server_that_never_comes_back_ends_the_command_with_one_line(tmp_path, proxy, monkeypatch):
    """The command waits for the patience; what the server got stays readable, and its runs are left as running."""
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 0.5)
    reachable, runs = proxy.upstream, []

    def go_away():
        proxy.upstream = free_port()

    def noted(run, **changes):
        runs.append(run.run_id)
        record(run, **changes)

    with pytest.raises(StoreUnavailableError, match=r"is away since .* run the same command again"):
        recorded(tmp_path, noted, away=go_away)
    proxy.upstream = reachable
    statuses, _ = stored(runs[0])
    assert statuses == dict.fromkeys(("/grid", "/grid/fold 0", "/grid/fold 1"), "RUNNING")


@pytest.mark.usefixtures("proxy")
def test_no_password_is_in_the_servers_store_or_log(tmp_path, server):
    """All that a run made the server store and log has neither password nor authorization."""
    if not server.password:
        pytest.skip("mlflow's extra `auth` is not installed: the server asks for no password")
    recorded(tmp_path)
    with closing(sqlite3.connect(server.folder / "server.db")) as store:
        text = "\n".join(store.iterdump())
    assert "train/loss" in text
    files = [path for path in (server.folder / "artifacts").rglob("*") if path.is_file()]
    assert files
    text += (server.folder / "server.log").read_text() + "".join(path.read_text() for path in files)
    assert PLANTED not in text
    assert "Basic " not in text


@pytest.mark.cluster
def test_a_server_on_postgresql_stores_each_point_once(tmp_path, monkeypatch):
    """The same, with PostgreSQL behind the server; repeated requests meet its primary keys."""
    if postgres_programs() is None or not find_spec("psycopg"):
        pytest.skip("PostgreSQL, or the extra `server`, is not installed")
    with postgres(free_port(), PLANTED) as uri:
        server = TrackingServer(tmp_path / "server", free_port(), database=uri)
        server.start()
        try:
            for name, text in server.environment.items():
                monkeypatch.setenv(name, text)
            run_id = recorded(tmp_path)
            _, points = stored(run_id)
        finally:
            server.kill()
    assert points == WHOLE
