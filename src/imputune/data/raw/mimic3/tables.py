"""The raw tables on disk: finding them, checking their columns, and the SQL that reads them."""

import csv
import gzip
import re
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from imputune.data.raw.text import is_utf16, without_mark
from imputune.errors import UserError

_KEYS = {"subject_id": "BIGINT", "hadm_id": "BIGINT", "itemid": "BIGINT"}
NEEDED = {
    "patients": {"subject_id": "BIGINT", "gender": "VARCHAR", "dob": "TIMESTAMP"},
    "admissions": {"hadm_id": "BIGINT", "hospital_expire_flag": "INTEGER"},
    "icustays": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "icustay_id": "BIGINT",
        "first_careunit": "VARCHAR",
        "last_careunit": "VARCHAR",
        "first_wardid": "INTEGER",
        "last_wardid": "INTEGER",
        "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
    "d_items": {"itemid": "BIGINT", "linksto": "VARCHAR"},
    "d_labitems": {"itemid": "BIGINT"},
    "chartevents": _KEYS | {"charttime": "TIMESTAMP", "valuenum": "DOUBLE", "error": "INTEGER"},
    "labevents": _KEYS | {"charttime": "TIMESTAMP", "valuenum": "DOUBLE"},
    "outputevents": _KEYS | {"charttime": "TIMESTAMP", "value": "DOUBLE", "valueuom": "VARCHAR", "iserror": "INTEGER"},
    "inputevents_cv": _KEYS
    | {"charttime": "TIMESTAMP", "amount": "DOUBLE", "amountuom": "VARCHAR", "orderid": "BIGINT"},
    "inputevents_mv": _KEYS
    | {
        "starttime": "TIMESTAMP",
        "endtime": "TIMESTAMP",
        "amount": "DOUBLE",
        "amountuom": "VARCHAR",
        "orderid": "BIGINT",
        "statusdescription": "VARCHAR",
    },
}
"""The columns that are read from each table, and their types; other columns are ignored."""
FURTHER = {"admissions": {"subject_id": "BIGINT", "admittime": "TIMESTAMP", "dischtime": "TIMESTAMP"}}
"""Columns that are read if they are there: readmission needs them, and nothing else."""
CHUNK_BYTES = 1 << 20
_BUFFER_BYTES = 8_000_000  # of DuckDB, a quarter of its default: faster, with less memory


@dataclass(frozen=True)
class RawTable:
    """The file of a table, and the columns of its header in the file's order and case.

    A column whose name is no word, such as pandas's "Unnamed: 0", is called unnamed_ and its number.
    """

    name: str
    path: Path
    columns: tuple[str, ...]

    @property
    def packed(self) -> bool:
        """Whether the file is a .gz file."""
        return _packed(self.path)

    @property
    def types(self) -> dict[str, str]:
        """The types of the columns that are read, by name."""
        return NEEDED[self.name] | FURTHER.get(self.name, {})

    @property
    def has_further(self) -> bool:
        """Whether the table has all columns that are read if they are there."""
        return FURTHER.get(self.name, {}).keys() <= {column.lower() for column in self.columns}

    def select(self) -> str:
        """Return the SQL that reads the needed columns, for `reading.run_over`, which fills in the path."""
        compression = "gzip" if self.packed else "none"
        types = {column: self.types.get(column.lower(), "VARCHAR") for column in self.columns}
        columns = ", ".join(f"'{column}': '{kind}'" for column, kind in types.items())
        needed = ", ".join(f'"{column}" AS {column.lower()}' for column in types if column.lower() in self.types)
        return (
            f"SELECT {needed} FROM read_csv($path, columns = {{{columns}}}, auto_detect = false, "
            f"header = true, delim = ',', quote = '\"', escape = '\"', nullstr = '', compression = '{compression}', "
            f"buffer_size = {_BUFFER_BYTES})"
        )


def _packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def find_tables(raw: Path) -> dict[str, RawTable]:
    """Find the ten tables as .csv or .csv.gz; upper and lower case do not matter in names and columns.

    Raises UserError if the folder is missing, if tables or columns are missing (naming all of them), if a table has two
    files, for MIMIC-IV's tables, and for a file whose header cannot be read.
    """
    if not raw.is_dir():
        raise UserError(f"{raw} is not a folder: point --raw at the folder with MIMIC-III's .csv or .csv.gz tables")
    is_mimic4 = (raw / "hosp").is_dir() and (raw / "icu").is_dir()
    paths_of: dict[str, list[Path]] = {}
    for path in sorted(raw.iterdir()):
        if (match := re.fullmatch(r"(\w+)\.csv(\.gz)?", path.name.lower())) and path.is_file():
            paths_of.setdefault(match[1], []).append(path)
    for name in NEEDED:
        if len(same_table := paths_of.get(name, [])) > 1:
            raise UserError(f"{raw} holds {' and '.join(path.name for path in same_table)}: keep one of them")
    tables = {
        name: RawTable(name, paths_of[name][0], _header(name, paths_of[name][0])) for name in NEEDED if name in paths_of
    }
    columns = {name: {column.lower() for column in table.columns} for name, table in tables.items()}
    if is_mimic4 or "stay_id" in columns.get("icustays", ()) or "anchor_age" in columns.get("patients", ()):
        raise UserError(f"{raw} holds MIMIC-IV's tables (stay_id, anchor_age): point --raw at MIMIC-III v1.4's")
    missing = [f"table {name.upper()}" for name in NEEDED if name not in tables]
    for name, present in columns.items():
        if absent := [column.upper() for column in NEEDED[name] if column not in present]:
            missing.append(f"column {', '.join(absent)} in {tables[name].path.name}")
    if missing:
        raise UserError(f"{raw} lacks {'; '.join(missing)}: put MIMIC-III v1.4's tables there, as .csv or .csv.gz")
    return tables


def _header(name: str, path: Path) -> tuple[str, ...]:
    try:
        with opened(path) as rows:
            first = rows.readline(CHUNK_BYTES)
        line = without_mark(first).decode()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path} is truncated or damaged, or not a gzip file: fetch it again") from None
    except UnicodeDecodeError:
        if is_utf16(first):
            raise UserError(f"{path} is UTF-16 text: save it as UTF-8") from None
        line = ""
    except OSError:
        line = ""
    columns = _fields(line, ",")
    if not columns or not (all(map(_is_word, columns)) or _has_needed(name, columns)):
        for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
            if _has_needed(name, _fields(line, mark)):
                raise UserError(f"{path} separates its columns by {word}, not commas: write it again with commas")
        raise UserError(f"{path} has no header line of column names: fetch it again")
    columns = [column if _is_word(column) else f"unnamed_{number}" for number, column in enumerate(columns, start=1)]
    if len({column.lower() for column in columns}) < len(columns):
        raise UserError(f"{path} names a column twice in its header: fetch it again")
    return tuple(columns)


def _fields(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # no header is as long as csv's limit
        return []


def _is_word(column: str) -> bool:
    return re.fullmatch(r"\w+", column) is not None


def _has_needed(name: str, columns: list[str]) -> bool:
    return any(column.lower() in NEEDED[name] for column in columns)


def opened(path: Path) -> gzip.GzipFile | BufferedReader:
    """Open a table to read its bytes, unpacked."""
    return gzip.open(path) if _packed(path) else path.open("rb")
