"""Values of the windows: collected from the events in a database, then combined by stay, bin and variable.

Collected values are whole numbers of millionths of the variable's unit. So sums are exact in any order, and the same
events give the same bytes.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imputune.data.raw.database import create_table, reported
from imputune.data.raw.meds.dataset_files import MedsFiles
from imputune.data.raw.meds.stays import WindowRules
from imputune.data.raw.meds.variable_rows import NamedRows
from imputune.files import FileProgress

MILLIONTHS = 1_000_000
MOST = 1e15  # millionths; larger values cannot be kept exactly
EVENTS_AT_ONCE = 2_000_000
CELLS_AT_ONCE = 12_000_000
FAULTS = {
    1: "without a number",
    2: "with a text that the variable file does not list",
    3: "in no form or unit that the variable file lists",
    4: "out of the accepted range",
}
REPEATING = "repeating another"
NOT_ALIVE = "before the subject's birth or after the death"
_NOT_ALIVE = 5  # the fault of such an event, which is in no window


def collect_events(
    database: duckdb.DuckDBPyConnection, files: MedsFiles, rules: WindowRules, progress: FileProgress
) -> dict[str, int]:
    """Fill the table `events` with the events of the variables' codes in the windows; count them by why they drop out.

    The key "" counts those that stay, and NOT_ALIVE those before the birth or after the death of a subject with a
    window, at any time. Raises duckdb.Error for damaged files, or if memory or disk run out.
    """
    (words,) = database.execute("SELECT count(*) FROM words").fetchall()[0]
    (units,) = database.execute("SELECT count(*) FROM rules WHERE raw_unit <> ''").fetchall()[0]
    unit = "(r.raw_unit = '' OR r.raw_unit = e.unit)" if units else "true"
    word = "LEFT JOIN words t ON t.code_id = c.code_id AND t.word = lower(trim(e.text))" if words else ""
    text_number, has_text = ("t.number", "nullif(trim(e.text), '') IS NOT NULL") if words else ("NULL::DOUBLE", "false")
    number = "CASE WHEN isfinite(e.number) THEN e.number END"
    with reported(database, "values", files.size, progress):
        database.execute(f"""
            CREATE TABLE events AS
            WITH read AS (
                SELECT s.stay, c.variable, c.code_id, epoch_us(e.time) - epoch_us(s.start) AS moment,
                    {number} AS number, r.code_id AS rule,
                    round(coalesce(r.fixed, {number} * r.factor + r.shift, {text_number}) * {MILLIONTHS}) AS millionths,
                    {has_text} AS has_text, r.lowest, r.highest, ({not_alive("e", "s")}) AS not_alive
                FROM ({files.select(texts=bool(words), units=bool(units))}) e
                    JOIN codes c ON c.code = e.code
                    JOIN chosen s ON s.subject_id = e.subject_id
                    LEFT JOIN rules r ON r.code_id = c.code_id AND {unit}
                        AND CASE WHEN {number} IS NULL THEN r.is_first
                            ELSE {number} >= r.raw_lowest AND {number} <= r.raw_highest END
                    {word}
                WHERE (e.time >= s.start AND e.time < s.until) OR (s.is_first AND ({not_alive("e", "s")}))
            )
            SELECT stay::INTEGER AS stay, variable::USMALLINT AS variable, code_id::UINTEGER AS code_id, moment,
                (CASE WHEN not_alive THEN 0 ELSE moment // {rules.bin_hours * 3_600_000_000} END)::USMALLINT AS bin,
                (CASE WHEN abs(millionths) <= {MOST} THEN millionths END)::BIGINT AS millionths,
                (CASE WHEN not_alive THEN {_NOT_ALIVE} WHEN rule IS NULL THEN 3
                    WHEN millionths IS NULL AND has_text THEN 2
                    WHEN millionths IS NULL THEN 1
                    WHEN NOT (millionths BETWEEN round(lowest * {MILLIONTHS}) AND round(highest * {MILLIONTHS})
                        AND abs(millionths) <= {MOST}) THEN 4
                    ELSE 0 END)::UTINYINT AS fault
            FROM read
        """)
    progress("values", files.size, files.size)
    counts = dict(database.execute("SELECT fault, count(*) FROM events GROUP BY fault").fetchall())
    return {"": counts.get(0, 0), NOT_ALIVE: counts.get(_NOT_ALIVE, 0)} | {
        reason: counts.get(fault, 0) for fault, reason in FAULTS.items()
    }


def not_alive(event: str, subject: str) -> str:
    """Return the SQL condition of an event before its subject's birth or after the death, both tables by name."""
    return f"coalesce({event}.time < {subject}.birth, false) OR coalesce({event}.time > {subject}.death, false)"


def measured_stays(database: duckdb.DuckDBPyConnection, stays: int) -> npt.NDArray[np.bool_]:
    """Return which stays have a value that counts, (N,)."""
    measured_N = np.zeros(stays, dtype=bool)
    found = database.execute("SELECT DISTINCT stay FROM events WHERE fault = 0").fetchnumpy()["stay"]
    measured_N[np.asarray(found)] = True
    return measured_N


def combine_values(
    database: duckdb.DuckDBPyConnection,
    rules: WindowRules,
    variables: Sequence[NamedRows],
    measured_N: npt.NDArray[np.bool_],
    path: Path,
) -> tuple[npt.NDArray[np.float32], int]:
    """Write the values of the measured stays to a file of numpy's format, some stays at a time, and map it.

    Returns the array (N, T, D), NaN where nothing was observed, and the number of events that repeat the code, time and
    value of another, which count once. Raises duckdb.Error if memory or disk run out.
    """
    combined = pa.table({"variable": range(len(variables)), "combined": [each.combined for each in variables]})
    create_table(database, "methods", combined)
    place_N = np.cumsum(measured_N) - 1
    shape = (int(measured_N.sum()), rules.bins, len(variables))
    values_NTD = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    repeated = 0
    for first, after in _pieces(database, measured_N, rules.bins * len(variables)):
        place, end = int(place_N[first - 1]) + 1 if first else 0, int(place_N[after - 1]) + 1
        piece_NTD = np.full((end - place, *shape[1:]), np.nan, dtype=np.float32)
        stay, bin_, variable, value, dropped = _combined(database, first, after)
        piece_NTD[place_N[stay] - place, bin_, variable] = value
        values_NTD[place:end] = piece_NTD
        repeated += dropped
    values_NTD.flush()
    return values_NTD, repeated


def _combined(
    database: duckdb.DuckDBPyConnection, first: int, after: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Return stay, bin, variable and value of the observed cells of some stays, and the number of repeated events."""
    condition = f"fault = 0 AND stay >= {first} AND stay < {after}"
    table = database.execute(f"""
        WITH kept AS (
            SELECT DISTINCT stay, bin, variable, code_id, moment, millionths FROM events WHERE {condition}
        ), cells AS (
            SELECT stay, bin, variable, count(*) AS n, sum(millionths) AS total, min(millionths) AS lowest,
                max(millionths) AS highest, max({{'moment': moment, 'millionths': millionths}}).millionths AS latest
            FROM kept GROUP BY stay, bin, variable
        )
        SELECT stay, bin, variable, n, (CASE combined WHEN 'sum' THEN total WHEN 'mean' THEN total / n
            WHEN 'lowest' THEN lowest WHEN 'highest' THEN highest ELSE latest END)::DOUBLE / {MILLIONTHS} AS value
        FROM cells JOIN methods USING (variable)
    """).fetchnumpy()
    stay, bin_, variable, kept, value = (np.asarray(table[name]) for name in ("stay", "bin", "variable", "n", "value"))
    (collected,) = database.execute(f"SELECT count(*) FROM events WHERE {condition}").fetchall()[0]
    return stay, bin_, variable, value, int(collected) - int(kept.sum())


def _pieces(
    database: duckdb.DuckDBPyConnection, measured_N: npt.NDArray[np.bool_], cells: int
) -> Iterator[tuple[int, int]]:
    """Yield ranges of stays, first and after the last, few enough to be combined in memory; `cells` of each stay."""
    found = database.execute("SELECT stay, count(*) AS events FROM events WHERE fault = 0 GROUP BY stay").fetchnumpy()
    events_N = np.zeros(len(measured_N), dtype=np.int64)
    events_N[np.asarray(found["stay"])] = np.asarray(found["events"])
    piece_N = np.floor(np.cumsum(events_N / EVENTS_AT_ONCE + cells / CELLS_AT_ONCE))
    yield from pairwise([0, *(np.flatnonzero(np.diff(piece_N)) + 1).tolist(), len(measured_N)])
