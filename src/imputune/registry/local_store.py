"""Finding a registered version in the project's own SQLite store without MLflow, which takes two seconds to load."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from imputune.registry.bundle import Bundle
from imputune.registry.bundle_file import load_version
from imputune.registry.names import BUNDLE_FOLDER
from imputune.registry.version import Version
from imputune.tracking.moved import former_folder, local_path
from imputune.tracking.sqlite import own_database

SCHEMA = "dc11669786a5"
"""The schema that is read here: that of the MLflow version which pyproject.toml pins, by its name in the store."""
ELSEWHERE = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE")
"""Variables that make MLflow read another store, or another part of it."""
VERSION = """
    SELECT version, run_id, description, storage_location FROM model_versions
    WHERE name = :name AND workspace = 'default' AND current_stage IS NOT 'Deleted_Internal' AND version = (
        SELECT CAST(:wanted AS INTEGER) WHERE :is_number
        UNION SELECT version FROM registered_model_aliases
        WHERE name = :name AND workspace = 'default' AND alias = :wanted AND NOT :is_number)
"""
TAGS = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ? AND workspace = 'default'"


@dataclass(frozen=True, eq=False)
class LocalVersion:
    """A registered version, and the folder of its bundle."""

    version: Version
    folder: Path

    def load(self) -> Bundle:
        """Load the bundle; see `bundle_file.load_version` for the errors."""
        return load_version(self.version, self.folder)


def find_locally(root: Path, name: str, wanted: str) -> LocalVersion | None:
    """Return a version by its alias or number, as `versions.Registry.find` does, from the project's own store.

    It is None wherever MLflow has to look, or has to say what is wrong: a variable names another store (`ELSEWHERE`),
    there is no store, it is of another MLflow version or of a moved project, it lacks the version or cannot be read, or
    the bundle is not on this machine. Nothing is written.
    """
    database = own_database(root)
    if any(map(os.environ.get, ELSEWHERE)) or not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as store:
            store.execute("BEGIN")  # the version and its tags at one moment, whatever another command changes
            if store.execute("SELECT version_num FROM alembic_version").fetchall() != [(SCHEMA,)]:
                return None
            found = store.execute(VERSION, {"name": name, "wanted": wanted, "is_number": wanted.isdecimal()}).fetchone()
            if found is None or former_folder(database) is not None:
                return None
            number, run_id, description, place = found
            tags = dict(store.execute(TAGS, (name, number)))
    except sqlite3.Error:
        return None
    folder = local_path(place)
    if folder is None or not (folder / BUNDLE_FOLDER).is_dir():
        return None
    version = Version(name=name, number=number, run_id=run_id or "", tags=tags, description=description or "")
    return LocalVersion(version, folder / BUNDLE_FOLDER)
