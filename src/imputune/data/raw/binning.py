"""From long tables, one row per measurement, to hourly bins: the mean of each stay, hour and variable.

Letters: N stays, T hours, D variables, R rows of the table.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_numeric_dtype, is_object_dtype, is_string_dtype

from imputune.data.cohort import HOURS
from imputune.errors import UserError, near_miss

COLUMNS = ("RecordID", "Time", "Parameter", "Value")
MOST_ID = 2.0**53  # larger whole numbers are not exact in floating point
LIKENESS = 0.75  # of a suggested parameter name; a wrong suggestion could mix up two measurements
MOST_VALUE = float(np.finfo(np.float32).max)  # cells are float32
_TIME = re.compile(r"(\d{2}):[0-5]\d", re.ASCII)
_NO_TIME, _NO_NAME, _UNKNOWN = -1, -1, -2


@dataclass(frozen=True)
class Rows:
    """Checked rows of a long table.

    Shapes: `hour_R` full hours since admission; `parameter_R` index into the known names, -1 if the row names none;
    `value_R` finite in every row that names a parameter.
    """

    hour_R: npt.NDArray[np.int64]
    parameter_R: npt.NDArray[np.int64]
    value_R: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BinnedStays:
    """Stays in hourly bins, without outcomes.

    Shapes: `stay_ids_N` int64, ascending; `values_NTD` float32 in the units of the records, NaN where nothing was
    observed in the hour (in every hour of a stay of which no row counts). `dropped` counts ignored rows by reason.
    """

    stay_ids_N: npt.NDArray[np.int64]
    values_NTD: npt.NDArray[np.float32]
    dropped: dict[str, int]


def check_rows(table: pd.DataFrame, known: Sequence[str], locate: Callable[[int], str]) -> Rows:
    """Read the columns Time (HH:MM), Parameter and Value of a long table.

    `locate` turns a row number into words for the message. Raises UserError for the first row with an unknown
    parameter, a time that is not HH:MM, or a value that is not a finite number.
    """
    parameter = _categories(table, "Parameter")
    index_of = {"": _NO_NAME} | {name: index for index, name in enumerate(known)}
    parameter_R = _by_code(parameter, lambda name: index_of.get(name, _UNKNOWN), missing=_NO_NAME)
    if (row := _first_true(parameter_R == _UNKNOWN)) is not None:
        name = str(table["Parameter"].iloc[row])
        in_other_case = (word for word in known if word.casefold() == name.casefold())
        hint = near_miss(next(in_other_case, name), known, LIKENESS)
        raise UserError(f"{locate(row)}: unknown parameter {name!r}{hint}; rename it or remove its rows")

    hour_R = _by_code(_categories(table, "Time"), _hour, missing=_NO_TIME)
    if (row := _first_true(hour_R == _NO_TIME)) is not None:
        time = str(table["Time"].iloc[row])
        raise UserError(f"{locate(row)}: time {time!r} is not HH:MM with minutes 00 to 59; correct or remove the line")

    if not (is_numeric_dtype(table["Value"]) or is_string_dtype(table["Value"]) or is_object_dtype(table["Value"])):
        raise UserError(f"the column Value holds {table['Value'].dtype}, not numbers; write it again")
    value_R = pd.to_numeric(table["Value"], errors="coerce").to_numpy(np.float64)
    if (row := _first_true(~(np.abs(value_R) <= MOST_VALUE) & (parameter_R != _NO_NAME))) is not None:
        value = str(table["Value"].iloc[row])
        raise UserError(f"{locate(row)}: value {value!r} is not a number; correct or remove the line")
    return Rows(hour_R, parameter_R, value_R)


def _categories(table: pd.DataFrame, column: str) -> pd.Categorical:
    try:
        return pd.Categorical(table[column])
    except TypeError:
        raise UserError(f"the column {column} holds something else than text; write it again") from None


def bin_rows(
    rows: Rows, stay_R: npt.NDArray[np.int64], stays: int, variables: int
) -> tuple[npt.NDArray[np.float32], dict[str, int]]:
    """Average rows into hourly bins, hour h holding h:00 to h:59, and count the rows dropped by reason.

    `stay_R` is each row's index on the stay axis; parameters with an index below `variables` are the variables. Means
    are computed in float64. Returns `values_NTD`, NaN where nothing was observed, and the counts: no parameter name,
    not one of the variables, after hour 48, negative value. A row is counted once, for the first of these that applies.
    """
    named_R = rows.parameter_R != _NO_NAME
    variable_R = named_R & (rows.parameter_R < variables)
    early_R = variable_R & (rows.hour_R < HOURS)
    kept_R = early_R & (rows.value_R >= 0)
    dropped_rows = {
        "no parameter name": ~named_R,
        "not one of the variables": named_R & ~variable_R,
        f"after hour {HOURS}": variable_R & ~early_R,
        "negative value": early_R & ~kept_R,
    }
    dropped = {reason: int(dropped_R.sum()) for reason, dropped_R in dropped_rows.items()}

    shape = (stays, HOURS, variables)
    cell_R = np.ravel_multi_index((stay_R[kept_R], rows.hour_R[kept_R], rows.parameter_R[kept_R]), shape)
    cells = stays * HOURS * variables
    count = np.bincount(cell_R, minlength=cells)
    total = np.bincount(cell_R, weights=rows.value_R[kept_R], minlength=cells)
    mean = np.full(cells, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(np.float32).reshape(shape), dropped


def bin_table(table: pd.DataFrame, variables: Sequence[str], others: Sequence[str]) -> BinnedStays:
    """Bin one long table with the columns RecordID, Time (HH:MM), Parameter and Value.

    Rows of the parameters in `others`, rows after hour 48 and negative values are ignored. Raises UserError for a
    missing column, a table without rows, a row that cannot be read or repeats another, or a stay with too many rows.
    """
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise UserError(f"the table has no column {missing[0]}; it needs {', '.join(COLUMNS)}")
    if table.empty:
        raise UserError("the table has no rows; give at least one measurement")
    rows = check_rows(table, [*variables, *others], _row_of_table)
    record_id_R = pd.to_numeric(table["RecordID"], errors="coerce").to_numpy(np.float64)
    if (row := _first_true(~(np.abs(record_id_R) < MOST_ID) | (record_id_R % 1 != 0))) is not None:
        value = str(table["RecordID"].iloc[row])
        raise UserError(f"{_row_of_table(row)}: RecordID {value!r} is not a whole number; correct it")
    stay_ids_N, stay_R = np.unique(record_id_R.astype(np.int64), return_inverse=True)
    check_repeats(table, rows, stay_R, stay_ids_N, len(variables), _row_of_table)
    values_NTD, dropped = bin_rows(rows, stay_R, len(stay_ids_N), len(variables))
    return BinnedStays(stay_ids_N, values_NTD, dropped)


def check_repeats(
    table: pd.DataFrame,
    rows: Rows,
    stay_R: npt.NDArray[np.int64],
    stay_ids_N: npt.NDArray[np.int64],
    variables: int,
    locate: Callable[[int], str],
) -> None:
    """Raise UserError for rows that only an error in producing the table can explain.

    These are a row that repeats another's stay, time, parameter and value, and a stay with more rows in its 48 hours
    than one a minute for each variable. Different values at the same time are allowed: they are averaged.
    """
    most = HOURS * 60 * variables
    counted_R = (rows.hour_R < HOURS) & (rows.parameter_R >= 0) & (rows.parameter_R < variables)
    count_N = np.bincount(stay_R[counted_R], minlength=len(stay_ids_N))
    if (stay := _first_true(count_N > most)) is not None:
        raise UserError(
            f"stay {stay_ids_N[stay]} has {count_N[stay]:,} rows in {HOURS} hours, more than one a minute for each of "
            f"{variables} variables ({most:,}); check its records"
        )
    time_R = pd.Categorical(table["Time"]).codes
    keys = pd.DataFrame({"stay": stay_R, "time": time_R, "parameter": rows.parameter_R, "value": rows.value_R})
    keys = keys[rows.parameter_R != _NO_NAME]
    repeated = keys.index[keys.duplicated()]
    if len(repeated):
        row = int(repeated[0])
        first = int(keys.index[(keys == keys.loc[row]).all(axis=1)][0])
        raise UserError(f"{locate(row)} repeats {locate(first)}; remove one of the two")


def _row_of_table(row: int) -> str:
    return f"row {row + 1} of the table"


def _by_code(column: pd.Categorical, read: Callable[[str], int], missing: int) -> npt.NDArray[np.int64]:
    # Each distinct text is read once; code -1 (missing) picks the last entry.
    numbers = [read(str(text)) for text in column.categories]
    number_C: npt.NDArray[np.int64] = np.array([*numbers, missing], dtype=np.int64)
    return np.take(number_C, column.codes)


def _hour(text: str) -> int:
    match = _TIME.fullmatch(text)
    return int(match[1]) if match else _NO_TIME


def _first_true(mask_R: npt.NDArray[np.bool_]) -> int | None:
    return int(mask_R.argmax()) if mask_R.any() else None
