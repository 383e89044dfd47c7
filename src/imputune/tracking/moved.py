"""A project that was moved or copied: its tracking store is made to find the artifacts in the project's new folder.

MLflow stores the place of every artifact as an absolute path.
"""

import fcntl
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from imputune.errors import UserError

ARTIFACTS_FOLDER = "mlruns"
BACKUP_ENDING = ".before-move"
LOCAL_HOSTS = ("localhost", "127.0.0.1")
DEFAULT_EXPERIMENT = "0"  # its folder is named by its id, other experiments' folders by the experiment's name
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True, kw_only=True)
class Move:
    """What was changed in a store.

    former: the project's earlier folder. left_behind: how many runs and models have their files only there; they keep
    their path. backup: the store as it was.
    """

    former: Path
    left_behind: int
    backup: Path

    @property
    def told(self) -> str:
        """A line for the user."""
        left = "; the files of {:,} runs and models are only in the old folder and are read there"
        stayed = left.format(self.left_behind) if self.left_behind else ""
        return (
            f"{self.backup.parent} was moved or copied from {self.former}; its tracking store now finds artifacts here"
            f"{stayed} (the store as it was: {self.backup.name})"
        )


def former_folder(database: Path) -> Path | None:
    """Return the folder where the store looks for artifacts, None if it is the database's own folder.

    Raises sqlite3.Error for a file that is no database.
    """
    with closing(_connected(database, "ro")) as store:
        return _changes(store, database.parent.resolve()).former


def follow_move(database: Path) -> Move | None:
    """Register the artifacts of a moved store in its own folder; return what was changed, None if nothing was.

    The store is copied to <name>.before-move first, and changed in one transaction. Artifacts whose files are only in
    the former folder keep their path. Experiments whose artifacts the user put elsewhere are left alone. The caller
    holds the store's lock.

    Raises UserError while a command runs in the project under its other path, sqlite3.Error for a file that is no
    database, OSError for a folder that refuses the copy.
    """
    here = database.parent.resolve()
    with closing(_connected(database, "rw")) as store:
        changes = _changes(store, here)
        if changes.former is None:
            return None
        if _command_runs(here):
            raise UserError(
                f"a command is running in this project under another path, {changes.former}: wait until it ends; to "
                "use both paths at once, run a tracking server and name it in MLFLOW_TRACKING_URI"
            )
        backup = database.with_name(database.name + BACKUP_ENDING)
        _back_up(store, backup)
        with store:
            store.execute("BEGIN IMMEDIATE")
            for table, column, row, place in changes.rows:
                store.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (place, row))
    return Move(former=changes.former, left_behind=changes.left_behind, backup=backup)


@dataclass(frozen=True, kw_only=True)
class _Changes:
    """What is to be changed in a store: table, column, row and new place. former: None if there is nothing."""

    rows: list[tuple[str, str, int, str]]
    left_behind: int
    former: Path | None


def _changes(store: sqlite3.Connection, here: Path) -> _Changes:
    rows: list[tuple[str, str, int, str]] = []
    left_behind = 0
    former: Path | None = None
    names = {str(name) for (name,) in store.execute("SELECT name FROM experiments")} | {DEFAULT_EXPERIMENT}
    for table, column in COLUMNS:
        for row, location in store.execute(f"SELECT rowid, {column} FROM {table}"):
            path = local_path(location)
            folder = _project_of(path, names) if path is not None else None
            if path is None or folder is None or folder == here or os.path.realpath(folder) == str(here):
                continue
            moved = here / path.relative_to(folder)
            # Path.exists raises where a folder above may not be read.
            if table != "experiments" and not os.path.exists(moved) and os.path.exists(path):  # noqa: PTH110
                left_behind += 1
                continue
            former = former or folder
            rows.append((table, column, row, moved.as_uri()))
    return _Changes(rows=rows, left_behind=left_behind, former=former)


def _project_of(path: Path, experiments: set[str]) -> Path | None:
    """Return the folder whose mlruns/<experiment> a place is in, as this program registers it; None for another."""
    for folder in (path, *path.parents):
        if folder.parent.name == ARTIFACTS_FOLDER:
            return folder.parent.parent if folder.name in experiments else None
    return None


def _command_runs(project: Path) -> bool:
    """Say whether a tracked command runs in a project's folder: it has locked a file; see `interrupted.noted`."""
    for path in project.glob("artifacts/*/unfinished/runs/*"):
        try:
            with path.open("rb") as note:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            continue  # it has just ended, or is somebody else's
    return False


def _connected(database: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", uri=True, timeout=20.0)


def local_path(location: str | None) -> Path | None:
    """Return the absolute path on this machine that a location in the store names, None for any other location."""
    parts = urlsplit(location or "")
    host = parts.hostname or ""
    if parts.scheme not in ("", "file") or not (host in ("", ".") or host.startswith(LOCAL_HOSTS)):
        return None
    path = Path(url2pathname(parts.path if parts.scheme else location or ""))
    return path if path.is_absolute() else None


def _back_up(store: sqlite3.Connection, backup: Path) -> None:
    unfinished = backup.with_name(backup.name + ".new")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished)) as copy:
        store.backup(copy)
    unfinished.replace(backup)
