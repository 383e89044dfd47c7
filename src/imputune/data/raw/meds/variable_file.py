"""The variable file: a CSV that says which codes are a variable, a static fact, or a mark such as an admission.

docs/meds.md describes its columns. A name may have several rows, one for each unit or form of its values.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import get_args

from imputune.data.raw.meds.variable_rows import (
    COLUMNS,
    MARKS,
    Kind,
    Mark,
    NamedRows,
    code_row,
    joined,
    named_rows,
    one_of,
    refuse_without_effect,
)
from imputune.data.raw.text import is_utf16, without_mark
from imputune.errors import UserError, near_miss

TOLD = ("description", "events", "subjects", "quantile_01", "median", "quantile_99")
"""Columns that `--suggest-variables` writes for the reader; the extraction does not use them."""
READY = ("mimic4", "eicu", "hirid")
"""Variable files that come with the program; see docs/meds.md for how far each was checked."""
USUAL_MARKS: Mapping[Mark, tuple[str, ...]] = {
    "start": ("ICU_ADMISSION", "ICU_ADMISSION//*"),
    "end": ("ICU_DISCHARGE", "ICU_DISCHARGE//*"),
    "birth": ("MEDS_BIRTH",),
    "death": ("MEDS_DEATH",),
    "admission": ("HOSPITAL_ADMISSION", "HOSPITAL_ADMISSION//*"),
    "discharge": ("HOSPITAL_DISCHARGE", "HOSPITAL_DISCHARGE//*"),
    "died": tuple(
        f"HOSPITAL_DISCHARGE//{word}{more}" for word in ("DIED", "Died", "EXPIRED", "Expired") for more in ("", "//*")
    ),
}
"""The codes of a mark that the variable file has no row for; MEDS_BIRTH and MEDS_DEATH are the standard's."""


@dataclass(frozen=True, kw_only=True)
class VariableFile:
    """What a variable file says. name: `mimic4`, `eicu` or `hirid`, or `own`; age: the row of kind age, if any."""

    name: str
    sha256: str
    variables: tuple[NamedRows, ...]
    statics: tuple[NamedRows, ...] = ()
    marks: Mapping[Mark, tuple[str, ...]] = field(default_factory=dict)
    age: NamedRows | None = None

    def codes_of(self, mark: Mark) -> tuple[str, ...]:
        """Return the codes and patterns of a mark, the usual ones if the file has no row for it."""
        return self.marks.get(mark) or USUAL_MARKS[mark]

    def with_mark(self, mark: Mark, patterns: tuple[str, ...]) -> "VariableFile":
        """Return the file with other codes for a mark."""
        return replace(self, marks={**self.marks, mark: patterns})


def read_variable_file(name: str) -> VariableFile:
    """Read a variable file: the name of one that comes with the program, or a path.

    Raises UserError, with the line, for a column that is unknown or missing, a cell that cannot be read, rows of one
    name that contradict each other, and a file without a variable.
    """
    if name in READY:
        return _read(_ready(name), f"{name}.csv", name)
    path = Path(name)
    if not path.is_file():
        known = near_miss(name, READY) or f" (ready ones: {', '.join(READY)})"
        raise UserError(f"--variables {name} is neither a file nor a ready one{known}: name one of them")
    try:
        return _read(path.read_bytes(), str(path), "own")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; change its permissions") from None


def ready_text(name: str) -> str:
    """Return the text of a variable file that comes with the program; raises UserError for another name."""
    if name not in READY:
        raise UserError(f"--variables {name} is no ready file{near_miss(name, READY)}: name one of {', '.join(READY)}")
    return _ready(name).decode()


def _ready(name: str) -> bytes:
    return (files("imputune.data.raw.meds") / f"{name}.csv").read_bytes()


def _read(content: bytes, where: str, name: str) -> VariableFile:
    grouped: dict[tuple[str, str], NamedRows] = {}
    marks: dict[Mark, tuple[str, ...]] = {}
    for line, cells in _lines(content, where):
        try:
            kind = one_of(cells, "kind", get_args(Kind)) if cells["kind"] else "variable"
            refuse_without_effect(kind, cells)
            row = code_row(line, cells)
            mark: Mark | None = "birth" if kind == "age" else next((each for each in MARKS if each == kind), None)
            if mark:
                marks[mark] = (*marks.get(mark, ()), *row.patterns)
            if kind in MARKS:
                continue
            named = named_rows(cells, "age_years" if kind == "age" else cells["name"])
            earlier = grouped.get((kind, named.name))
            grouped[kind, named.name] = joined(earlier, named, cells, row)
        except ValueError as error:
            raise UserError(f"{where}, line {line}: {error}") from None
    of_kind = {
        wanted: tuple(rows for (kind, _), rows in grouped.items() if kind == wanted) for wanted in get_args(Kind)
    }
    if not of_kind["variable"]:
        raise UserError(f"{where} has no row of a variable: give at least one, with a name and codes")
    ages = of_kind["age"]
    return VariableFile(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        variables=of_kind["variable"],
        statics=of_kind["static"],
        marks=marks,
        age=ages[0] if ages else None,
    )


def _lines(content: bytes, where: str) -> Iterable[tuple[int, dict[str, str]]]:
    """Return each row's line number, and its cells by column, "" where the file has no such column."""
    if is_utf16(content):
        raise UserError(f"{where} is UTF-16 text: save it as UTF-8")
    try:
        reader = csv.reader(io.StringIO(without_mark(content).decode(), newline=""), strict=True)
        header = [each.strip() for each in next(reader, [])]
        _check_header(header, where)
        rows = []
        for cells in reader:
            if any(each.strip() for each in cells):
                if len(cells) != len(header):
                    what = f"{len(cells)} fields, not {len(header)} as in the header"
                    raise UserError(f"{where}, line {reader.line_num}: {what}; correct the line")
                found = dict(zip(header, (each.strip() for each in cells), strict=True))
                rows.append((reader.line_num, dict.fromkeys(COLUMNS, "") | found))
    except UnicodeDecodeError:
        raise UserError(f"{where} is no UTF-8 text: save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{where} is no CSV table ({error}): save it as CSV") from None
    return rows


def _check_header(header: list[str], where: str) -> None:
    known = (*COLUMNS, *TOLD)
    if len(header) == 1 and (mark := next((each for each in (";", "\t") if each in header[0]), "")):
        word = "semicolons" if mark == ";" else "tabs"
        raise UserError(f"{where} separates its columns by {word}, not commas: save it with commas")
    if missing := [name for name in ("name", "codes") if name not in header]:
        raise UserError(f"{where} lacks the column {' and '.join(missing)} in its first line: add it")
    if unknown := [name for name in header if name not in known]:
        hint = near_miss(unknown[0], known) or f" (known columns: {', '.join(COLUMNS)})"
        raise UserError(f"{where} has an unknown column {unknown[0]!r}{hint}: rename or remove it")
    if len(set(header)) < len(header):
        raise UserError(f"{where} names a column twice in its first line: remove one")
