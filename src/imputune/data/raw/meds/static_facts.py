"""Static facts of windows from events: sex, height, an admission's kind, and age from the time of birth."""

import math
from collections.abc import Sequence
from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from imputune.data.raw.database import create_table
from imputune.data.raw.meds.codes import MeantCodes
from imputune.data.raw.meds.values import not_alive
from imputune.data.raw.meds.variable_file import VariableFile
from imputune.data.raw.meds.variable_rows import NamedRows
from imputune.data.static import AGE, GENDER, HEIGHT, ICU_TYPE, WEIGHT, StaticVariable

KNOWN = {each.name: each for each in (AGE, GENDER, HEIGHT, ICU_TYPE, WEIGHT)}
"""Facts that other datasets have too: their names in tables for `predict`, their categories and limits are the same."""


def static_variables(file: VariableFile) -> tuple[StaticVariable, ...]:
    """Return the typed static variables of a variable file; the age is always the first one."""
    return (_age(file.age), *(_typed(each) for each in file.statics))


def _age(row: NamedRows | None) -> StaticVariable:
    return AGE if row is None else replace(AGE, limits=_limits(row) or AGE.limits)


def _typed(named: NamedRows) -> StaticVariable:
    known = KNOWN.get(named.name, StaticVariable(name=named.name, parameter=named.name, unit=named.unit))
    values = {row.value for row in named.rows} | {value for row in named.rows for value in row.words.values()}
    numbers = {value for value in values if value is not None}
    if None in {row.value for row in named.rows if not row.words} or any(value % 1 for value in numbers):
        return replace(known, limits=_limits(named) or known.limits, categories=())
    return replace(known, categories=tuple(sorted({*known.categories, *map(int, numbers)})), limits=None)


def _limits(named: NamedRows) -> tuple[float, float] | None:
    limits = (named.lowest, named.highest)
    return None if -math.inf in limits or math.inf in limits else limits


def insert_fact_codes(database: duckdb.DuckDBPyConnection, meant: MeantCodes, named: Sequence[NamedRows]) -> None:
    """Create the tables `facts_of` and `fact_words` of the codes of static facts."""
    rows = list(enumerate(meant.statics))
    table = pa.table(
        {
            "rule_id": pa.array([number for number, _ in rows], pa.int64()),
            "code": pa.array([each.code for _, each in rows], pa.string()),
            "item": pa.array([each.item for _, each in rows], pa.int64()),
            "factor": pa.array([each.row.factor for _, each in rows], pa.float64()),
            "shift": pa.array([each.row.offset for _, each in rows], pa.float64()),
            "fixed": pa.array([each.row.value for _, each in rows], pa.float64()),
            "raw_lowest": pa.array([each.row.raw_lowest for _, each in rows], pa.float64()),
            "raw_highest": pa.array([each.row.raw_highest for _, each in rows], pa.float64()),
            "lowest": pa.array([named[each.item].lowest for _, each in rows], pa.float64()),
            "highest": pa.array([named[each.item].highest for _, each in rows], pa.float64()),
        }
    )
    words = [(number, word, value) for number, each in rows for word, value in each.row.words.items()]
    word_table = pa.table(
        {
            "rule_id": pa.array([number for number, _, _ in words], pa.int64()),
            "word": pa.array([word for _, word, _ in words], pa.string()),
            "word_number": pa.array([value for _, _, value in words], pa.float64()),
        }
    )
    create_table(database, "facts_of", table)
    create_table(database, "fact_words", word_table)


def static_facts(database: duckdb.DuckDBPyConnection, file: VariableFile, stays: int) -> tuple[pd.DataFrame, int, int]:
    """Return the static facts of the windows, NaN where unknown, and how many do not count.

    These are two numbers: of timeless facts that contradict each other, and of events of facts before the birth or
    after the death of a subject with a window.

    Of several events of a fact, the first one in the window counts; without one, the one without a time; without that,
    the last one before the window. Numbers out of the accepted range do not count. Two different values without a time
    make a fact unknown.
    """
    database.execute(f"""
        CREATE TEMP TABLE outside_life AS
        SELECT f.subject_id, f.time FROM found f JOIN chosen c ON c.subject_id = f.subject_id AND c.is_first
        WHERE f.rule_id IS NOT NULL AND ({not_alive("f", "c")});
        CREATE TEMP TABLE fact_values AS
        SELECT f.subject_id, f.time, r.item,
            coalesce(r.fixed, w.word_number, f.number * r.factor + r.shift) AS value
        FROM found f JOIN facts_of r USING (rule_id)
            LEFT JOIN fact_words w ON w.rule_id = r.rule_id AND w.word = lower(trim(f.text))
            ANTI JOIN outside_life o ON o.subject_id = f.subject_id AND o.time = f.time
        WHERE (r.fixed IS NOT NULL OR w.word IS NOT NULL
                OR (isfinite(f.number) AND f.number BETWEEN r.raw_lowest AND r.raw_highest))
            AND value BETWEEN r.lowest AND r.highest;
        CREATE TEMP TABLE contradicting AS
        SELECT subject_id, item FROM fact_values WHERE time IS NULL
        GROUP BY subject_id, item HAVING min(value) <> max(value)
    """)
    found = database.execute("""
        SELECT c.stay, f.item, min({
            'place': CASE WHEN f.time IS NULL THEN 1 WHEN f.time >= c.start THEN 0 ELSE 2 END,
            'distance': coalesce(abs(date_diff('microsecond', c.start, f.time)), 0),
            'value': f.value
        }).value AS value
        FROM chosen c JOIN fact_values f ON f.subject_id = c.subject_id AND (f.time IS NULL OR f.time < c.until)
            ANTI JOIN contradicting d ON d.subject_id = f.subject_id AND d.item = f.item AND f.time IS NULL
        GROUP BY c.stay, f.item
    """).fetchnumpy()
    columns = np.full((len(file.statics), stays), np.nan)
    columns[np.asarray(found["item"]), np.asarray(found["stay"])] = np.asarray(found["value"])
    age_N = np.asarray(
        database.execute("SELECT age_years::DOUBLE AS age FROM chosen ORDER BY stay").fetchnumpy()["age"]
    )
    facts = {AGE.name: _hidden(np.ma.filled(age_N.astype(np.float64), np.nan), file.age)}
    facts |= {each.name: columns[place] for place, each in enumerate(file.statics)}
    (contradicting,) = database.execute("SELECT count(*) FROM contradicting").fetchall()[0]
    (outside,) = database.execute("SELECT count(*) FROM outside_life").fetchall()[0]
    return pd.DataFrame(facts), int(contradicting), int(outside)


def _hidden(age_N: np.ndarray, row: NamedRows | None) -> np.ndarray:
    """Return ages, with those of more full years than raw_highest replaced by `value`, as the row of kind age says."""
    if row is None or (hidden := row.rows[0].value) is None:
        return age_N
    return np.where(np.floor(age_N) > row.rows[0].raw_highest, hidden, age_N)
