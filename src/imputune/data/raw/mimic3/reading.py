"""Reading the rows of a raw table with DuckDB: progress, truncated files, and failures in one line."""

import gzip
import os
import re
import threading
import zlib
from pathlib import Path

import duckdb

from imputune.data.raw.database import cannot_write, reported
from imputune.data.raw.mimic3.tables import CHUNK_BYTES, NEEDED, RawTable, opened
from imputune.errors import UserError
from imputune.files import FileProgress

KINDS = {"BIGINT": "whole number", "INTEGER": "whole number", "DOUBLE": "number", "TIMESTAMP": "date and time"}


class _Check(threading.Thread):
    """Unpacks a table to its end while DuckDB reads it, because DuckDB does not notice a truncated file."""

    def __init__(self, path: Path, database: duckdb.DuckDBPyConnection) -> None:
        super().__init__(daemon=True)
        self.path, self.database = path, database
        self.failure, self.is_over = "", False

    def run(self) -> None:
        try:
            with opened(self.path) as rows:
                while not self.is_over and rows.read(CHUNK_BYTES):
                    pass
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.failure = f"{self.path} is truncated or damaged: fetch it again and compare its checksum"
        except OSError as error:
            self.failure = f"cannot read {self.path}: {os.strerror(error.errno or 0)}; check the file"
        if self.failure and not self.is_over:
            self.database.interrupt()

    def finish(self) -> None:
        """Wait for the end of the check, if one was started."""
        if self.is_alive():
            self.join()


def run_over(database: duckdb.DuckDBPyConnection, table: RawTable, sql: str, progress: FileProgress) -> None:
    """Run a statement that contains `table.select()`, and report how much of the table has been read.

    Raises UserError for a truncated or damaged file, and with the line of `explained` if DuckDB fails. No message
    contains values of a row.
    """
    size = table.path.stat().st_size
    check = _Check(table.path, database)
    try:
        with reported(database, table.path.name, size, progress):
            if table.packed:
                check.start()
            database.execute(sql, {"path": str(table.path)})
            check.finish()
    except (duckdb.Error, RuntimeError) as error:
        padded = table.packed and "not a GZIP stream" in str(error)
        if padded or "CSV Error" in str(error):
            check.finish()  # a truncated file's last line is broken too
        if padded and not check.failure:  # Python's gzip passes over zeros, DuckDB does not
            check.failure = f"{table.path} has zero bytes after the end of the archive: remove them or fetch it again"
        if not check.failure and isinstance(error, duckdb.Error):
            raise UserError(explained(error, table)) from None
        if not check.failure:
            raise  # a RuntimeError is how DuckDB reports Ctrl-C
    finally:
        check.is_over = True
        check.finish()
    if check.failure:
        raise UserError(check.failure)
    progress(table.path.name, size, size)


def explained(error: duckdb.Error, table: RawTable | None = None) -> str:
    """Return one line that explains a failure of DuckDB and its remedy, without values of a row."""
    text = str(error)
    if cannot_write(error):
        return "cannot write temporary files in data/: free the disk"
    if isinstance(error, duckdb.OutOfMemoryException):
        return "DuckDB needs more memory than mimic3.memory_gib in params.yaml gives it: raise it"
    line = re.search(r"CSV Error on Line: (\d+)", text)
    if table is not None and re.search("unicode|utf-?8", text, re.IGNORECASE):
        return f"{table.path}{f', line {line[1]}' if line else ''}: no UTF-8 text; fetch the table again"
    if table is not None and line:
        place = f"{table.path}, line {line[1]}"
        if column := re.search(r'Error when converting column "(\w+)"', text):
            kind = KINDS.get(NEEDED[table.name].get(column[1].lower(), ""), "text")
            return f"{place}: {column[1]} is not a {kind}; correct the line or fetch the table again"
        if "quote" in text.split("Possible")[0]:
            return f"{place}: a quotation mark is not closed, or closed too early; fetch the table again"
        return f"{place}: not {len(table.columns)} fields as in the header; correct it or fetch the table again"
    where = f" while reading {table.path}" if table else ""
    return f"DuckDB failed{where} ({type(error).__name__}): fetch the tables again, or free memory and disk"
