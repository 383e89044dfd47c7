"""Generated tables in MIMIC-III v1.4's schema, with its row counts times a factor; the values are not physiological.

    python -m benchmarks.mimic3_tables DIR --factor 0.01

They have both record systems, both systems of units, repeated rows, text without a number, rows marked as errors, and
times outside the stay. The same factor and seed give the same rows.
"""

import argparse
from pathlib import Path

import duckdb

from imputune.data.raw.mimic3.variables import EVENT_TABLES, FACTOR_AND_SHIFT, VARIABLES, EventTable

ROWS = {
    "patients": 46_520,
    "admissions": 58_976,
    "icustays": 61_532,
    "chartevents": 330_712_483,
    "labevents": 27_854_055,
    "outputevents": 4_349_218,
    "inputevents_cv": 17_527_935,
    "inputevents_mv": 3_618_991,
}
"""Rows of the full database (Johnson et al. 2016)."""
FEWEST = 300  # rows of a table, also with a small factor
OTHER_ITEMS = 2_000  # items that are not read, in each event table and system
READ_PERCENT = 40  # of event rows with an item that is read; frequent signs, such as heart rate, are among these items
_BY_SYSTEM = {"inputevents_cv": "carevue", "inputevents_mv": "metavision"}
# Columns of an event row. i: its number; s: its stay; t: its item; moment, later: its times; faulty, void: flags.
_EVENT_COLUMNS: dict[EventTable, str] = {
    "chartevents": """i + 1 AS ROW_ID, s.subject_id AS SUBJECT_ID, s.hadm_id AS HADM_ID, s.icustay_id AS ICUSTAY_ID,
        t.itemid AS ITEMID, moment AS CHARTTIME, later AS STORETIME, 15000 + i % 997 AS CGID,
        CASE WHEN faulty THEN 'Other/Remarks' ELSE value::VARCHAR END AS VALUE,
        CASE WHEN NOT faulty THEN value END AS VALUENUM, t.unit AS VALUEUOM,
        CASE s.system WHEN 'metavision' THEN 0 END AS WARNING,
        CASE s.system WHEN 'metavision' THEN void::INTEGER END AS ERROR, NULL AS RESULTSTATUS, NULL AS STOPPED""",
    "labevents": """i + 1 AS ROW_ID, s.subject_id AS SUBJECT_ID, CASE WHEN NOT void THEN s.hadm_id END AS HADM_ID,
        t.itemid AS ITEMID, moment AS CHARTTIME, CASE WHEN faulty THEN 'ERROR' ELSE value::VARCHAR END AS VALUE,
        CASE WHEN NOT faulty THEN value END AS VALUENUM, t.unit AS VALUEUOM, NULL AS FLAG""",
    "outputevents": """i + 1 AS ROW_ID, s.subject_id AS SUBJECT_ID, s.hadm_id AS HADM_ID, s.icustay_id AS ICUSTAY_ID,
        moment AS CHARTTIME, t.itemid AS ITEMID, CASE WHEN NOT faulty THEN value END AS VALUE, t.unit AS VALUEUOM,
        later AS STORETIME, 15000 + i % 997 AS CGID, NULL AS STOPPED, NULL AS NEWBOTTLE,
        CASE WHEN void THEN 1 END AS ISERROR""",
    "inputevents_cv": """i + 1 AS ROW_ID, s.subject_id AS SUBJECT_ID, s.hadm_id AS HADM_ID, s.icustay_id AS ICUSTAY_ID,
        moment AS CHARTTIME, t.itemid AS ITEMID, CASE WHEN NOT faulty THEN value END AS AMOUNT,
        CASE WHEN NOT faulty THEN t.unit END AS AMOUNTUOM, NULL AS RATE, NULL AS RATEUOM, later AS STORETIME,
        15000 + i % 997 AS CGID, i AS ORDERID, i AS LINKORDERID, NULL AS STOPPED, NULL AS NEWBOTTLE,
        NULL AS ORIGINALAMOUNT, t.unit AS ORIGINALAMOUNTUOM, NULL AS ORIGINALROUTE, NULL AS ORIGINALRATE,
        NULL AS ORIGINALRATEUOM, NULL AS ORIGINALSITE""",
    "inputevents_mv": """i + 1 AS ROW_ID, s.subject_id AS SUBJECT_ID, s.hadm_id AS HADM_ID, s.icustay_id AS ICUSTAY_ID,
        moment AS STARTTIME, later AS ENDTIME, t.itemid AS ITEMID, value AS AMOUNT,
        CASE WHEN faulty THEN 'dose' ELSE t.unit END AS AMOUNTUOM, NULL AS RATE, NULL AS RATEUOM, later AS STORETIME,
        15000 + i % 997 AS CGID, i AS ORDERID, i AS LINKORDERID, 'Other' AS ORDERCATEGORYNAME,
        NULL AS SECONDARYORDERCATEGORYNAME, NULL AS ORDERCOMPONENTTYPEDESCRIPTION, NULL AS ORDERCATEGORYDESCRIPTION,
        70 AS PATIENTWEIGHT, value AS TOTALAMOUNT, t.unit AS TOTALAMOUNTUOM, 0 AS ISOPENBAG, 0 AS CONTINUEINNEXTDEPT,
        void::INTEGER AS CANCELREASON, CASE WHEN void THEN 'Rewritten' ELSE 'FinishedRunning' END AS STATUSDESCRIPTION,
        NULL AS COMMENTS_EDITEDBY, NULL AS COMMENTS_CANCELEDBY, NULL AS COMMENTS_DATE, value AS ORIGINALAMOUNT,
        NULL AS ORIGINALRATE""",
}


def write_tables(folder: Path, factor: float, seed: int = 2012) -> dict[str, int]:
    """Write the ten tables as .csv.gz to a folder; return the number of rows of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: max(round(count * factor), FEWEST) for name, count in ROWS.items()}
    with duckdb.connect(config={"memory_limit": "2GiB"}) as database:
        database.execute("CREATE MACRO chance(i, salt, n) AS (hash(i, salt) % n)::BIGINT")
        for sql in _people(rows, seed):
            database.execute(sql)
        _create_items(database)
        for name in ("patients", "admissions", "icustays", "d_items", "d_labitems"):
            _write(database, f"SELECT * FROM {name}", folder, name)
        for table in EVENT_TABLES:
            write_events(database, folder, table, rows[table], seed)
    return rows


def write_events(
    database: duckdb.DuckDBPyConnection, folder: Path, table: EventTable, rows: int, seed: int = 2012
) -> None:
    """Write an event table of so many rows for the stays and items of the tables `icustays`, `d_items`, `d_labitems`.

    Every hundredth row repeats the previous one, every fiftieth has no number, every hundredth is marked as an error,
    and a tenth of the times are before or after the stay.
    """
    database.execute("CREATE OR REPLACE MACRO chance(i, salt, n) AS (hash(i, salt) % n)::BIGINT")
    dictionary = "SELECT itemid, '' AS system FROM d_labitems"
    if table != "labevents":
        dictionary = f"SELECT itemid, dbsource AS system FROM d_items WHERE lower(linksto) = '{table}'"
    database.execute(f"""
        CREATE OR REPLACE TEMP TABLE pool AS
        SELECT itemid, d.system, coalesce(o.unit, 'units') AS unit, coalesce(o.low, 0) AS low,
            coalesce(o.high, 100) AS high, coalesce(o.factor, 1) AS factor, coalesce(o.shift, 0) AS shift,
            o.itemid IS NOT NULL AS is_read,
            row_number() OVER (PARTITION BY d.system, o.itemid IS NOT NULL ORDER BY itemid) - 1 AS number,
            count(*) OVER (PARTITION BY d.system, o.itemid IS NOT NULL) AS size
        FROM ({dictionary}) d LEFT JOIN (FROM ({_read_items(table)}) WHERE itemid IS NOT NULL) o USING (itemid)
    """)
    systems = ", ".join(f"'{system}'" for system in _systems(table))
    database.execute(f"""
        CREATE OR REPLACE TEMP TABLE visited AS
        SELECT *, row_number() OVER (ORDER BY icustay_id) - 1 AS number, count(*) OVER () AS size FROM (
            SELECT subject_id, hadm_id, icustay_id, dbsource AS system, intime,
                greatest(datediff('minute', intime, outtime), 60) AS minutes
            FROM icustays WHERE dbsource IN ({systems})
        )
    """)
    (stays,) = database.execute("SELECT count(*) FROM visited").fetchall()[0]
    pool_system = "''" if table == "labevents" else "s.system"
    sizes = "SELECT system, is_read, any_value(size) AS size FROM pool GROUP BY system, is_read"
    _write(
        database,
        f"""
        WITH numbered AS (
            SELECT i, CASE WHEN chance(i, {seed}, 100) = 0 AND i > 0 THEN i - 1 ELSE i END AS drawn
            FROM range({rows}) t(i)
        ), hashed AS (
            SELECT i, drawn, chance(drawn, {seed} + 1, {2**40}) AS h, chance(drawn, {seed} + 2, {2**40}) AS k
            FROM numbered
        ), placed AS (
            SELECT h.*, s, z.size, z.is_read FROM hashed h JOIN visited s ON s.number = (drawn * {stays}) // {rows}
            JOIN ({sizes}) z ON z.system = {pool_system} AND z.is_read = (h.h % 100 < {READ_PERCENT})
        ), timed AS (
            SELECT i, s, t, p.k % 50 = 1 AS faulty, p.k % 100 = 2 AS void,
                s.intime + to_minutes((((p.k // 1000) % 1100 - 50) * s.minutes // 1000)::BIGINT) AS moment,
                round(((t.low + (t.high - t.low) * ((p.h // 7919) % 1000) / 1000) - t.shift) / t.factor, 1) AS value
            FROM placed p JOIN pool t
                ON t.system = {pool_system} AND t.is_read = p.is_read AND t.number = p.h // 100 % p.size
        )
        SELECT {_EVENT_COLUMNS[table]} FROM (SELECT *, moment + INTERVAL 75 MINUTE AS later FROM timed)
        """,
        folder,
        table,
    )


def _people(rows: dict[str, int], seed: int) -> list[str]:
    """Return the statements that generate patients, admissions and ICU stays."""
    patients, admissions, stays = rows["patients"], rows["admissions"], rows["icustays"]
    units = "['CCU', 'CSRU', 'MICU', 'SICU', 'TSICU']"
    return [
        f"""CREATE TEMP TABLE patients AS SELECT i + 1 AS row_id, i + 2 AS subject_id,
            CASE WHEN chance(i, {seed}, 100) < 56 THEN 'M' ELSE 'F' END AS gender,
            TIMESTAMP '2060-01-01' + to_days((chance(i, {seed} + 1, 29000))::INTEGER) AS dob, NULL AS dod,
            NULL AS dod_hosp, NULL AS dod_ssn, 0 AS expire_flag FROM range({patients}) t(i)""",
        f"""CREATE TEMP TABLE admissions AS SELECT i + 1 AS row_id, i % {patients} + 2 AS subject_id,
            i + 100001 AS hadm_id,
            TIMESTAMP '2140-01-01' + to_minutes(i * 37 + (i // {patients}) * 500000) AS admittime,
            admittime + INTERVAL 30 DAY AS dischtime, NULL AS deathtime, 'EMERGENCY' AS admission_type,
            (chance(i, {seed} + 3, 10) = 0)::INTEGER AS hospital_expire_flag, 1 AS has_chartevents_data
            FROM range({admissions}) t(i)""",
        f"""CREATE TEMP TABLE icustays AS SELECT i + 1 AS row_id, subject_id, hadm_id, i + 200001 AS icustay_id,
            CASE WHEN chance(i, {seed} + 7, 100) < 62 THEN 'carevue' ELSE 'metavision' END AS dbsource,
            {units}[chance(i, {seed} + 4, 5) + 1] AS first_careunit,
            CASE WHEN i % 10 = 0 THEN 'MICU' ELSE first_careunit END AS last_careunit, 50 AS first_wardid,
            50 AS last_wardid, admittime + to_minutes(300 + (i // {admissions}) * 14400) AS intime,
            intime + to_minutes((1440 * exp(0.75 + 1.1 * sqrt(-2 * ln(u)) * cos(2 * pi() * v)))::BIGINT) AS outtime,
            datediff('hour', intime, outtime) / 24 AS los
            FROM (SELECT i, a.*, (chance(i, {seed} + 5, 9999) + 1) / 10000 AS u, chance(i, {seed} + 6, 10000) / 1e4 AS v
                FROM range({stays}) t(i) JOIN admissions a ON a.hadm_id = i % {admissions} + 100001) ORDER BY i""",
    ]


def _create_items(database: duckdb.DuckDBPyConnection) -> None:
    database.execute(
        "CREATE TEMP TABLE d_items (row_id INTEGER, itemid INTEGER, label VARCHAR, abbreviation VARCHAR, "
        "dbsource VARCHAR, linksto VARCHAR, category VARCHAR, unitname VARCHAR, param_type VARCHAR, conceptid INTEGER)"
    )
    database.execute(
        "CREATE TEMP TABLE d_labitems (row_id INTEGER, itemid INTEGER, label VARCHAR, fluid VARCHAR, "
        "category VARCHAR, loinc_code VARCHAR)"
    )
    items = [(variable, item) for variable in VARIABLES for item in variable.items]
    for number, (variable, item) in enumerate(items):
        if item.table == "labevents":
            labs = (number, item.item_id, variable.name)
            database.execute("INSERT INTO d_labitems VALUES (?, ?, ?, 'Blood', 'Chemistry', NULL)", labs)
        else:
            charted = (number, item.item_id, variable.name, item.system, item.table)
            database.execute("INSERT INTO d_items VALUES (?, ?, ?, NULL, ?, ?, NULL, NULL, NULL, NULL)", charted)
    others = f"FROM range({OTHER_ITEMS}) t(i)"
    database.execute(f"INSERT INTO d_labitems SELECT i, 60000 + i, 'other', 'Blood', 'Other', NULL {others}")
    pools = [(table, system) for table in EVENT_TABLES if table != "labevents" for system in _systems(table)]
    for number, (table, system) in enumerate(pools):
        first = 300_000 + number * 10_000
        named = f"SELECT i, {first} + i, 'other', NULL, '{system}', '{table}', NULL, NULL, NULL, NULL"
        database.execute(f"INSERT INTO d_items {named} {others}")


def _systems(table: EventTable) -> list[str]:
    return [_BY_SYSTEM[table]] if table in _BY_SYSTEM else ["carevue", "metavision"]


def _read_items(table: EventTable) -> str:
    """Return SQL for the items of a table that are read, with their values: around a quarter of the accepted range."""
    rows = []
    for variable in VARIABLES:
        reach = variable.highest - variable.lowest
        for item in variable.items:
            if item.table == table:
                factor, shift = FACTOR_AND_SHIFT[item.conversion]
                factor = 100 if item.conversion == "fraction" else factor
                low, high = (round(variable.lowest + fraction * reach, 6) for fraction in (0.2, 0.3))
                rows.append(f"({item.item_id}, '{variable.unit}', {low}, {high}, {factor}, {shift})")
    return f"FROM (VALUES {', '.join(rows) or '(NULL, NULL, 0, 0, 1, 0)'}) v(itemid, unit, low, high, factor, shift)"


def _write(database: duckdb.DuckDBPyConnection, sql: str, folder: Path, name: str) -> None:
    path = folder / f"{name.upper()}.csv.gz"
    upper = f"SELECT COLUMNS(*) FROM ({sql})"
    columns = [str(column[0]) for column in database.execute(f"DESCRIBE {upper}").fetchall()]
    renamed = ", ".join(f'"{column}" AS "{column.upper()}"' for column in columns)
    database.execute(f"COPY (SELECT {renamed} FROM ({sql})) TO '{path}' (HEADER, COMPRESSION gzip)")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.mimic3_tables", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--factor", type=float, default=0.01, help="of the full database's row counts")
    parser.add_argument("--seed", type=int, default=2012)
    chosen = parser.parse_args()
    for name, count in write_tables(chosen.folder, chosen.factor, chosen.seed).items():
        print(f"{name.upper()}: {count:,} rows")


if __name__ == "__main__":
    main()
