"""The command predict: load a registered model, read raw records for it, write what it predicts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from imputune.data.raw.binning import BinnedStays, totals
from imputune.data.raw.unlabelled import read_raw
from imputune.errors import UserError
from imputune.files import replace_bytes
from imputune.pipeline.project import Project
from imputune.registry.bundle import Bundle
from imputune.registry.local_store import find_locally
from imputune.registry.names import classifier_name
from imputune.registry.version import Version
from imputune.runtime.console import counted

SHOWN = 5  # variables or columns in a note
SHOWN_LETTERS = 60  # of a column's name


@dataclass(frozen=True, eq=False)
class Model:
    """A registered version and its loaded bundle."""

    version: Version
    bundle: Bundle

    @property
    def name(self) -> str:
        """The name in messages: registered model, version, variant."""
        return f"{self.version.name} version {self.version.number} ({self.version.variant})"


def load_model(project: Project, wanted: str) -> Model:
    """Load a dataset's classifier by alias or version number; UserError naming those that exist."""
    name = classifier_name(project.dataset, project.outcome)
    if found := find_locally(project.root, name, wanted):
        return Model(found.version, found.load())
    from imputune.registry.versions import Registry  # loads MLflow

    registry = Registry(project.root, name)
    version = registry.find(wanted)
    return Model(version, registry.load(version))


def read_stays(model: Model, records: Path) -> tuple[BinnedStays, list[str]]:
    """Bin raw records for a model; return them with notes on what was missing, clipped or ignored, one line each.

    Raises UserError for records that cannot be read; see `data.raw.unlabelled.read_raw`.
    """
    about = model.bundle.about
    stays = read_raw(records, about.variables, about.static, about.window)
    notes = []
    if absent := model.bundle.absent(stays):
        present = [name for name in model.bundle.about.variable_names if name not in absent]
        if present and len(present) < len(absent):
            note = (
                f"predictions use only {', '.join(present)}: no stay has a value of the other {len(absent)} variables"
            )
        else:
            them = "it" if len(absent) == 1 else "them"
            note = f"no stay has a value of {', '.join(absent)}: predictions do not use {them}"
        notes.append(note)
    if beyond := model.bundle.beyond_range(stays):
        named = ", ".join(f"{name} {count:,}" for name, count in list(beyond.items())[:SHOWN])
        more = ", ..." if len(beyond) > SHOWN else ""
        cells = sum(beyond.values())
        lie, were = ("lies", "was") if cells == 1 else ("lie", "were")
        values = counted(cells, f"{model.bundle.about.window.often} value")
        notes.append(f"{values} {lie} beyond the range of training and {were} clipped to it ({named}{more})")
    empty = int(np.isnan(stays.values_NTD).all(axis=(1, 2)).sum())
    if empty:
        of = counted(len(stays.stay_ids_N), "stay")
        notes.append(f"{empty:,} of {of} without a measurement: such a stay gets the risk of an empty record")
    notes += [f"{counted(rows, 'row')} ignored: {reason}" for reason, rows in totals(stays.ignored).items() if rows]
    if columns := stays.columns_not_read:
        named = ", ".join(_shown(column) for column in columns[:SHOWN])
        more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
        notes.append(f"columns not read: {named}{more}")
    return stays, notes


def _shown(column: str) -> str:
    """Return a column's name, cut, in quotation marks if it is blank or would not fit a line."""
    name = column[:SHOWN_LETTERS]
    return name if name.isprintable() and name.strip() else repr(name)


def check_ending(path: Path) -> None:
    """Raise UserError for a file that `write_table` could not write."""
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"{path} must end in .csv or .parquet: choose another file name")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as .csv or .parquet, by its ending, in one step; UserError for another, or a disk that refuses."""
    check_ending(path)
    csv = path.suffix == ".csv"
    replace_bytes(path, to_csv(table).encode() if csv else table.to_parquet(index=False))


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as text."""
    return table.to_csv(index=False, lineterminator="\n")
