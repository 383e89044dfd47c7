"""Values of the stays' 48 hours, staged from each event table in the database, then combined by stay, hour, variable.

Staged values are whole numbers of millionths of the variable's unit, so that sums are exact whatever their order and
the same tables give the same bytes.
"""

from collections.abc import Iterator

import duckdb
import numpy as np
import numpy.typing as npt

from imputune.data.cohort import HOURS
from imputune.data.raw.mimic3.tables import NEEDED, RawTable, run_over
from imputune.data.raw.mimic3.variables import EVENT_TABLES, FACTOR_AND_SHIFT, VARIABLES
from imputune.errors import UserError
from imputune.files import Watch, unwatched

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
"""What one of a recorded unit is in the variable's; amounts without a unit are taken to be in the variable's."""
# Of each table: its value, its unit ("" where one item has one unit), and what marks a row as void.
_VALUE = {
    "chartevents": ("valuenum", "", "error = 1"),
    "labevents": ("valuenum", "", "false"),
    "outputevents": ("value", "valueuom", "iserror = 1"),
    "inputevents_cv": ("amount", "amountuom", "false"),
    "inputevents_mv": ("amount", "amountuom", "lower(statusdescription) = 'rewritten'"),
}


def check_items(database: duckdb.DuckDBPyConnection, tables: dict[str, RawTable]) -> None:
    """Make the tables `items` and `units` of variables.csv, and look each item up in D_ITEMS or D_LABITEMS.

    Raises UserError when items are missing there: the tables are another database's, or incomplete.
    """
    database.execute("""
        CREATE TEMP TABLE items (variable UTINYINT, source VARCHAR, itemid BIGINT, factor DOUBLE, shift DOUBLE,
            is_fraction BOOLEAN, lowest DOUBLE, highest DOUBLE, unit VARCHAR);
        CREATE TEMP TABLE units (unit VARCHAR, recorded VARCHAR, factor DOUBLE);
    """)
    rows = [
        (
            *(place, item.table, item.item_id, *FACTOR_AND_SHIFT[item.conversion], item.conversion == "fraction"),
            *(variable.lowest, variable.highest, variable.unit),
        )
        for place, variable in enumerate(VARIABLES)
        for item in variable.items
    ]
    database.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    units = [(unit, recorded, factor) for unit, factors in UNITS.items() for recorded, factor in factors.items()]
    database.executemany("INSERT INTO units VALUES (?, ?, ?)", units)
    for name in ("d_items", "d_labitems"):
        run_over(database, tables[name], f"CREATE TEMP TABLE {name} AS {tables[name].select()}", unwatched)
    missing = database.execute("""
        SELECT itemid FROM items ANTI JOIN (
            SELECT itemid, lower(linksto) AS source FROM d_items UNION ALL SELECT itemid, 'labevents' FROM d_labitems
        ) USING (itemid, source) ORDER BY itemid
    """).fetchall()
    if missing:
        first = ", ".join(str(item) for (item,) in missing[:3])
        raise UserError(
            f"D_ITEMS and D_LABITEMS lack {len(missing)} of the {len(rows)} items that are read (the first: {first}): "
            "fetch MIMIC-III v1.4's own"
        )


def stage_events(database: duckdb.DuckDBPyConnection, tables: dict[str, RawTable], watch: Watch) -> dict[str, int]:
    """Fill the table `events` from the five event tables; return how many rows it took (""), and those of each fault.

    A row counts where its patient and admission are a stay's and its time lies in the stay's 48 hours. An infusion of
    MetaVision is divided over the hours that it runs in; the first of its parts counts as the row.

    Raises UserError as `run_over` does.
    """
    database.execute("""
        CREATE TABLE events (stay INTEGER, variable UTINYINT, hour UTINYINT, itemid INTEGER, orderid BIGINT,
            since BIGINT, until BIGINT, millionths BIGINT, is_row BOOLEAN, fault UTINYINT)
    """)
    for name in EVENT_TABLES:
        stage = _infusions if name == "inputevents_mv" else _moments
        run_over(database, tables[name], f"INSERT INTO events {stage(tables[name])}", watch)
    counts = dict(database.execute("SELECT fault, count(*) FROM events WHERE is_row GROUP BY fault").fetchall())
    return {"": sum(counts.values())} | {reason: counts.get(fault, 0) for fault, reason in FAULTS.items()}


def combined_cells(
    database: duckdb.DuckDBPyConnection, stays: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]]:
    """Yield, by some stays at a time, cells and their values, each (C,), and how many repeated rows were dropped.

    A cell is its position in the flattened (stays, hours, variables). Rows of one stay, item, order, time and value are
    one. Means and sums are of all values of an hour; the last is of the latest time, and the highest of those where
    several stand there. Raises duckdb.Error where memory or disk are short.
    """
    combined = ", ".join(f"({place}, '{variable.combined}')" for place, variable in enumerate(VARIABLES))
    database.execute(f"CREATE TEMP TABLE ways AS SELECT * FROM (VALUES {combined}) ways (variable, combined)")
    for first in range(0, stays, STAYS_AT_ONCE):
        part = f"fault = 0 AND stay >= {first} AND stay < {first + STAYS_AT_ONCE}"
        table = database.execute(f"""
            WITH kept AS (
                SELECT DISTINCT * EXCLUDE fault FROM events WHERE {part}
            ), cells AS (
                SELECT stay, hour, variable, count(*) AS n, count(*) FILTER (is_row) AS rows,
                    sum(millionths) AS total,
                    max({{'since': since, 'millionths': millionths}}).millionths AS latest
                FROM kept GROUP BY stay, hour, variable
            )
            SELECT (stay::BIGINT * {HOURS} + hour) * {len(VARIABLES)} + variable AS cell, rows,
                (CASE combined WHEN 'sum' THEN total WHEN 'mean' THEN total / n ELSE latest END)::DOUBLE AS value
            FROM cells JOIN ways USING (variable)
        """).fetchnumpy()
        (staged,) = database.execute(f"SELECT count(*) FROM events WHERE is_row AND {part}").fetchall()[0]
        cells, values, counts = (np.asarray(table[name]) for name in ("cell", "value", "rows"))
        yield cells, values / MILLIONTHS, staged - int(counts.sum())


def _moments(table: RawTable) -> str:
    """Return the SELECT of what is recorded at a moment."""
    value, unit, void = _VALUE[table.name]
    order = "coalesce(e.orderid, 0)" if "orderid" in NEEDED[table.name] else "0"
    return f"""
        SELECT stay, variable, (moment // 3600)::UTINYINT AS hour, itemid, orderid, moment AS since, moment AS until,
            {_MILLIONTHS}, true AS is_row, {_fault("amount", "false")}
        FROM (
            SELECT s.stay, i.*, {order} AS orderid, epoch(e.charttime - s.intime)::BIGINT AS moment,
                {_amount(value, unit)} AS amount, {value} IS NULL AS is_empty, coalesce({void}, false) AS is_void
            FROM ({table.select()}) e {_joins(table, unit)}
            WHERE e.charttime >= s.intime AND e.charttime < s.intime + INTERVAL {HOURS} HOUR
        )
    """


def _infusions(table: RawTable) -> str:
    """Return the SELECT of amounts that go in over a time, each hour with its share; a bolus has one time."""
    value, unit, void = _VALUE[table.name]
    return f"""
        WITH given AS (
            SELECT s.stay, i.*, coalesce(e.orderid, 0) AS orderid, epoch(e.starttime - s.intime)::BIGINT AS since,
                epoch(e.endtime - s.intime)::BIGINT AS until, {_amount(value, unit)} AS whole,
                {value} IS NULL AS is_empty, coalesce({void}, false) AS is_void
            FROM ({table.select()}) e {_joins(table, unit)}
            WHERE e.starttime < s.intime + INTERVAL {HOURS} HOUR
                AND (e.starttime >= s.intime OR e.endtime > s.intime)
        ), judged AS (
            SELECT *, {_fault("whole", "until IS NULL OR until < since")}, greatest(since, 0) // 3600 AS first
            FROM given
        ), hourly AS (
            SELECT *, unnest(range(first, CASE WHEN fault = 0
                THEN least(greatest(until - 1, since), {HOURS * 3600 - 1}) // 3600 ELSE first END + 1)) AS hour
            FROM judged
        ), shared AS (
            SELECT *, CASE WHEN until = since THEN whole ELSE whole
                * (least(until, (hour + 1) * 3600) - greatest(since, hour * 3600)) / (until - since) END AS amount
            FROM hourly
        )
        SELECT stay, variable, hour::UTINYINT, itemid, orderid, since, until, {_MILLIONTHS}, hour = first AS is_row,
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
