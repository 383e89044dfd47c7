"""A project that was moved or copied: its tracking store is made to find the artifacts in the project's new folder.

MLflow stores the place of every artifact as an absolute path.
"""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

ARTIFACTS_FOLDER = "mlruns"
BACKUP_ENDING = ".before-move"
DEFAULT_EXPERIMENT = "0"  # its folder is named by its id, other experiments' folders by the experiment's name
ARTIFACT_COLUMNS = (
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
    """Return the folder in which the store's artifacts were registered, None if it is the database's own folder.

    Raises sqlite3.Error for a file that is no database.
    """
    with closing(_connected(database, "ro")) as store:
        return next(iter(_former_folders(store, database.parent.resolve())), None)


def follow_move(database: Path) -> Move | None:
    """Register the artifacts of a moved store in its own folder; return what was changed, None if it was not moved.

    The store is copied to <name>.before-move first, and changed in one transaction. Artifacts whose files are only in
    the former folder keep their path. Experiments whose artifacts the user put elsewhere are left alone. The caller
    holds the store's lock. Raises sqlite3.Error for a file that is no database, OSError for a folder that refuses the
    copy.
    """
    here = database.parent.resolve()
    with closing(_connected(database, "rw")) as store:
        former = _former_folders(store, here)
        if not former:
            return None
        backup = database.with_name(database.name + BACKUP_ENDING)
        _back_up(store, backup)
        left_behind = 0
        with store:
            store.execute("BEGIN IMMEDIATE")
            for number, location in list(store.execute("SELECT experiment_id, artifact_location FROM experiments")):
                if moved := _here(location, former, here):
                    store.execute(
                        "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                        (moved.as_uri(), number),
                    )
            for table, column in ARTIFACT_COLUMNS:
                for row, location in list(store.execute(f"SELECT rowid, {column} FROM {table}")):
                    moved = _here(location, former, here)
                    if moved is None:
                        continue
                    if not moved.exists() and os.path.exists(local_file_uri_to_path(location)):  # noqa: PTH110
                        left_behind += 1  # Path.exists raises where a folder above may not be read
                        continue
                    store.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (moved.as_uri(), row))
    return Move(former=former[0], left_behind=left_behind, backup=backup)


def _connected(database: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", uri=True, timeout=20.0)


def _former_folders(store: sqlite3.Connection, here: Path) -> list[Path]:
    """Return other folders whose mlruns/<experiment> an experiment names, as this program registers it."""
    folders = []
    for number, name, location in store.execute("SELECT experiment_id, name, artifact_location FROM experiments"):
        path = _local(location)
        if path is None or path.parent.name != ARTIFACTS_FOLDER:
            continue
        own_name = path.name == name or (path.name == str(number) == DEFAULT_EXPERIMENT)
        folder = path.parent.parent
        if own_name and folder != here and os.path.realpath(folder) != str(here) and folder not in folders:
            folders.append(folder)
    return folders


def _here(location: str | None, former: list[Path], here: Path) -> Path | None:
    """Return the place in this folder of an artifact that was registered in a former folder, None for any other."""
    path = _local(location)
    if path is not None:
        for folder in former:
            if path.is_relative_to(folder / ARTIFACTS_FOLDER):
                return here / path.relative_to(folder)
    return None


def _local(location: str | None) -> Path | None:
    if not location or not is_local_uri(location):
        return None
    path = Path(local_file_uri_to_path(location))
    return path if path.is_absolute() else None


def _back_up(store: sqlite3.Connection, backup: Path) -> None:
    unfinished = backup.with_name(backup.name + ".new")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished)) as copy:
        store.backup(copy)
    unfinished.replace(backup)
