"""A label table of the MEDS standard, as ACES writes it: each label belongs to one window at most."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from imputune.data.outcome_file import NO_LABEL, Labels
from imputune.data.raw.database import cannot_write, create_table, open_database, scratch_folder
from imputune.data.raw.meds.dataset_files import check_columns, listed, read_schema
from imputune.errors import UserError
from imputune.runtime.console import counted

NEEDED = ("subject_id", "prediction_time", "boolean_value")
MEMORY_GIB = 0.5
BOTH_VALUES = "windows with labels of both values"
DIFFERING = "labels differ from the in-hospital death that the codes tell"


def join_labels(database: duckdb.DuckDBPyConnection, path: Path, hours: int) -> dict[str, int]:
    """Set the column `outcome` of the table `chosen` from a label table; count what became of its rows.

    A label belongs to the subject's window that ended at or before its prediction_time, if the subject's next stay has
    not started before that time. A window whose labels have both values, or that has none, has no label. `hours`: of
    the windows, for messages.

    Raises UserError for a file that is missing or not of the standard, and if there are windows, and none has a label,
    with the reason.

    Source: the MEDS standard, version 0.4 (LabelSchema).
    """
    table = f"read_parquet({listed(_files(path))})"
    database.execute(f"""
        CREATE TEMP TABLE labels AS
        SELECT subject_id, prediction_time::TIMESTAMP AS time, boolean_value AS label FROM {table};
        CREATE TEMP TABLE labelled AS
        SELECT l.*, c.stay FROM (FROM labels WHERE label IS NOT NULL AND time IS NOT NULL) l
            ASOF LEFT JOIN chosen c ON c.subject_id = l.subject_id AND c.until <= l.time;
        UPDATE labelled SET stay = NULL FROM chosen c
        WHERE c.stay = labelled.stay AND c.next_start <= labelled.time;
        CREATE TEMP TABLE label_of AS
        SELECT stay, CASE WHEN min(label::TINYINT) = max(label::TINYINT) THEN min(label::TINYINT) END AS label,
            count(*) AS labels
        FROM labelled WHERE stay IS NOT NULL GROUP BY stay;
        UPDATE chosen SET outcome = {NO_LABEL};
        UPDATE chosen SET outcome = l.label FROM label_of l WHERE l.stay = chosen.stay AND l.label IS NOT NULL
    """)
    counts = database.execute("""
        SELECT (SELECT count(*) FROM labels),
            (SELECT count(*) FROM labels WHERE label IS NULL OR time IS NULL),
            (SELECT count(*) FROM labelled WHERE stay IS NULL),
            (SELECT count(*) FROM chosen c ANTI JOIN label_of l USING (stay)),
            (SELECT count(*) FROM label_of WHERE label IS NULL),
            (SELECT coalesce(sum(labels - 1), 0) FROM label_of WHERE label IS NOT NULL)
    """).fetchall()[0]
    reasons = (
        "labels read",
        "labels without a value or time",
        "labels without a window",
        "windows without a label",
        BOTH_VALUES,
        "labels that repeat another of their window",
    )
    _refuse_no_label(database, path, hours)
    return {reason: int(count) for reason, count in zip(reasons, counts, strict=True)}


def differing_labels(database: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Count the windows whose label of in-hospital death is another one than their codes tell; {} for none."""
    [(count,)] = database.execute(f"""
        SELECT count(*) FROM chosen
        WHERE outcome <> in_hospital_death AND outcome <> {NO_LABEL} AND in_hospital_death <> {NO_LABEL}
    """).fetchall()
    return {DIFFERING: int(count)} if count else {}


def _refuse_no_label(database: duckdb.DuckDBPyConnection, path: Path, hours: int) -> None:
    """Raise UserError, with the reason, if there are windows and none has a label."""
    windows, with_label, both, read, usable, known, early, late = database.execute(f"""
        WITH mine AS (SELECT subject_id, min(until) AS first_end FROM chosen GROUP BY subject_id),
        placed AS (
            SELECT l.*, m.first_end FROM labels l LEFT JOIN mine m USING (subject_id)
            WHERE l.label IS NOT NULL AND l.time IS NOT NULL
        )
        SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM chosen WHERE outcome <> {NO_LABEL}),
            (SELECT count(*) FROM label_of), (SELECT count(*) FROM labels), count(*), count(first_end),
            count(*) FILTER (time < first_end), count(*) FILTER (time >= first_end)
        FROM placed
    """).fetchall()[0]
    if with_label or not windows:
        return
    if both:
        why = f"{counted(both, 'window')} {'has' if both == 1 else 'have'} labels of both values, and no other has one"
        remedy = "give one label for each window"
    elif not read:
        why, remedy = "the table has no row", "write the labels first"
    elif not usable:
        why, remedy = f"none of its {counted(read, 'row')} has a prediction_time and a boolean_value", "fill both"
    elif not known:
        why = f"no subject_id of its {counted(usable, 'label')} is one of the {counted(windows, 'window')}"
        remedy = "take the labels of these records, with the same subject_id"
    elif not late:
        why = f"all {counted(early, 'prediction_time')} of these subjects are before their windows end (hour {hours})"
        remedy = f"use prediction_times at hour {hours} of the stay or later"
    elif not early:
        why = f"all {counted(late, 'prediction_time')} of these subjects are after their next stay has begun"
        remedy = "use prediction_times between the window's end and the next stay"
    else:
        why = (
            f"{counted(early, 'prediction_time')} before the subject's first window ends (hour {hours}), and "
            f"{late:,} after the next stay has begun"
        )
        remedy = "use prediction_times between the window's end and the next stay"
    raise UserError(f"no window has a label of --labels {path}: {why}; {remedy}")


def labels_of_windows(windows: pd.DataFrame, path: Path, home: Path, hours: int) -> tuple[Labels, dict[str, int]]:
    """Return the labels of a cohort's windows from a label table, (N,), and what became of the table's rows.

    `windows`: as `window_file.stay_windows` returns them; in one without an end, a label counts whatever its time.
    `hours`: of the windows. Temporary files are written to a folder in `home`.

    Raises UserError as `join_labels` does, and if memory or disk run out.
    """
    with (
        scratch_folder(home, "labels", "imputune label") as scratch,
        open_database(scratch, MEMORY_GIB, 1, _explained) as database,
    ):
        columns = {"stay": range(len(windows)), **{name: windows[name] for name in ("subject_id", "end", "next_start")}}
        create_table(database, "windows", pa.table({name: pa.array(each) for name, each in columns.items()}))
        database.execute(f"""
            CREATE TEMP TABLE chosen AS
            SELECT stay, subject_id, coalesce("end"::TIMESTAMP, '-infinity'::TIMESTAMP) AS until,
                next_start::TIMESTAMP AS next_start, {NO_LABEL}::TINYINT AS outcome
            FROM windows
        """)
        counts = join_labels(database, path, hours)
        found = database.execute("SELECT outcome FROM chosen ORDER BY stay").fetchnumpy()
        return np.asarray(found["outcome"]).astype(np.int8), counts


def _explained(error: duckdb.Error) -> str:
    if cannot_write(error):
        return "cannot write temporary files beside the cohort: free the disk"
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"DuckDB needs more than {MEMORY_GIB:g} GiB for the label table: keep the labels of this outcome alone"
    return "a .parquet file of the label table is damaged: write it again"


def _files(path: Path) -> list[Path]:
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not paths or not all(each.is_file() for each in paths):
        raise UserError(f"--labels {path} is neither a .parquet file nor a folder of such: name one")
    for each in paths:
        check_columns(each, read_schema(each), NEEDED)
    return paths
