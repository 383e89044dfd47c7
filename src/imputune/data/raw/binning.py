"""From long tables, one row per measurement, to hourly bins: the mean of each stay, hour and variable.

Letters: N stays, T hours, D variables, R rows of the table, C distinct texts of a column.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from imputune.data.raw.long_table import Rows, further_columns, needed_columns, numbers, other_names
from imputune.data.raw.spelling import explain_unknown
from imputune.data.raw.static_rows import refuse_misspelt, static_of_rows, with_columns, with_measured
from imputune.data.static import StaticVariable
from imputune.data.window import HOURS, Window
from imputune.errors import UserError

MOST_ID = 2.0**53  # larger whole numbers are not exact in floating point
MOST_VALUE = float(np.finfo(np.float32).max)  # cells are float32
MOST_SHOWN = 60  # characters of a faulty cell
SODIUM = ("Na", "sodium")
_TIME = re.compile(r"(\d{2}):([0-5]\d)", re.ASCII)
_NO_TIME, _NO_NAME, _UNKNOWN = -1, -1, -2


@dataclass(frozen=True, eq=False, kw_only=True)
class BinnedStays:
    """Stays in hourly bins, without outcomes.

    Shapes: `stay_ids_N` int64, ascending; `values_NTD` float32 in the units of the records, NaN where nothing was
    observed in the hour. A stay without a row that counts has NaN in every hour. `ignored` has for each reason how many
    rows of each stay were ignored, int64 (N,). `static` has a row per stay and a column per static fact that was asked
    for, NaN where unknown; None if none was asked for. `columns_not_read` names a table's other columns.
    """

    stay_ids_N: npt.NDArray[np.int64]
    values_NTD: npt.NDArray[np.float32]
    ignored: Mapping[str, npt.NDArray[np.int64]]
    static: pd.DataFrame | None = None
    columns_not_read: tuple[str, ...] = ()

    @property
    def ignored_N(self) -> npt.NDArray[np.int64]:
        """How many rows of each stay were ignored."""
        return np.sum([np.zeros(len(self.stay_ids_N), dtype=np.int64), *self.ignored.values()], axis=0)


def totals(ignored: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, int]:
    """Return how many rows of all stays were ignored, by reason."""
    return {reason: int(ignored_N.sum()) for reason, ignored_N in ignored.items()}


def check_rows(
    table: pd.DataFrame, variables: Sequence[str], others: Sequence[str], locate: Callable[[int], str]
) -> Rows:
    """Read the columns Time (HH:MM), Parameter and Value of a long table; blanks around a word or number do not count.

    Known parameters are the variables, then the others. `locate` turns a row number into words for the message. Raises
    UserError for the first row with an unknown parameter, a time that is not HH:MM, or a value that is not a finite
    number.
    """
    known = [*variables, *others]
    index_of = {"": _NO_NAME} | {name: index for index, name in enumerate(known)}
    parameter_R = _read_each(table, "Parameter", lambda name: index_of.get(name, _UNKNOWN), missing=_NO_NAME)
    if (row := _first_true(parameter_R == _UNKNOWN)) is not None:
        name = str(table["Parameter"].iloc[row])
        raise UserError(f"{locate(row)}: {explain_unknown(name, known, variables)}")

    minute_R = _read_each(table, "Time", _minute, missing=_NO_TIME)
    if (row := _first_true(minute_R == _NO_TIME)) is not None:
        time = _shown(table["Time"].iloc[row])
        raise UserError(
            f"{locate(row)}: time {time} is not HH:MM, two digits each and minutes 00 to 59; correct or remove it"
        )

    value_R = numbers(table["Value"])
    if (row := _first_true(~(np.abs(value_R) <= MOST_VALUE) & (parameter_R != _NO_NAME))) is not None:
        value = _shown(table["Value"].iloc[row])
        raise UserError(f"{locate(row)}: value {value} is not a number; correct or remove it")
    return Rows(minute_R, parameter_R, value_R)


def _read_each(table: pd.DataFrame, column: str, read: Callable[[str], int], missing: int) -> npt.NDArray[np.int64]:
    """Return `read` of the text of each cell without the blanks around it, int64 (R,); `missing` for a missing cell.

    Each distinct text is read once. Raises UserError for cells that are no text, such as lists.
    """
    try:
        codes_R, texts = pd.factorize(table[column])
    except TypeError:
        raise UserError(f"the column {column} holds values that are not text; write it again") from None
    # Code -1, a missing cell, picks the last entry.
    number_C: npt.NDArray[np.int64] = np.array([*(read(str(text).strip()) for text in texts), missing], dtype=np.int64)
    return np.take(number_C, codes_R)


def _shown(cell: object) -> str:
    """Return a cell in quotation marks, cut at 60 characters.

    Numbers look the same whether they came as text or as numbers.
    """
    text = str(cell).strip()
    if len(text) <= MOST_SHOWN and not isinstance(cell, bool | np.bool_):
        with suppress(ValueError):
            text = str(float(text))
    return _quoted(text)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")


def bin_rows(
    rows: Rows, stay_R: npt.NDArray[np.int64], stays: int, variables: int, window: Window | None = None
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.int64]]]:
    """Average rows into bins, of an hour (h:00 to h:59) without a `window`, and count ignored rows by reason.

    `stay_R` is each row's index on the stay axis; parameters with an index below `variables` are the variables. Means
    are computed in float64. Returns `values_NTD`, NaN where nothing was observed, and the counts, (N,) each: no
    parameter name, not one of the variables, after hour 48, negative value. A row is counted once, for the first of
    these that applies.
    """
    window = window or Window()
    named_R = rows.parameter_R != _NO_NAME
    variable_R = named_R & (rows.parameter_R < variables)
    early_R = variable_R & (rows.hour_R < window.hours)
    kept_R = early_R & (rows.value_R >= 0)
    ignored_rows = {
        "no parameter name": ~named_R,
        "not one of the variables": named_R & ~variable_R,
        f"after hour {window.hours}": variable_R & ~early_R,
        "negative value": early_R & ~kept_R,
    }
    ignored = {
        reason: np.bincount(stay_R[ignored_R], minlength=stays).astype(np.int64)
        for reason, ignored_R in ignored_rows.items()
    }

    shape = (stays, window.bins, variables)
    cell_R = np.ravel_multi_index(
        (stay_R[kept_R], rows.hour_R[kept_R] // window.bin_hours, rows.parameter_R[kept_R]), shape
    )
    cells = stays * window.bins * variables
    count = np.bincount(cell_R, minlength=cells)
    total = np.bincount(cell_R, weights=rows.value_R[kept_R], minlength=cells)
    mean = np.full(cells, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(np.float32).reshape(shape), ignored


def bin_stays(
    rows: Rows,
    stay_R: npt.NDArray[np.int64],
    stay_ids_N: npt.NDArray[np.int64],
    variables: Sequence[str],
    others: Sequence[str],
    static: Sequence[StaticVariable],
    window: Window | None = None,
) -> BinnedStays:
    """Bin the rows of stays, and read the static facts that are asked for; see `bin_rows` and `static_of_rows`."""
    stays = len(stay_ids_N)
    values_NTD, ignored = bin_rows(rows, stay_R, stays, len(variables), window)
    if not static:
        return BinnedStays(stay_ids_N=stay_ids_N, values_NTD=values_NTD, ignored=ignored)
    found = static_of_rows(rows, stay_R, stays, static, [*variables, *others])
    is_other_R = rows.parameter_R >= len(variables)  # a row of a variable counts as that, also if it gives a fact
    counts = {
        reason: np.bincount(stay_R[row_R & is_other_R], minlength=stays) for reason, row_R in found.unknown.items()
    }
    others_N = ignored["not one of the variables"] - np.bincount(stay_R[found.used_R & is_other_R], minlength=stays)
    ignored = {**ignored, "not one of the variables": others_N - sum(counts.values()), **counts}
    facts = with_measured(found.facts, values_NTD, variables, static)
    return BinnedStays(stay_ids_N=stay_ids_N, values_NTD=values_NTD, ignored=ignored, static=facts)


def bin_table(
    table: object,
    variables: Sequence[str],
    others: Sequence[str],
    static: Sequence[StaticVariable] = (),
    window: Window | None = None,
) -> BinnedStays:
    """Bin one long table with the columns RecordID, Time (HH:MM), Parameter and Value; see `needed_columns`.

    Static facts may stand in rows at 00:00, or in columns of the parameter's name, such as Age. Rows of the parameters
    in `others`, rows after the window and negative values are ignored and counted. Raises UserError for a missing
    column, a misspelt column of a static fact, a table without rows, a row that cannot be read or repeats another,
    or a stay with too many rows.
    """
    columns = needed_columns(table, next((name for name in SODIUM if name in variables), ""))
    parameters = [each.parameter for each in static if each.parameter]
    not_read = tuple(other_names(table, parameters))
    refuse_misspelt(not_read, static)
    rows = check_rows(columns, variables, others, _row_of_table)
    record_id_R = numbers(columns["RecordID"])
    if (row := _first_true(~(np.abs(record_id_R) < MOST_ID) | (record_id_R % 1 != 0))) is not None:
        text = _quoted(str(columns["RecordID"].iloc[row]).strip())
        raise UserError(f"{_row_of_table(row)}: RecordID {text} is not a whole number below 2**53; correct it")
    stay_ids_N, stay_R = np.unique(record_id_R.astype(np.int64), return_inverse=True)
    hours = (window or Window()).hours
    check_repeats(rows, stay_R, stay_ids_N, len(variables), _row_of_table, hours)
    binned = bin_stays(rows, stay_R, stay_ids_N, variables, others, static, window)
    binned = replace(binned, columns_not_read=not_read)
    if binned.static is None:
        return binned
    facts = further_columns(table, parameters)
    known, unusable = with_columns(binned.static, facts, stay_R, stay_ids_N, static)
    ignored = {reason: count_N + unusable.get(reason, 0) for reason, count_N in binned.ignored.items()}
    return replace(binned, static=known, ignored=ignored)


def check_repeats(
    rows: Rows,
    stay_R: npt.NDArray[np.int64],
    stay_ids_N: npt.NDArray[np.int64],
    variables: int,
    locate: Callable[[int], str],
    hours: int = HOURS,
) -> None:
    """Raise UserError for rows that only an error in producing the table can explain.

    These are a row that repeats another's stay, time, parameter and value, and a stay with more rows in its `hours`
    than one a minute for each variable. Different values at the same time are allowed: they are averaged.
    """
    most = hours * 60 * variables
    counted_R = (rows.hour_R < hours) & (rows.parameter_R >= 0) & (rows.parameter_R < variables)
    count_N = np.bincount(stay_R[counted_R], minlength=len(stay_ids_N))
    if (stay := _first_true(count_N > most)) is not None:
        raise UserError(
            f"stay {stay_ids_N[stay]} has {count_N[stay]:,} rows in {hours} hours, more than one a minute for each of "
            f"{variables} variables ({most:,}); check its records"
        )
    named = np.flatnonzero(rows.parameter_R != _NO_NAME)
    keys = [each_R[named] for each_R in (rows.value_R, rows.parameter_R, rows.minute_R, stay_R)]
    order = np.lexsort(keys)  # stable: equal rows become neighbours, in the table's order
    equal = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    if equal.any():
        later, earlier = order[1:][equal], order[:-1][equal]
        first_repeat = later.argmin()
        row, first = int(named[later[first_repeat]]), int(named[earlier[first_repeat]])
        raise UserError(f"{locate(row)} repeats {locate(first)}; remove one of the two")


def _row_of_table(row: int) -> str:
    return f"row {row + 1} of the table"


def _minute(text: str) -> int:
    match = _TIME.fullmatch(text)
    return 60 * int(match[1]) + int(match[2]) if match else _NO_TIME


def _first_true(mask_R: npt.NDArray[np.bool_]) -> int | None:
    return int(mask_R.argmax()) if mask_R.any() else None
