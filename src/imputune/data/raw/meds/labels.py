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

NEEDED = ("subject_id", "prediction_time", "boolean_value")
MEMORY_GIB = 0.5
BOTH_VALUES = "windows with labels of both values"


def join_labels(database: duckdb.DuckDBPyConnection, path: Path) -> dict[str, int]:
    """Set the column `outcome` of the table `chosen` from a label table; count what became of its rows.

    A label belongs to the subject's window that ended at or before its prediction_time, if the subject's next stay has
    not started before that time. A window whose labels have both values, or that has none, has no label.

    Raises UserError for a file that is missing or not of the standard.

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
    return {reason: int(count) for reason, count in zip(reasons, counts, strict=True)}


def labels_of_windows(windows: pd.DataFrame, path: Path, home: Path) -> tuple[Labels, dict[str, int]]:
    """Return the labels of a cohort's windows from a label table, (N,), and what became of the table's rows.

    `windows`: as `window_file.stay_windows` returns them; in one without an end, a label counts whatever its time.
    Temporary files are written to a folder in `home`.

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
        counts = join_labels(database, path)
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
