"""MIMIC-III's raw tables to a cohort, in bounded memory; whatever is written on the way stands in a scratch folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

import imputune
from imputune.data.cohort import (
    DESCRIPTORS,
    HOURS,
    Cohort,
    Variable,
)
from imputune.data.raw.mimic3.events import check_items, combined_cells, stage_events
from imputune.data.raw.mimic3.stays import choose_stays
from imputune.data.raw.mimic3.tables import RawTable, explained, find_tables
from imputune.data.raw.mimic3.variables import VARIABLES
from imputune.errors import UserError
from imputune.files import Watch, unwatched
from imputune.settings.schema import Mimic3

PAPER_STAYS = 14_365
"""Stays in the paper's extract; the rules that lead to them are not published."""
SPACE_SHARE = 0.05
"""Disk that must be free, as a share of the unpacked tables; docs/speed.md has what the temporary files took."""
UNPACKED_SHARE = 8
"""How many times as large as its .gz a table is, about."""


def extract_mimic3(raw: Path, rules: Mimic3, home: Path, threads: int, watch: Watch = unwatched) -> Cohort:
    """Read MIMIC-III v1.4's tables in `raw` into a cohort of 89 variables; temporary files stand in `home`.

    Stays are numbered from 1 in the order of their ICUSTAY_ID, which only data/ keeps (`source_ids_N`). Memory is
    bounded by `rules.memory_gib`, beside the cohort's own values. The watcher hears of each table's bytes.

    Raises UserError for missing or damaged tables, another database, no stay left (with the counts), or a full disk;
    no message tells what a row holds. Temporary files are removed in any case.

    Sources: Johnson et al. 2016 (MIMIC-III); Harutyunyan et al. 2019 and Purushotham et al. 2018 (cohort, variables).
    """
    with _scratch(home) as scratch:  # first, so that even a call that fails removes what a killed one left
        tables = find_tables(raw)
        _check_space(scratch, tables)
        with _database(scratch, rules, threads) as database:
            return _extract(database, tables, rules, watch)


def _extract(database: duckdb.DuckDBPyConnection, tables: dict[str, RawTable], rules: Mimic3, watch: Watch) -> Cohort:
    check_items(database, tables)
    all_stays, left_out = choose_stays(database, tables, rules)
    stays = database.execute("SELECT * FROM stays ORDER BY stay").df()
    if not len(stays):
        raise _nobody(all_stays, left_out)
    staged = stage_events(database, tables, watch)
    values_NTD = np.full((len(stays), HOURS, len(VARIABLES)), np.nan, dtype=np.float32)
    repeated = 0
    for cells, values, dropped in combined_cells(database, len(stays)):
        values_NTD.reshape(-1)[cells] = values
        repeated += dropped
    measured_N = np.array([not np.isnan(values_TD).all() for values_TD in values_NTD])
    left_out["without a measurement"] = int((~measured_N).sum())
    if not measured_N.any():
        raise _nobody(all_stays, left_out)
    stays, values_NTD = stays[measured_N], values_NTD if measured_N.all() else values_NTD[measured_N]
    source: dict[str, Any] = {
        "command": "imputune extract mimic3",
        "version": imputune.__version__,
        "rules": rules.model_dump(exclude={"memory_gib"}),
        "stays_read": all_stays,
        "rows_in_the_stays_hours": staged.pop(""),
        "rows_dropped": staged | {"repeating another": repeated},
        "exclusions": left_out,
    }
    return Cohort(
        dataset="mimic3",
        stay_ids_N=np.arange(1, len(stays) + 1),
        died_N=stays["died"].to_numpy(np.int8),
        values_NTD=values_NTD,
        variables=tuple(Variable(variable.name, variable.unit) for variable in VARIABLES),
        descriptors=_descriptors(stays, values_NTD),
        source=source,
        source_ids_N=stays["icustay_id"].to_numpy(np.int64),
    )


def _descriptors(stays: pd.DataFrame, values_NTD: np.ndarray) -> pd.DataFrame:
    """Return the stays' descriptors; height and weight are the first that was measured."""
    names = [variable.name for variable in VARIABLES]
    first = {}
    for descriptor, name in (("height_cm", "height"), ("weight_kg", "weight")):
        values_NT = values_NTD[:, :, names.index(name)]
        hour_N1 = (~np.isnan(values_NT)).argmax(axis=1)[:, None]
        first[descriptor] = np.take_along_axis(values_NT, hour_N1, axis=1)[:, 0].astype(np.float64)
    known = {name: stays[name].to_numpy(np.float64) for name in ("age_years", "gender", "icu_type")}
    return pd.DataFrame(known | first)[list(DESCRIPTORS)]


def _nobody(all_stays: int, left_out: dict[str, int]) -> UserError:
    counts = ", ".join(f"{count:,} {rule}" for rule, count in left_out.items() if count)
    return UserError(
        f"none of the {all_stays:,} ICU stays is left ({counts or 'ICUSTAYS is empty'}): check the tables, or change "
        "the rules under mimic3 in params.yaml"
    )


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """Give a folder for temporary files, removed at the end; what a killed extraction left is removed first.

    Raises UserError when another extraction works there, or the folder cannot be written.
    """
    scratch = home / ".mimic3.scratch"
    lock = FileLock(scratch / "lock", timeout=0)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        for path in scratch.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except Timeout:
        raise UserError(f"another `imputune extract mimic3` writes to {home}: wait for its end") from None
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot write {scratch}: {cause}; free the disk, or let yourself write there") from None
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def _check_space(scratch: Path, tables: dict[str, RawTable]) -> None:
    unpacked = [table.path.stat().st_size * (UNPACKED_SHARE if table.packed else 1) for table in tables.values()]
    needed = SPACE_SHARE * sum(unpacked)
    free = shutil.disk_usage(scratch).free
    if free < needed:
        raise UserError(
            f"temporary files may take {needed / 2**30:.1f} GiB and {scratch.parent} has {free / 2**30:.1f} free: "
            "free the disk"
        )


@contextmanager
def _database(scratch: Path, rules: Mimic3, threads: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in the scratch folder; what DuckDB says of a failure goes into one line without any row."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{rules.memory_gib}GiB",
        "threads": threads,
        "temp_directory": str(scratch / "spilled"),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
    }
    try:
        with duckdb.connect(scratch / "events.duckdb", config=settings) as database:
            # Only with a progress bar, printed or not, does DuckDB tell how far a query is.
            database.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
            # It takes a packed table for a small one, and would hold its rows in memory to join stays to them.
            database.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
            yield database
    except duckdb.Error as error:
        raise UserError(explained(error)) from None
    except RuntimeError as error:
        if "interrupted" not in str(error):
            raise
        raise KeyboardInterrupt from None  # as which DuckDB hears it
