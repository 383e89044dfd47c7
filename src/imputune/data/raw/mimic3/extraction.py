"""From MIMIC-III's raw tables to a cohort, in limited memory; temporary files are written to a scratch folder."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from pydantic import BaseModel, JsonValue

import imputune
from imputune.data.cohort import Cohort, Variable
from imputune.data.outcome_file import NO_LABEL, Labels
from imputune.data.raw.database import open_database, scratch_folder
from imputune.data.raw.mimic3.events import check_items, collect_events, combined_cells
from imputune.data.raw.mimic3.reading import explained
from imputune.data.raw.mimic3.stays import choose_stays, is_known_early
from imputune.data.raw.mimic3.tables import RawTable, find_tables
from imputune.data.raw.mimic3.variables import STATIC, VARIABLES
from imputune.data.static import first_values
from imputune.data.window import Window
from imputune.data.window_file import stay_windows
from imputune.errors import UserError
from imputune.files import FileProgress, no_progress
from imputune.settings.schema import Mimic3

DATASET = "mimic3"
PAPER_STAYS = 14_365
"""Number of stays in the paper's extract; its rules are not published."""
READMISSION = "readmission_within_30_days"
DAYS_OF = {"los_over_3_days": 3, "los_over_7_days": 7}
SPACE_FRACTION = 0.05
"""Disk space that must be free, as a fraction of the unpacked tables; docs/speed.md has measurements."""
UNPACKED_RATIO = 8
"""Approximate ratio of a table's size to the size of its .gz file."""


def _no_note(text: str) -> None:
    """Tell nobody."""


class Mimic3Source(BaseModel, frozen=True, extra="forbid"):
    """Where a cohort of MIMIC-III came from: the rules, what was read, and what was left out, by reason.

    stays_shorter_than_the_window: None if the rules keep no such stay. records: the dataset of the usual window, which
    has the same patients; None for this one itself.
    """

    command: str
    version: str
    rules: dict[str, JsonValue]
    stays_read: int
    stays_shorter_than_the_window: int | None = None
    rows_in_the_stays_hours: int
    rows_dropped: dict[str, int]
    exclusions: dict[str, int]
    records: str | None = None


def extract_mimic3(
    raw: Path,
    rules: Mimic3,
    home: Path,
    threads: int,
    progress: FileProgress = no_progress,
    note: Callable[[str], None] = _no_note,
    window: Window | None = None,
) -> Cohort:
    """Read MIMIC-III v1.4's tables in `raw` into a cohort of 89 variables; temporary files are written to `home`.

    `window` is the first 48 hours in hourly bins unless another is given, whose cohort is a dataset of its own. In a
    stay that is shorter than the window, bins after its end have no value.

    Stays are numbered from 1 in the order of their ICUSTAY_ID, which is stored in data/ only (`source_ids_N`). Memory
    is limited to `rules.memory_gib` beside the cohort's own values. `progress` receives the bytes read of each table,
    `note` a line for each further outcome that the cohort cannot have.

    Raises UserError for missing or damaged tables, another database, no stay left (with the counts), or a full disk;
    no message contains values of a row. Temporary files are always removed.

    Sources: Johnson et al. 2016 (MIMIC-III); Harutyunyan et al. 2019 and Purushotham et al. 2018 (cohort, variables).
    """
    window = window or Window()
    window.check()
    # First, so that leftovers of a killed extraction are removed even if this one fails.
    with scratch_folder(home, "mimic3") as scratch:
        tables = find_tables(raw)
        _check_space(scratch, tables)
        with open_database(scratch, rules.memory_gib, threads, explained) as database:
            # DuckDB assumes that a packed table is small, and would keep its rows in memory to join the stays to them.
            database.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
            return _extract(
                _Reading(database=database, tables=tables, rules=rules, window=window, progress=progress, note=note)
            )


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """The tables, how they are read, and who hears of it."""

    database: duckdb.DuckDBPyConnection
    tables: dict[str, RawTable]
    rules: Mimic3
    window: Window
    progress: FileProgress
    note: Callable[[str], None]


def _extract(reading: _Reading) -> Cohort:
    database, rules, window = reading.database, reading.rules, reading.window
    check_items(database, reading.tables)
    all_stays, left_out = choose_stays(database, reading.tables, rules, window)
    stays = database.execute("SELECT * FROM stays ORDER BY stay").df()
    if not len(stays):
        raise _no_stay_left(all_stays, left_out)
    collected = collect_events(database, reading.tables, window, reading.progress)
    values_NTD = np.full((len(stays), window.bins, len(VARIABLES)), np.nan, dtype=np.float32)
    repeated = 0
    for cells, values, dropped in combined_cells(database, len(stays), window):
        values_NTD.reshape(-1)[cells] = values
        repeated += dropped
    measured_N = np.array([not np.isnan(values_TD).all() for values_TD in values_NTD])
    left_out["without a measurement"] = int((~measured_N).sum())
    if not measured_N.any():
        raise _no_stay_left(all_stays, left_out)
    stays, values_NTD = stays[measured_N], values_NTD if measured_N.all() else values_NTD[measured_N]
    source = Mimic3Source(
        command=window.command("imputune extract mimic3"),
        version=imputune.__version__,
        rules=rules.model_dump(exclude={"memory_gib"}),
        stays_read=all_stays,
        stays_shorter_than_the_window=_shorter(stays, window) if rules.minimum_hours < window.hours else None,
        rows_in_the_stays_hours=collected.rows,
        rows_dropped=collected.dropped | {"repeating another": repeated},
        exclusions=left_out,
        records=None if window == Window() else DATASET,
    )
    return Cohort(
        dataset=window.dataset_name(DATASET),
        stay_ids_N=np.arange(1, len(stays) + 1),
        outcome_N=stays["died"].to_numpy(np.int8),
        values_NTD=values_NTD,
        variables=tuple(Variable(variable.name, variable.unit) for variable in VARIABLES),
        static=_static(stays, values_NTD),
        static_variables=STATIC,
        source=source.model_dump(exclude_none=True),
        source_ids_N=stays["icustay_id"].to_numpy(np.int64),
        other_outcomes=_further_outcomes(stays, window, reading.note),
        bin_hours=window.bin_hours,
        windows=stay_windows(
            stays["subject_id"].to_numpy(np.int64),
            *(stays[name].to_numpy() for name in ("intime", "until", "next_start")),
        ),
    )


def _shorter(stays: pd.DataFrame, window: Window) -> int:
    return int((stays["until"] < stays["intime"] + pd.Timedelta(hours=window.hours)).sum())


def _further_outcomes(stays: pd.DataFrame, window: Window, note: Callable[[str], None]) -> dict[str, Labels]:
    """Return the labels of further outcomes by name; one without two values is left out, and `note` is told."""
    labels: dict[str, Labels] = {
        name: np.array(stays[name].astype("Float64").fillna(NO_LABEL), dtype=np.int8)
        for name in (*DAYS_OF, READMISSION)
    }
    values = {name: set(label_N.tolist()) - {NO_LABEL} for name, label_N in labels.items()}
    for name, found in values.items():
        if len(found) < 2:
            why = "its labels have one value only" if found else f"no stay has a label ({_why_none(name, window)})"
            note(f"{name} is no outcome of this cohort: {why}")
    return {name: label_N for name, label_N in labels.items() if len(values[name]) == 2}


def _why_none(name: str, window: Window) -> str:
    if name == READMISSION:
        return "ADMISSIONS needs SUBJECT_ID, ADMITTIME and DISCHTIME"
    known_early = is_known_early(DAYS_OF[name], window)
    return f"it is known at hour {window.hours}, when the window ends" if known_early else "no time"


def _static(stays: pd.DataFrame, values_NTD: np.ndarray) -> pd.DataFrame:
    """Return the stays' static data; height and weight are the first measured values."""
    names = [variable.name for variable in VARIABLES]
    return pd.DataFrame(
        {
            each.name: first_values(values_NTD, names.index(each.first_of))
            if each.first_of
            else stays[each.name].to_numpy(np.float64)
            for each in STATIC
        }
    )


def _no_stay_left(all_stays: int, left_out: dict[str, int]) -> UserError:
    counts = ", ".join(f"{count:,} {rule}" for rule, count in left_out.items() if count)
    return UserError(
        f"all {all_stays:,} ICU stays were left out ({counts or 'ICUSTAYS is empty'}): check the tables, or change "
        "the rules under mimic3 in params.yaml"
    )


def _check_space(scratch: Path, tables: dict[str, RawTable]) -> None:
    unpacked = [table.path.stat().st_size * (UNPACKED_RATIO if table.packed else 1) for table in tables.values()]
    needed = SPACE_FRACTION * sum(unpacked)
    free = shutil.disk_usage(scratch).free
    if free < needed:
        raise UserError(
            f"temporary files may take {needed / 2**30:.1f} GiB and {scratch.parent} has {free / 2**30:.1f} free: "
            "free the disk"
        )
