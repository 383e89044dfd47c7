"""The raw tables on disk: which are there, their columns, and their rows on the way into DuckDB."""

import csv
import gzip
import io
import os
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb

from imputune.errors import UserError
from imputune.files import Watch

NEEDED = {
    "patients": {"subject_id": "BIGINT", "gender": "VARCHAR", "dob": "TIMESTAMP"},
    "admissions": {"hadm_id": "BIGINT", "hospital_expire_flag": "INTEGER"},
    "icustays": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "icustay_id": "BIGINT"},
        **{
            "first_careunit": "VARCHAR",
            "last_careunit": "VARCHAR",
            "first_wardid": "INTEGER",
            "last_wardid": "INTEGER",
        },
        **{"intime": "TIMESTAMP", "outtime": "TIMESTAMP"},
    },
    "d_items": {"itemid": "BIGINT", "linksto": "VARCHAR"},
    "d_labitems": {"itemid": "BIGINT"},
    "chartevents": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "itemid": "BIGINT", "charttime": "TIMESTAMP"},
        **{"valuenum": "DOUBLE", "error": "INTEGER"},
    },
    "labevents": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "itemid": "BIGINT", "charttime": "TIMESTAMP"},
        **{"valuenum": "DOUBLE"},
    },
    "outputevents": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "itemid": "BIGINT", "charttime": "TIMESTAMP"},
        **{"value": "DOUBLE", "valueuom": "VARCHAR", "iserror": "INTEGER"},
    },
    "inputevents_cv": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "itemid": "BIGINT", "charttime": "TIMESTAMP"},
        **{"amount": "DOUBLE", "amountuom": "VARCHAR"},
    },
    "inputevents_mv": {
        **{"subject_id": "BIGINT", "hadm_id": "BIGINT", "itemid": "BIGINT", "starttime": "TIMESTAMP"},
        **{"endtime": "TIMESTAMP", "amount": "DOUBLE", "amountuom": "VARCHAR", "statusdescription": "VARCHAR"},
    },
}
"""The columns that are read of each table, and their types; the others are passed over."""
KINDS = {"BIGINT": "whole number", "INTEGER": "whole number", "DOUBLE": "number", "TIMESTAMP": "date and time"}
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RawTable:
    """One table's file and the columns of its header, in the file's order and case."""

    name: str
    path: Path
    columns: tuple[str, ...]

    def select(self) -> str:
        """Return the SQL that reads the needed columns, for `run_over`, which fills in the place of the rows."""
        types = {column: NEEDED[self.name].get(column.lower(), "VARCHAR") for column in self.columns}
        columns = ", ".join(f"'{column}': '{kind}'" for column, kind in types.items())
        needed = ", ".join(f'"{column}" AS {column.lower()}' for column in types if column.lower() in NEEDED[self.name])
        return (
            f"SELECT {needed} FROM read_csv($path, columns = {{{columns}}}, auto_detect = false, "
            "header = true, delim = ',', quote = '\"', escape = '\"', nullstr = '', compression = 'none')"
        )


def find_tables(raw: Path) -> dict[str, RawTable]:
    """Find the ten tables as .csv or .csv.gz, their names and columns in any case.

    Raises UserError when the folder is missing, for all missing tables and columns at once, for two files of one
    table, for MIMIC-IV's tables, and for a file whose header cannot be read.
    """
    if not raw.is_dir():
        raise UserError(f"{raw} is no folder: point --raw at the folder with MIMIC-III's .csv or .csv.gz tables")
    found: dict[str, list[Path]] = {}
    for path in sorted(raw.iterdir()):
        if (match := re.fullmatch(r"(\w+)\.csv(\.gz)?", path.name.lower())) and path.is_file():
            found.setdefault(match[1], []).append(path)
    for name in NEEDED:
        if len(paths := found.get(name, [])) > 1:
            raise UserError(f"{raw} holds {' and '.join(path.name for path in paths)}: keep one of them")
    tables = {name: RawTable(name, found[name][0], _header(found[name][0])) for name in NEEDED if name in found}
    columns = {name: {column.lower() for column in table.columns} for name, table in tables.items()}
    if "stay_id" in columns.get("icustays", ()) or "anchor_age" in columns.get("patients", ()):
        raise UserError(f"{raw} holds MIMIC-IV's tables (stay_id, anchor_age): imputune reads MIMIC-III v1.4")
    missing = [f"table {name.upper()}" for name in NEEDED if name not in tables]
    for name, there in columns.items():
        if absent := [column.upper() for column in NEEDED[name] if column not in there]:
            missing.append(f"{', '.join(absent)} in {tables[name].path.name}")
    if missing:
        raise UserError(f"{raw} lacks {'; '.join(missing)}: put MIMIC-III v1.4's tables there, as .csv or .csv.gz")
    return tables


def _header(path: Path) -> tuple[str, ...]:
    try:
        with _opened(path) as (rows, _):
            line = rows.readline(_CHUNK_BYTES).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        line = ""
    columns = next(csv.reader([line]), [])
    if not columns or not all(re.fullmatch(r"\w+", column) for column in columns):
        raise UserError(f"{path} has no header line of column names: fetch it again")
    if len({column.lower() for column in columns}) < len(columns):
        raise UserError(f"{path} names a column twice in its header: fetch it again")
    return tuple(columns)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Give a table's uncompressed bytes, and the file below, whose position tells how much of it was read."""
    with path.open("rb") as file:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield io.BufferedReader(unpacked, _CHUNK_BYTES), file
        else:
            yield file, file


class _Feeder(threading.Thread):
    """Unpacks a table into a pipe, so that DuckDB parses while the next rows are unpacked."""

    def __init__(self, table: RawTable, pipe: int) -> None:
        super().__init__(daemon=True)
        self.path, self.pipe = table.path, pipe
        self.came, self.failure = 0, ""

    def run(self) -> None:
        try:
            with os.fdopen(self.pipe, "wb", buffering=0) as pipe, _opened(self.path) as (rows, file):
                while chunk := rows.read(_CHUNK_BYTES):
                    pipe.write(chunk)
                    self.came = file.tell()
        except BrokenPipeError:
            pass  # DuckDB stopped reading, and says why
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.failure = f"{self.path} is truncated or damaged: fetch it again and compare its checksum"
        except OSError as error:
            self.failure = f"cannot read {self.path}: {os.strerror(error.errno or 0)}; check the file"


def run_over(database: duckdb.DuckDBPyConnection, table: RawTable, sql: str, watch: Watch) -> None:
    """Run a statement that reads a table once, by `table.select()` in it; the watcher hears how far it has come.

    Raises UserError for a truncated or damaged file, and as `explained` does. Nothing that a row holds is in a message.
    """
    reading, writing = os.pipe()
    feeder = _Feeder(table, writing)
    size = table.path.stat().st_size
    done = threading.Event()

    def report() -> None:
        while not done.wait(0.2):
            watch(table.path.name, feeder.came, size)

    reporter = threading.Thread(target=report, daemon=True)
    try:
        feeder.start()
        reporter.start()
        database.execute(sql, {"path": f"/dev/fd/{reading}"})
    except duckdb.Error as error:
        os.close(reading)
        reading = -1
        feeder.join()
        raise UserError(feeder.failure or explained(error, table)) from None
    finally:
        if reading >= 0:
            os.close(reading)
        feeder.join()
        done.set()
        reporter.join()
    if feeder.failure:
        raise UserError(feeder.failure)
    watch(table.path.name, size, size)


def explained(error: duckdb.Error, table: RawTable | None = None) -> str:
    """Return one line for a failure of DuckDB, with what to do, and nothing of what a row holds."""
    text = str(error)
    if "No space left" in text or "max_temp_directory_size" in text:
        return "the disk is full: free some of it, or write elsewhere with --out (temporary files stand beside it)"
    if isinstance(error, duckdb.OutOfMemoryException):
        return "DuckDB needs more memory than mimic3.memory_gib in params.yaml gives it: raise it"
    line = re.search(r"CSV Error on Line: (\d+)", text)
    if table is not None and line:
        place = f"{table.path}, line {line[1]}"
        if column := re.search(r'Error when converting column "(\w+)"', text):
            kind = KINDS.get(NEEDED[table.name].get(column[1].lower(), ""), "text")
            return f"{place}: {column[1]} is no {kind}; correct the line or fetch the table again"
        return f"{place}: not {len(table.columns)} fields as in the header; correct it or fetch the table again"
    where = f" while reading {table.path}" if table else ""
    return f"DuckDB failed{where} ({type(error).__name__}): fetch the tables again, or free memory and disk"
