"""Reads the four columns of a long table, for `predict` and for a served model.

A table comes from a CSV or Parquet file, or from a request. Readers of CSV cannot tell the word NA from an empty cell,
so a row without one of its four cells is always an error: the row may have had a meaning.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype, is_object_dtype, is_string_dtype

from imputune.errors import UserError

COLUMNS = ("RecordID", "Time", "Parameter", "Value")
_SEPARATORS = ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars"))
_MOST_BITS = 1000  # of a whole number that fits a float


@dataclass(frozen=True)
class Rows:
    """Checked rows of a long table.

    Shapes: `minute_R` minutes since admission; `parameter_R` index into the known names, -1 if the row names none;
    `value_R` finite in every row that names a parameter.
    """

    minute_R: npt.NDArray[np.int64]
    parameter_R: npt.NDArray[np.int64]
    value_R: npt.NDArray[np.float64]

    @property
    def hour_R(self) -> npt.NDArray[np.int64]:
        """Full hours since admission."""
        return self.minute_R // 60


def needed_columns(table: object, sodium: str = "") -> pd.DataFrame:
    """Return RecordID, Time, Parameter and Value of a table, in the order of its rows, without its index.

    `table` is a data frame, a mapping of columns, or a list of rows as mappings. Columns that the index holds are read.
    `sodium` is this model's name of sodium, or ""; the error for a missing Parameter names it, because CSV readers take
    NA for an empty cell.

    Raises UserError for anything else, a missing or repeated column, a table without rows, and a row with a missing
    cell.
    """
    frame = _as_frame(table)
    _refuse_other_separators(frame)
    columns = pd.DataFrame({name: _column(frame, name).array for name in COLUMNS})
    if columns.empty:
        raise UserError("the table has no rows; give at least one measurement")
    shifted = None in frame.index.names and not isinstance(frame.index, pd.RangeIndex)
    if shifted and is_numeric_dtype(columns["Parameter"]):  # pandas makes the first of too many fields the index
        raise UserError("the table's rows have more fields than its header; write it again")
    _refuse_missing(columns, sodium)
    return columns


def further_columns(table: object, names: Sequence[str]) -> dict[str, pd.Series]:
    """Return those of a table's columns that have one of these names; UserError for a repeated column."""
    frame = _as_frame(table)
    there = {name.strip() for name in _all_names(frame)}
    return {name: _column(frame, name).reset_index(drop=True) for name in names if name in there}


def other_names(table: object, names: Sequence[str]) -> list[str]:
    """Return the names of a table's columns, also of those in its index, but the four COLUMNS and these `names`."""
    found = dict.fromkeys(name.strip() for name in _all_names(_as_frame(table)))
    return [name for name in found if name not in {*COLUMNS, *names}]


def _all_names(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in (*frame.columns, *frame.index.names) if name is not None]


def numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """Return the numbers of a column, NaN where a cell is none; raises UserError if it holds dates or the like.

    True and false are no numbers.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if is_bool_dtype(column):
        return np.full(len(column), np.nan)
    if is_object_dtype(column):
        column = column.map(_number_or_text)
    elif is_complex_dtype(column) or not (is_numeric_dtype(column) or is_string_dtype(column)):
        raise UserError(f"the column {column.name} holds {column.dtype}, not numbers; write it again")
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _number_or_text(cell: object) -> object:
    if isinstance(cell, int) and not isinstance(cell, bool) and cell.bit_length() <= _MOST_BITS:
        return cell
    return cell if isinstance(cell, float | str | np.integer | np.floating) else _from_decimal(cell)


def _from_decimal(cell: object) -> float:
    return float(cell) if type(cell).__name__ == "Decimal" else np.nan  # type: ignore[arg-type]


def _as_frame(table: object) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        return table
    try:
        if isinstance(table, Mapping):
            return pd.DataFrame({name: np.atleast_1d(_unwrapped(cells)) for name, cells in table.items()})
        if isinstance(table, list) and table and all(isinstance(row, Mapping) for row in table):
            return pd.DataFrame([{name: _unwrapped(cell) for name, cell in row.items()} for row in table])
    except (TypeError, ValueError):
        raise UserError(
            "the table's columns differ in length, or hold more than one value a row; write it again"
        ) from None
    raise UserError(f"the records are no table; give a table with the columns {', '.join(COLUMNS)}")


def _unwrapped(cell: Any) -> Any:
    """Return a single value that stands in an array without axes, as mlflow hands it on, or else the cell itself."""
    return cell.item() if isinstance(cell, np.ndarray) and cell.ndim == 0 else cell


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    twice = re.compile(rf"{name}(\.\d+)?")  # pandas calls a second column of the name "Value.1"
    named = [column.strip() if isinstance(column, str) else "" for column in frame.columns]
    places = [place for place, column in enumerate(named) if twice.fullmatch(column)]
    if len(places) > 1:
        raise UserError(f"the table has {len(places)} columns {name}; keep one of them")
    if places and named[places[0]] == name:
        return frame.iloc[:, places[0]]
    if list(frame.index.names).count(name) == 1:
        return frame.index.get_level_values(name).to_series()
    raise UserError(f"the table has no column {name}{_near(frame, named, name)}; it needs {', '.join(COLUMNS)}")


def _near(frame: pd.DataFrame, named: list[str], name: str) -> str:
    """Return where a column may be that was not found: under another spelling, or in the index."""
    if other := [column for column in named if column.casefold() == name.casefold()]:
        return f" (it has {other[0]!r}: rename it)"
    index = frame.index
    if isinstance(index, pd.RangeIndex) and index.name is None and (index.start, index.step) == (0, 1):
        return ""
    if names := [str(level) for level in index.names if level is not None]:
        named_index = ", ".join(map(repr, names))
        return f" (the table's index is named {named_index}; if it holds this column, name it {name})"
    return f" (the table's index has no name; if it holds this column, name it {name})"


def _refuse_other_separators(frame: pd.DataFrame) -> None:
    first = frame.columns[0] if len(frame.columns) else ""
    for mark, word in _SEPARATORS if isinstance(first, str) else ():
        if set(COLUMNS) <= {field.strip() for field in first.split(mark)}:
            raise UserError(f"the table's columns are separated by {word}; write it with commas")


def _refuse_missing(columns: pd.DataFrame, sodium: str) -> None:
    missing = {name: is_missing(columns[name]) for name in COLUMNS}
    if not any(missing_R.any() for missing_R in missing.values()):
        return
    empty_R = np.logical_and.reduce(list(missing.values()))
    if empty_R.any():
        row, others = int(empty_R.argmax()) + 1, int(empty_R.sum()) - 1
        raise UserError(f"row {row} of the table is empty{f', and {others:,} more' * (others > 0)}; remove such rows")
    name = next(name for name in ("Parameter", "Time", "Value", "RecordID") if missing[name].any())
    hint = f" (sodium is {sodium!r})" if sodium and name == "Parameter" else ""
    raise UserError(
        f"row {int(missing[name].argmax()) + 1} of the table has no {name}: its cell is empty, or a word for a "
        f"missing value such as NA{hint}; correct or remove the row"
    )


def is_missing(column: pd.Series) -> npt.NDArray[np.bool_]:
    """Return which cells are empty, or blank text, bool (R,)."""
    missing_R = column.isna().to_numpy()
    if is_object_dtype(column):
        return missing_R | np.array([isinstance(cell, str) and not cell.strip() for cell in column], dtype=bool)
    if is_string_dtype(column) and not isinstance(column.dtype, pd.CategoricalDtype):
        return missing_R | (column.str.strip() == "").to_numpy(bool, na_value=False)
    return missing_R
