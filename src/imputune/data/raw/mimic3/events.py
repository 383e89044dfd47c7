"""Values of the stays' windows: collected from the event tables in a database, then combined by stay, bin, variable.

Collected values are whole numbers of millionths of the variable's unit. So sums are exact in any order, and the same
tables give the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from imputune.data.raw.mimic3.reading import run_over
from imputune.data.raw.mimic3.tables import NEEDED, RawTable
from imputune.data.raw.mimic3.variables import EVENT_TABLES, FACTOR_AND_SHIFT, VARIABLES
from imputune.data.window import Window
from imputune.errors import UserError
from imputune.files import FileProgress, no_progress

MILLIONTHS = 1_000_000
STAYS_AT_ONCE = 500
FAULTS = {
    1: "marked as an error or rewritten",
    2: "without a number",
    3: "in another unit",
    4: "out of the accepted range",
    5: "ending before they begin, or without an end",
}
UNITS = {"mL": {"ml": 1.0, "l": 1000.0}, "mg": {"mg": 1.0, "mcg": 0.001, "g": 1000.0, "grams": 1000.0}}
"""The size of each recorded unit in the variable's unit; amounts without a unit are assumed to be in that unit."""
# For each table: the column of the value, that of its unit ("" if each item has one unit), and when a row is void.
_VALUE = {
    "chartevents": ("valuenum", "", "error = 1"),
    "labevents": ("valuenum", "", "false"),
    "outputevents": ("value", "valueuom", "iserror = 1"),
    "inputevents_cv": ("amount", "amountuom", "false"),
    "inputevents_mv": ("amount", "amountuom", "lower(statusdescription) = 'rewritten'"),
}


def check_items(database: duckdb.DuckDBPyConnection, tables: dict[str, RawTable]) -> None:
    """Create the tables `items` and `units` from variables.csv, and look up each item in D_ITEMS or D_LABITEMS.

    Raises UserError if items are missing there: then the tables are incomplete or from another database.
    """
    database.execute("""
        CREATE TEMP TABLE items (variable UTINYINT, source VARCHAR, itemid BIGINT, factor DOUBLE, shift DOUBLE,
            is_fraction BOOLEAN, lowest DOUBLE, highest DOUBLE, unit VARCHAR);
        CREATE TEMP TABLE units (unit VARCHAR, recorded VARCHAR, factor DOUBLE);
    """)
    rows = [
        (
            number,
            item.table,
            item.item_id,
            *FACTOR_AND_SHIFT[item.conversion],
            item.conversion == "fraction",
            variable.lowest,
            variable.highest,
            variable.unit,
        )
        for number, variable in enumerate(VARIABLES)
        for item in variable.items
    ]
    database.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    units = [(unit, recorded, factor) for unit, factors in UNITS.items() for recorded, factor in factors.items()]
    database.executemany("INSERT INTO units VALUES (?, ?, ?)", units)
    for name in ("d_items", "d_labitems"):
        run_over(database, tables[name], f"CREATE TEMP TABLE {name} AS {tables[name].select()}", no_progress)
    missing = database.execute("""
        SELECT itemid FROM items ANTI JOIN (
            SELECT itemid, lower(linksto) AS source FROM d_items UNION ALL SELECT itemid, 'labevents' FROM d_labitems
        ) USING (itemid, source) ORDER BY itemid
    """).fetchall()
    if missing:
        first = ", ".join(str(item) for (item,) in missing[:3])
        raise UserError(
            f"D_ITEMS and D_LABITEMS lack {len(missing)} of the {len(rows)} items that are read (the first: {first}): "
            "fetch both tables of MIMIC-III v1.4 again"
        )


@dataclass(frozen=True)
class CollectedRows:
    """How many rows are in the stays' windows, and how many of them are dropped, by reason."""

    rows: int
    dropped: dict[str, int]


def collect_events(
    database: duckdb.DuckDBPyConnection, tables: dict[str, RawTable], window: Window, progress: FileProgress
) -> CollectedRows:
    """Fill the table `events` from the five event tables.

    A row counts if its patient and admission are those of a stay and its time is in the stay's window. An infusion
    recorded by MetaVision is divided over its bins; `is_row` marks the first of these, so that it counts as one row.

    Raises UserError as `run_over` does.
    """
    database.execute("""
        CREATE TABLE events (stay INTEGER, variable UTINYINT, bin USMALLINT, itemid INTEGER, orderid BIGINT,
            since BIGINT, until BIGINT, millionths BIGINT, is_row BOOLEAN, fault UTINYINT)
    """)
    for name in EVENT_TABLES:
        select = _select_infusions if name == "inputevents_mv" else _select_moments
        run_over(database, tables[name], f"INSERT INTO events {select(tables[name], window)}", progress)
    counts = dict(database.execute("SELECT fault, count(*) FROM events WHERE is_row GROUP BY fault").fetchall())
    dropped = {reason: counts.get(fault, 0) for fault, reason in FAULTS.items()}
    return CollectedRows(rows=sum(counts.values()), dropped=dropped)


def combined_cells(
    database: duckdb.DuckDBPyConnection, stays: int, window: Window
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]]:
    """Yield cells and their values, each (C,), and the number of dropped repeated rows, for some stays at a time.

    A cell is given as its index in the flattened (stays, bins, variables). Rows with the same stay, item, order, time
    and value count once. Means and sums are over all values of a bin; `last` is the value of the latest time, and the
    highest of several at that time. Raises duckdb.Error if memory or disk space run out.
    """
    combined = ", ".join(f"({number}, '{variable.combined}')" for number, variable in enumerate(VARIABLES))
    database.execute(f"CREATE TEMP TABLE methods AS SELECT * FROM (VALUES {combined}) methods (variable, combined)")
    for first in range(0, stays, STAYS_AT_ONCE):
        condition = f"fault = 0 AND stay >= {first} AND stay < {first + STAYS_AT_ONCE}"
        table = database.execute(f"""
            WITH kept AS (
                SELECT DISTINCT * EXCLUDE fault FROM events WHERE {condition}
            ), cells AS (
                SELECT stay, bin, variable, count(*) AS n, count(*) FILTER (is_row) AS rows,
                    sum(millionths) AS total,
                    max({{'since': since, 'millionths': millionths}}).millionths AS latest
                FROM kept GROUP BY stay, bin, variable
            )
            SELECT (stay::BIGINT * {window.bins} + bin) * {len(VARIABLES)} + variable AS cell, rows,
                (CASE combined WHEN 'sum' THEN total WHEN 'mean' THEN total / n ELSE latest END)::DOUBLE AS value
            FROM cells JOIN methods USING (variable)
        """).fetchnumpy()
        (collected,) = database.execute(f"SELECT count(*) FROM events WHERE is_row AND {condition}").fetchall()[0]
        cells, values, counts = (np.asarray(table[name]) for name in ("cell", "value", "rows"))
        yield cells, values / MILLIONTHS, collected - int(counts.sum())


def _select_moments(table: RawTable, window: Window) -> str:
    """Return the SELECT of values that are recorded for one time."""
    value, unit, void = _VALUE[table.name]
    order = "coalesce(e.orderid, 0)" if "orderid" in NEEDED[table.name] else "0"
    return f"""
        SELECT stay, variable, (moment // {window.bin_hours * 3600})::USMALLINT AS bin, itemid, orderid,
            moment AS since, moment AS until,
            {_MILLIONTHS}, true AS is_row, {_fault("amount", "false")}
        FROM (
            SELECT s.stay, i.*, {order} AS orderid, epoch(e.charttime - s.intime)::BIGINT AS moment,
                {_amount(value, unit)} AS amount, {value} IS NULL AS is_empty, coalesce({void}, false) AS is_void
            FROM ({table.select()}) e {_joins(table, unit)}
            WHERE e.charttime >= s.intime AND e.charttime < s.until
        )
    """


def _select_infusions(table: RawTable, window: Window) -> str:
    """Return the SELECT of amounts given over a period, divided over its bins; a bolus starts and ends at one time."""
    value, unit, void = _VALUE[table.name]
    seconds = window.bin_hours * 3600
    return f"""
        WITH given AS (
            SELECT s.stay, i.*, coalesce(e.orderid, 0) AS orderid, epoch(e.starttime - s.intime)::BIGINT AS since,
                epoch(e.endtime - s.intime)::BIGINT AS until, epoch(s.until - s.intime)::BIGINT AS stay_until,
                {_amount(value, unit)} AS whole,
                {value} IS NULL AS is_empty, coalesce({void}, false) AS is_void
            FROM ({table.select()}) e {_joins(table, unit)}
            WHERE e.starttime < s.until
                AND (e.starttime >= s.intime OR e.endtime > s.intime)
        ), judged AS (
            SELECT *, {_fault("whole", "until IS NULL OR until < since")}, greatest(since, 0) // {seconds} AS first
            FROM given
        ), binned AS (
            SELECT *, unnest(range(first, CASE WHEN fault = 0
                THEN least(greatest(until - 1, since), stay_until - 1) // {seconds} ELSE first END + 1)) AS bin
            FROM judged
        ), shared AS (
            SELECT *, CASE WHEN until = since THEN whole ELSE whole * (least(until, stay_until, (bin + 1) * {seconds})
                - greatest(since, bin * {seconds})) / (until - since) END AS amount
            FROM binned
        )
        SELECT stay, variable, bin::USMALLINT, itemid, orderid, since, until, {_MILLIONTHS}, bin = first AS is_row,
            fault
        FROM shared
    """


_MILLIONTHS = f"(CASE WHEN abs(amount) <= 1e9 THEN round(amount * {MILLIONTHS}) END)::BIGINT AS millionths"


def _amount(value: str, unit: str) -> str:
    recorded = f"{value} * coalesce(u.factor, CASE WHEN {unit} IS NULL THEN 1 END)" if unit else value
    return f"(CASE WHEN i.is_fraction AND {recorded} <= 1 THEN 100 ELSE i.factor END) * {recorded} + i.shift"


def _joins(table: RawTable, unit: str) -> str:
    joins = f"""
        JOIN items i ON i.itemid = e.itemid AND i.source = '{table.name}'
        JOIN stays s ON s.subject_id = e.subject_id AND (e.hadm_id IS NULL OR e.hadm_id = s.hadm_id)
    """
    return joins + (f"LEFT JOIN units u ON u.unit = i.unit AND u.recorded = lower({unit})" if unit else "")


def _fault(amount: str, is_endless: str) -> str:
    return f"""(CASE WHEN is_void THEN 1 WHEN is_empty THEN 2 WHEN {amount} IS NULL THEN 3 WHEN {is_endless} THEN 5
        WHEN NOT ({amount} >= lowest AND {amount} <= highest) THEN 4 ELSE 0 END)::UTINYINT AS fault"""
