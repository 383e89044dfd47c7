"""The CSV tables of a cohort's folder, as text, and the one that describes its static facts: static.csv."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from imputune.data.static import StaticVariable

COLUMNS = ("name", "parameter", "unit", "categories", "lowest", "highest", "first_of")


def write_static_variables(variables: Sequence[StaticVariable], path: Path) -> None:
    """Write a row for each static variable; its categories are separated by blanks."""
    rows = []
    for each in variables:
        lowest, highest = (f"{limit:g}" for limit in each.limits) if each.limits else ("", "")
        categories = " ".join(map(str, each.categories))
        rows.append((each.name, each.parameter, each.unit, categories, lowest, highest, each.first_of))
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(path, index=False, lineterminator="\n")


def read_static_variables(path: Path) -> tuple[StaticVariable, ...]:
    """Read what `write_static_variables` wrote; raises ValueError or KeyError for anything else."""
    return tuple(_variable(row) for _, row in read_text_table(path).iterrows())


def _variable(row: pd.Series) -> StaticVariable:
    return StaticVariable(
        name=row["name"],
        parameter=row["parameter"],
        unit=row["unit"],
        categories=tuple(int(value) for value in row["categories"].split()),
        limits=(float(row["lowest"]), float(row["highest"])) if row["lowest"] else None,
        first_of=row["first_of"],
    )


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a table of a cohort's folder, as text; ValueError where a part of it is missing."""
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        raise ValueError(f"{path.name} is cut off")
    return text_table(text, path.name)


def text_table(text: str, name: str) -> pd.DataFrame:
    """Return a CSV table as text; ValueError or csv.Error, which call it `name`, where it is none."""
    if not text.strip():
        raise ValueError(f"{name} is empty")
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"row {number} of {name} has {len(row)} fields, not {len(header)}")
    if len(set(header)) < len(header):
        raise ValueError(f"{name} names a column twice")
    return pd.DataFrame(rows, columns=header, dtype=object)
