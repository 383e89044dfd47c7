"""The file of a SQLite store: its URI, making it, and whether it can be written.

Errors are those of the system, of SQLite and of mlflow; `store_failures.failures` turns them into one line.
"""

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote, unquote

from imputune.runtime.experiments import owner_of

DATABASE_NAME = "mlflow.db"
SCHEME = "sqlite:///"
BUSY_SECONDS = 20.0


def sqlite_uri(path: Path) -> str:
    """Return the URI by which mlflow opens a database file."""
    # SQLAlchemy decodes the path, but mlflow creates its folder without decoding: escape only what SQLAlchemy needs.
    return SCHEME + str(path).replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """Return the file that a URI names, None if it names a server or a database in memory."""
    if not uri.startswith(SCHEME) or uri == SCHEME + ":memory:":
        return None
    return Path(unquote(uri.removeprefix(SCHEME).partition("?")[0])).absolute()


def own_database(root: Path) -> Path:
    """Return the file of a project's own store; of an experiment's copy, that of the project it belongs to."""
    return (owner_of(root) or root.resolve()) / DATABASE_NAME


def make_folder(folder: Path) -> None:
    """Make the folder of a database; PermissionError if this user may not write there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write in {folder}")


def make_database(path: Path) -> None:
    """Make a database that is missing or empty.

    It is built under another name first, so that an interruption leaves no half-built database.
    """
    if path.exists() and path.stat().st_size > 0:
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = path.with_name(path.name + ".new")
    unfinished.write_bytes(b"")
    database = SqlAlchemyStore(sqlite_uri(unfinished), (path.parent / "mlruns").as_uri())
    database.engine.dispose()
    unfinished.replace(path)


def check_writable(path: Path) -> None:
    """Fail at once for a file that is read-only or no database: mlflow would retry for two minutes."""
    if not os.access(path, os.W_OK):
        raise PermissionError(f"no permission to write {path.name}")
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
    finally:
        connection.close()
