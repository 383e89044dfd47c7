"""The tracking store: the project's own SQLite file, or the server that MLFLOW_TRACKING_URI names."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import mlflow
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from imputune.errors import UserError
from imputune.runtime.console import say, say_once
from imputune.runtime.environment import environment
from imputune.tracking.address import check_address
from imputune.tracking.credentials import handed_over, without_password
from imputune.tracking.database import check_database, check_place
from imputune.tracking.moved import follow_move, former_folder
from imputune.tracking.sqlite import check_writable, make_database, make_folder, own_database, sqlite_path, sqlite_uri
from imputune.tracking.store_failures import failures

EXPERIMENT = "imputune"  # to which all commands record
LOCK_NAME = ".mlflow-store.lock"
LOCK_SECONDS = 60.0
NO_STORE = "train first, run `imputune register` for models in artifacts/, or correct MLFLOW_TRACKING_URI if it is set"
OPENING_SECONDS, ENDING_SECONDS = 60, 5  # a server with much to do may take long to answer
MAX_RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"

Item = TypeVar("Item")
in_use: set[str] = set()
"""The servers that this process records to and has reached: they are not asked again whether they answer."""


def open_store(root: Path) -> str:
    """Open the tracking store, create it if it is missing, and return its URI.

    The store is MLFLOW_TRACKING_URI if that is set, else `root`/mlflow.db; a relative SQLite URI is made absolute from
    the current folder. mlflow uses the URI for the rest of this process. Any number of processes may open a missing
    store at once: one creates it, the others wait.

    In the copy that `dvc exp run --temp` or `--queue` makes, the store is that of the project which DVC copied.

    The project's own store is made to follow a project that was moved or copied, and a line says so; see
    `moved.follow_move`.

    Raises UserError when the server does not answer within seconds, when a database driver is not installed, when the
    database is that of a tracking server through which its artifacts go, when the address can be none of a store, or
    when the database file cannot be written, is no database, or has the schema of another mlflow version.
    """
    return _open(root, may_write=True)


def open_existing_store(root: Path) -> str:
    """Open the tracking store to read it, and return its URI; see `open_store`.

    It makes no store. Without permission to write it writes nothing; with it, a moved project's store is corrected, see
    `open_store`. Raises UserError when there is no store, too.
    """
    return _open(root, may_write=False)


def has_store(root: Path) -> bool:
    """Say whether there is a store to read; a server is taken to be there."""
    path = sqlite_path(os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(own_database(root)))
    return path is None or path.exists()


def _open(root: Path, *, may_write: bool) -> str:
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
    own = own_database(root)
    if may_write and own.parent != root.resolve() and not os.environ.get("MLFLOW_TRACKING_URI"):
        say_once(f"note: the runs of this experiment go to the store of the project: {own}")
    chosen = os.environ.get("MLFLOW_TRACKING_URI")
    uri = handed_over(chosen) if chosen else sqlite_uri(own)
    check_address(uri)
    path = sqlite_path(uri)
    if path is not None:
        uri = sqlite_uri(path)
        if not may_write and not path.exists():
            raise UserError(f"there is no tracking store at {shown_store(uri)}: {NO_STORE}")
        if may_write or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
            _open_sqlite(path, uri, is_own=path.resolve() == own)
        else:
            _open_unwritable(path, uri, is_own=path.resolve() == own)
    elif uri not in in_use:
        check_database(uri)
        with failures(uri), impatient(OPENING_SECONDS):
            MlflowClient(uri).search_experiments(max_results=1)
    if may_write and not uri.startswith("http"):
        check_place(uri, EXPERIMENT)
    mlflow.set_tracking_uri(uri)
    if not chosen:
        # set_tracking_uri also exports the URI, and the next open_store of another root would obey it.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return uri


def answers(uri: str) -> bool:
    """Say whether a server answers a request that changes nothing."""
    try:
        with failures(uri):
            MlflowClient(uri).search_experiments(max_results=1)
    except UserError:
        return False
    return True


def experiment(uri: str, name: str) -> str:
    """Return the id of the experiment `name`; the first process that asks for it creates it.

    In a SQLite store its artifacts go to mlruns/<name>/ beside the database; a server chooses the place itself.
    Raises UserError when the experiment was deleted or the store fails.
    """
    client = MlflowClient(uri)
    path = sqlite_path(uri)
    location = (path.parent / "mlruns" / name).as_uri() if path is not None else None
    with failures(uri):
        existing = client.get_experiment_by_name(name)
        if existing is None:
            try:
                return client.create_experiment(name, artifact_location=location)
            except MlflowException as refused:
                existing = client.get_experiment_by_name(name)
                if existing is None:
                    raise refused
    if existing.lifecycle_stage != LifecycleStage.ACTIVE:
        raise UserError(
            f"the experiment {name!r} was deleted; bring it back with "
            f"`mlflow experiments restore --experiment-id {existing.experiment_id}`"
        )
    return str(existing.experiment_id)


def shown_store(uri: str) -> str:
    """Return the store for a message, and that MLFLOW_TRACKING_URI chose it if it did."""
    place = sqlite_path(uri) or without_password(uri)
    return f"{place}, which MLFLOW_TRACKING_URI names" if os.environ.get("MLFLOW_TRACKING_URI") else str(place)


def active_run(uri: str, run_id: str) -> Run | None:
    """Return a run by its id, or None when it was deleted or is unknown; UserError when the store fails."""
    with failures(uri):
        try:
            run = MlflowClient(uri).get_run(run_id)
        except MlflowException as refused:
            if refused.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def all_pages(fetch: Callable[[str | None], PagedList[Item]]) -> Iterator[Item]:
    """Yield the items of all pages of a search; `fetch` takes the token of a page, None for the first."""
    page = fetch(None)
    yield from page
    while page.token:
        page = fetch(page.token)
        yield from page


@contextmanager
def impatient(seconds: int = ENDING_SECONDS) -> Iterator[None]:
    """Give requests to a tracking server a few seconds and no second try inside the block."""
    with environment({MAX_RETRIES: "0", TIMEOUT: str(seconds)}):
        yield


@contextmanager
def single_requests(seconds: int) -> Iterator[None]:
    """Let mlflow send each request once inside the block, for who tries again; what the user set stays as it is.

    mlflow alone tries for four minutes without a word, and creates a run twice where the first answer was lost.
    """
    wanted = {MAX_RETRIES: "0", TIMEOUT: str(seconds)}
    with environment({name: text for name, text in wanted.items() if name not in os.environ}):
        yield


def _open_unwritable(path: Path, uri: str, *, is_own: bool) -> None:
    """Open a database that this user may only read: mlflow writes nothing where all tables are there."""
    with failures(uri):
        if not os.access(path, os.R_OK):
            raise PermissionError(f"no permission to read {path.name}")
        if is_own and (former := former_folder(path)):
            raise UserError(
                f"{path.parent} was moved or copied from {former}, where its tracking store still looks for artifacts: "
                "ask somebody who may write there to run one imputune command in it, such as `imputune register`"
            )
        MlflowClient(uri).search_experiments(max_results=1)


def _open_sqlite(path: Path, uri: str, *, is_own: bool) -> None:
    with failures(uri):
        make_folder(path.parent)
    with _locked(path.parent / LOCK_NAME, uri), failures(uri):
        make_database(path)
        check_writable(path)
        move = follow_move(path) if is_own else None
        MlflowClient(uri).search_experiments(max_results=1)
    if move:
        say(f"note: {move.told}")


@contextmanager
def _locked(path: Path, uri: str) -> Iterator[None]:
    """Hold the lock for the block. A stop may interrupt the wait for it, which `failures` would hold up."""
    lock = FileLock(path, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another process has held {path} for {LOCK_SECONDS:.0f} s; wait for the command that is creating the "
            "tracking store, or end it"
        ) from None
    except OSError as refused:
        with failures(uri):
            raise refused
    try:
        yield
    finally:
        lock.release()
