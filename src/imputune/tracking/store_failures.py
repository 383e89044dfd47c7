"""Failures of the tracking store as one line: what failed, why, and what to do about it."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from imputune import signals
from imputune.errors import UserError
from imputune.tracking.credentials import without_password
from imputune.tracking.sqlite import sqlite_path

START = "start the server, correct MLFLOW_TRACKING_URI, or unset it to use this project's own store"
NO_ANSWER = "no answer"
LOGIN, PERMISSION = "wrong user or password", "no permission"
HOST = "it does not answer to this host name"
DATABASE_LOGIN = "correct the user and password in MLFLOW_TRACKING_URI"
REMEDIES = {
    LOGIN: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    PERMISSION: "ask the server's administrator for permission to edit, or for this host in --allowed-hosts",
    HOST: "ask the server's administrator to add it to --allowed-hosts, with its port as it stands in the address",
}
REFUSALS = {401: LOGIN, 403: PERMISSION}
BUSY = {408, 425, 429, 500, 502, 503, 504}  # HTTP: the same request may succeed later
SERVER_ERROR = "it answers with error 500"
"""The cause that a server has which fails, or one request at which it always fails."""
NOT_THROUGH_SERVER = "When an mlflow-artifacts URI was supplied"
"""The beginning of mlflow's error where a server's artifacts are asked for without the server."""


class StoreUnavailableError(UserError):
    """A server or database that does not answer, or does not let this user in; the same request may succeed later.

    cause: why, in a few words.
    """

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


@contextmanager
def failures(uri: str) -> Iterator[None]:
    """Turn a failure of the store inside the block into a one-line UserError with cause and remedy.

    It is StoreUnavailableError if a server, or a database that is no file, does not answer or refuses the login. A stop
    waits for the end of the block, unless the store is a server.
    """
    # An exception in the middle of a commit leaves a database locked. A request to a server may take long.
    with nullcontext() if uri.startswith("http") else signals.held():
        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as failure:
            raise _as_user_error(uri, failure) from failure


def _as_user_error(uri: str, failure: Exception) -> UserError:
    path = sqlite_path(uri)
    cause = None if path else _cause_of_absence(failure)
    shown = without_password(uri) if path is None else path
    if cause:
        of_database = cause == LOGIN and not uri.startswith("http")
        remedy = DATABASE_LOGIN if of_database else REMEDIES.get(cause, START)
        return StoreUnavailableError(f"the tracking store {shown} failed ({cause}); {remedy}", cause)
    if schema := re.search(r"database schema \(found version (\w+), but expected (\w+)\)", str(failure)):
        found, expected = schema.groups()
        told = f"the tracking store {shown} has the database schema {found}, and mlflow {mlflow.__version__} needs"
        return UserError(
            f"{told} {expected}; {_migration(found, str(shown) if path is None else uri, with_login=path is None)}"
        )
    if NOT_THROUGH_SERVER in str(failure):
        return server_needed(uri)
    if path is None:
        remedy = START
    else:
        remedy = "check that its folder exists, is writable and has space, or move a damaged file away"
    return UserError(f"the tracking store {shown} failed ({_first_line(failure)}); {remedy}")


def server_needed(uri: str) -> UserError:
    """Return the error of a server's database that is asked without the server, which alone has the artifacts."""
    shown = sqlite_path(uri) or without_password(uri)
    return UserError(
        f"the tracking store {shown} is the database of a tracking server, and its artifacts are read and written "
        "through the server alone: set MLFLOW_TRACKING_URI to the server's address (http://...)"
    )


def _migration(found: str, address: str, *, with_login: bool) -> str:
    """Say how to make a database's schema fit, which mlflow can upgrade if it knows it."""
    known = Path(mlflow.__file__).parent / "store/db_migrations/versions"
    if not any(known.glob(f"{found}_*.py")):
        return "no older mlflow made it: install the mlflow that did"
    login = " with its user and password" if with_login else ""
    return f"after a backup, run `mlflow db upgrade {address}`{login}"


def _cause_of_absence(failure: Exception) -> str | None:
    """Return why a server does not serve this request now; None if it answered that the request is wrong."""
    text = str(failure)
    if isinstance(failure, OSError):  # of the library requests, which uploads artifacts, if the system gave no number
        response = getattr(failure, "response", None)
        return _cause_of_status(response.status_code) if response is not None else None if failure.errno else NO_ANSWER
    if isinstance(failure, OperationalError | InterfaceError):
        if "authentication failed" in text:
            return LOGIN
        refused = re.search(r"FATAL:\s+(.+)", text)  # by PostgreSQL, as `database "runs" does not exist`
        return refused[1] if refused else NO_ANSWER
    if not isinstance(failure, MlflowException):
        return None
    if "Invalid Host header" in text:
        return HOST
    if found := re.search(r"failed with error code (\d{3}) ", text):
        return _cause_of_status(int(found[1]))
    if found := re.search(r"too many (\d{3}) error responses", text):
        return _cause_of_status(int(found[1]))
    if re.search(r"failed with (timeout )?exception ", text):
        return NO_ANSWER
    if failure.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return _cause_of_status(401 if failure.error_code == "UNAUTHENTICATED" else 403)
    return NO_ANSWER if failure.error_code == "TEMPORARILY_UNAVAILABLE" else None


def _cause_of_status(status: int) -> str | None:
    """Return why a server gave a status of HTTP; None if it says that the request is wrong."""
    return REFUSALS.get(status) or (f"it answers with error {status}" if status in BUSY else None)


def _first_line(failure: Exception) -> str:
    return without_password(str(failure).strip().partition("\n")[0])[:200]
