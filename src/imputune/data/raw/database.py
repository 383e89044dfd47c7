"""DuckDB for extractions: a scratch folder in the project's data/, a database in it, and how far a query has got."""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
from filelock import FileLock, Timeout

from imputune.errors import UserError
from imputune.files import FileProgress

REPORT_SECONDS = 0.2


@contextmanager
def scratch_folder(home: Path, dataset: str, command: str = "") -> Iterator[Path]:
    """Yield a folder for temporary files; remove leftovers of a killed extraction before, and the folder afterwards.

    command: what uses the folder, an extraction of the dataset unless it is given.

    Raises UserError if another such command uses the folder, or the folder cannot be written.
    """
    scratch = home / f".{dataset}.scratch"
    lock = FileLock(scratch / "lock", timeout=0)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        for path in scratch.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except Timeout:
        other = command or f"imputune extract {dataset}"
        raise UserError(f"another `{other}` writes to {home}: wait until it has ended") from None
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot write {scratch}: {cause}; free the disk, or change its permissions") from None
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


@contextmanager
def open_database(
    scratch: Path, memory_gib: float, threads: int, explain: Callable[[duckdb.Error], str]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in the scratch folder; a failure of DuckDB becomes a UserError with the line of `explain`."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_gib}GiB",
        "threads": threads,
        "temp_directory": str(scratch / "spilled"),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
    }
    try:
        with duckdb.connect(scratch / "events.duckdb", config=settings) as database:
            # DuckDB reports the progress of a query only if its progress bar is on, printed or not.
            database.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
            yield database
    except duckdb.Error as error:
        raise UserError(explain(error)) from None
    except RuntimeError as error:
        if "interrupted" not in str(error):
            raise
        raise KeyboardInterrupt from None  # DuckDB turns Ctrl-C into a RuntimeError


@contextmanager
def reported(database: duckdb.DuckDBPyConnection, name: str, size: int, progress: FileProgress) -> Iterator[None]:
    """Report how much of `size` bytes the query of the block has read, until the block ends."""
    done = threading.Event()

    def report() -> None:
        while not done.wait(REPORT_SECONDS):
            progress(name, round(size * max(database.query_progress(), 0) / 100), size)

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()


def create_table(database: duckdb.DuckDBPyConnection, name: str, content: pa.Table) -> None:
    """Create a temporary table of these rows."""
    database.register("incoming", content)
    database.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM incoming")
    database.unregister("incoming")


def cannot_write(error: duckdb.Error) -> bool:
    """Say whether DuckDB failed because temporary files could not be written."""
    full = "No space left|max_temp_directory_size|Could not write|could not write|File too large"
    return re.search(full, str(error)) is not None
