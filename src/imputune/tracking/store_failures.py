"""Failures of the tracking store as one line: what failed, why, and what to do about it."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from imputune import signals
from imputune.errors import UserError
from imputune.tracking.credentials import without_password
from imputune.tracking.sqlite import sqlite_path

START = "start the server, correct MLFLOW_TRACKING_URI, or unset it to use this project's own store"
NO_ANSWER = "no answer"
LOGIN, PERMISSION = "wrong user or password", "no permission"
REMEDIES = {
    LOGIN: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    PERMISSION: "ask the server's administrator for permission to edit",
}
REFUSALS = {401: LOGIN, 403: PERMISSION}
BUSY = {408, 425, 429, 500, 502, 503, 504}  # HTTP: the same request may succeed later


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
    cause = None if path else _absence(failure)
    shown = without_password(uri) if path is None else path
    if cause:
        remedy = REMEDIES.get(cause, START)
        return StoreUnavailableError(f"the tracking store {shown} failed ({cause}); {remedy}", cause)
    if "out-of-date database schema" in str(failure):
        remedy = f"after a backup, run `mlflow db upgrade {shown if path is None else uri}`"
        if path is None:
            remedy += " with its user and password"
    elif path is None:
        remedy = START
    else:
        remedy = "check that its folder exists, is writable and has space, or move a damaged file away"
    return UserError(f"the tracking store {shown} failed ({_first_line(failure)}); {remedy}")


def _absence(failure: Exception) -> str | None:
    """Return why a server does not serve this request now; None if it answered that the request is wrong."""
    text = str(failure)
    if isinstance(failure, OSError):  # of the library requests, which uploads artifacts, if the system gave no number
        response = getattr(failure, "response", None)
        return _of_status(response.status_code) if response is not None else None if failure.errno else NO_ANSWER
    if isinstance(failure, OperationalError | InterfaceError):
        return LOGIN if "authentication failed" in text else NO_ANSWER
    if not isinstance(failure, MlflowException):
        return None
    if found := re.search(r"failed with error code (\d{3}) ", text):
        return _of_status(int(found[1]))
    if found := re.search(r"too many (\d{3}) error responses", text):
        return _of_status(int(found[1]))
    if re.search(r"failed with (timeout )?exception ", text):
        return NO_ANSWER
    if failure.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return _of_status(401 if failure.error_code == "UNAUTHENTICATED" else 403)
    return NO_ANSWER if failure.error_code == "TEMPORARILY_UNAVAILABLE" else None


def _of_status(status: int) -> str | None:
    return REFUSALS.get(status) or (f"it answers with error {status}" if status in BUSY else None)


def _first_line(failure: Exception) -> str:
    return without_password(str(failure).strip().partition("\n")[0])[:200]
