"""Planted passwords: none reaches params, tags, logs, error lines or tracebacks, wherever it was given."""

import http.server
import json
import logging
import os
import threading
import traceback
from contextlib import contextmanager

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from imputune.errors import UserError
from imputune.tracking import store
from imputune.tracking.chosen_store import chosen_store
from imputune.tracking.credentials import PASSWORD, without_password
from imputune.tracking.database import check_database
from imputune.tracking.store_failures import failures

PLANTED = "planted-77"
LOGIN = f"me:{PLANTED}"


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Answers each request with the server's status, and keeps what it was asked."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST

    def log_message(self, *arguments):
        pass


@contextmanager
def answering(status, body=b"You are not authenticated"):
    """Run a server that answers everything in one way."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        server.status, server.body, server.asked = status, body, []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def everything_logged(caplog):
    """All that the loggers of imputune, mlflow and urllib3 say, debug lines too."""
    for name in ("imputune", "mlflow", "urllib3", "sqlalchemy"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "failed (wrong user or password); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (
            403,
            "failed (no permission); ask the server's administrator for permission to edit, or for this host in "
            "--allowed-hosts",
        ),
        (
            (403, b"Invalid Host header - possible DNS rebinding attack detected"),
            "failed (it does not answer to this host name); ask the server's administrator to add it to "
            "--allowed-hosts, with its port",
        ),
        (502, "failed (it answers with error 502); start the server"),
        (404, "failed (API request to endpoint"),
    ],
)
def test_a_server_that_refuses_is_told_in_one_line(root, monkeypatch, everything_logged, status, expected):
    """The line says what to do; the password of the address is in no line, log or traceback of chained errors."""
    with answering(*(status if isinstance(status, tuple) else (status,))) as server:
        address = f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{LOGIN}@{address}")
        with pytest.raises(UserError) as caught:
            store.open_store(root)
    assert str(caught.value).startswith(f"the tracking store http://{address} {expected}")
    assert "\n" not in str(caught.value)
    whole = "".join(traceback.format_exception(caught.value)) + everything_logged.text
    assert PLANTED not in whole
    [(_, login)] = server.asked
    assert login == "Basic bWU6cGxhbnRlZC03Nw=="  # me:planted-77


def test_a_login_goes_to_its_own_server_alone(root, monkeypatch):
    """Another server of the same process, as in a notebook, gets no password, and neither does the environment."""
    body = json.dumps({"experiments": []}).encode()
    with answering(200, body) as first, answering(200, body) as second:
        addresses = [f"127.0.0.1:{server.server_address[1]}" for server in (first, second)]
        with chosen_store(f"http://{LOGIN}@{addresses[0]}"):
            assert store.open_store(root) == f"http://{addresses[0]}"
            assert store.open_store(root) == f"http://{addresses[0]}"  # mlflow has exported the plain address
        with chosen_store(f"http://{addresses[1]}"):
            store.open_store(root)
    assert {login for _, login in first.asked} == {"Basic bWU6cGxhbnRlZC03Nw=="}
    assert {login for _, login in second.asked} == {None}
    assert PASSWORD not in os.environ


@pytest.mark.parametrize(
    "text",
    [
        f"http://{LOGIN}@host:5000/api failed",
        f"postgresql+psycopg://{LOGIN}@host:5432/runs",
        "http://me:planted@77@host/ a password with an at sign",
        "http://me:planted/77@host/ a password with a slash",
        f"postgresql://host/runs?user=me&password={PLANTED}&sslmode=require",
    ],
)
def test_an_address_loses_its_password(text):
    """User and password go, the host stays."""
    shown = without_password(text)
    assert "planted" not in shown
    assert "77" not in shown
    assert "host" in shown


def test_a_password_of_the_environment_is_cut_out_of_any_text(monkeypatch):
    """An error that quotes the password loses it."""
    monkeypatch.setenv(PASSWORD, PLANTED)
    with pytest.raises(UserError) as caught, failures("http://host"):
        raise OSError(5, f"user me with {PLANTED} was refused")
    assert "user me with *** was refused" in str(caught.value)


def test_a_database_that_is_away_is_told_at_once_without_its_password(root, monkeypatch, everything_logged):
    """mlflow alone would try for two minutes and print each failure."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra `server`)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg://{LOGIN}@127.0.0.1:9/runs")
    with pytest.raises(UserError, match=r"psycopg://127\.0\.0\.1:9/runs failed \(no answer\); start the") as caught:
        store.open_store(root)
    assert PLANTED not in "".join(traceback.format_exception(caught.value)) + everything_logged.text


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("postgresql", {"connect_timeout": 5}),  # psycopg2
        ("postgresql+psycopg", {"connect_timeout": 5}),
        ("postgresql+pg8000", {}),
        ("mysql", {"connect_timeout": 5}),  # mysqldb
        ("mysql+pymysql", {"connect_timeout": 5}),
        ("mysql+mysqlconnector", {}),
        ("mssql+pyodbc", {}),
    ],
)
def test_only_drivers_that_know_a_timeout_get_one(monkeypatch, driver, options):
    """Another driver would raise TypeError for the option."""
    given = []

    def create_engine(uri, connect_args):
        given.append(connect_args)
        raise ImportError(driver)

    monkeypatch.setattr(sqlalchemy, "create_engine", create_engine)
    with pytest.raises(UserError, match="needs a database driver"):
        check_database(f"{driver}://{LOGIN}@host/runs")
    assert given == [options]


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (
            "451aebb31d03",
            "after a backup, run `mlflow db upgrade postgresql+psycopg://host/runs` with its user and password",
        ),
        ("abcdefabcdef", "no older mlflow made it: install the mlflow that did"),
    ],
)
def test_a_database_of_another_schema_names_the_remedy(found, remedy):
    """An older one is upgraded; its address is shown without its password, and the line says that it is needed."""
    uri = f"postgresql+psycopg://{LOGIN}@host/runs"
    with pytest.raises(UserError) as caught, failures(uri):
        raise MlflowException(f"Detected out-of-date database schema (found version {found}, but expected 2). Take a")
    told = str(caught.value)
    start = f"the tracking store postgresql+psycopg://host/runs has the database schema {found}, and mlflow "
    assert told.startswith(start)
    assert told.endswith(f" needs 2; {remedy}")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('FATAL:  database "runs" does not exist', '(database "runs" does not exist); start the server, correct MLF'),
        ('FATAL:  password authentication failed for user "me"', "(wrong user or password); correct the user and "),
        ("Connection refused", "(no answer); start the server"),
    ],
)
def test_a_database_that_refuses_says_why(answer, expected):
    """The variables with user and password are of a tracking server; a database has both in its address."""
    with pytest.raises(UserError) as caught, failures(f"postgresql+psycopg://{LOGIN}@host/runs"):
        raise OperationalError(None, None, Exception(f'connection to server at "host" failed: {answer}'))
    assert expected in str(caught.value)
    assert PLANTED not in str(caught.value)
