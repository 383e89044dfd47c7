"""Static facts in long tables: rows of the first minute, such as Age, or columns beside Value.

Letters: N stays, R rows of the table, T hours, D variables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from imputune.data.raw.long_table import Rows, is_missing, numbers
from imputune.data.raw.spelling import explain_column
from imputune.data.static import StaticVariable, first_values
from imputune.errors import UserError

UNKNOWN_CATEGORY = "category that the model does not know"
IMPLAUSIBLE = "implausible static value"
NOT_AT_ADMISSION = "a static fact at another time than 00:00"


@dataclass(frozen=True, eq=False)
class StaticRows:
    """The static facts of stays, and what became of their rows.

    facts: a row per stay and a column per variable, NaN where unknown. used_R: rows that gave a fact, or said with a
    negative number that it is unknown. unknown: for each reason, which rows of a fact a model does not use, (R,).
    """

    facts: pd.DataFrame
    used_R: npt.NDArray[np.bool_]
    unknown: Mapping[str, npt.NDArray[np.bool_]]


def static_of_rows(
    rows: Rows,
    stay_R: npt.NDArray[np.int64],
    stays: int,
    variables: Sequence[StaticVariable],
    known: Sequence[str],
) -> StaticRows:
    """Return the static facts in rows at 00:00; where a stay has several rows of a fact, the first one counts.

    stay_R: each row's index on the stay axis. known: the parameters that `rows` point to.
    """
    facts = {}
    used_R = np.zeros(len(stay_R), dtype=bool)
    reasons = {reason: used_R.copy() for reason in (UNKNOWN_CATEGORY, IMPLAUSIBLE, NOT_AT_ADMISSION)}
    for variable in variables:
        fact_N = np.full(stays, np.nan)
        if variable.parameter in known:
            index = known.index(variable.parameter)
            at_admission = np.flatnonzero((rows.parameter_R == index) & (rows.minute_R == 0))
            reasons[NOT_AT_ADMISSION] |= (rows.parameter_R == index) & (rows.minute_R != 0)
            _, first = np.unique(stay_R[at_admission], return_index=True)
            row_M = at_admission[first]
            value_M = rows.value_R[row_M]
            fact_N[stay_R[row_M]] = np.where(value_M >= 0, value_M, np.nan)
            fits_M = variable.is_known(value_M) | (value_M < 0)
            used_R[row_M[fits_M]] = True
            reasons[_reason(variable)][row_M[~fits_M]] = True
        facts[variable.name] = fact_N
    return StaticRows(pd.DataFrame(facts, index=range(stays)), used_R, reasons)


def with_columns(
    facts: pd.DataFrame,
    columns: Mapping[str, pd.Series],
    stay_R: npt.NDArray[np.int64],
    stay_ids_N: npt.NDArray[np.int64],
    variables: Sequence[StaticVariable],
) -> tuple[pd.DataFrame, dict[str, npt.NDArray[np.int64]]]:
    """Return static facts, with those that a table has as columns of their own, one value in every row of a stay.

    Also returns, by reason, how many of each stay's facts a model cannot use, (N,). Raises UserError for a column that
    holds no numbers, two values of one stay, or a fact that rows give too.
    """
    facts = facts.copy()
    unusable = {reason: np.zeros(len(stay_ids_N), dtype=np.int64) for reason in (UNKNOWN_CATEGORY, IMPLAUSIBLE)}
    for variable in (each for each in variables if each.parameter in columns):
        name, column = variable.parameter, columns[variable.parameter]
        value_R = numbers(column).copy()
        if (unfit_R := np.isnan(value_R) & ~is_missing(column)).any():
            row = int(unfit_R.argmax())
            raise UserError(
                f"row {row + 1} of the table: {name} {str(column.iloc[row])[:60]!r} is not a number; correct it"
            )
        value_R[value_R < 0] = np.nan
        by_stay = pd.Series(value_R).groupby(stay_R)
        if (differing_N := (by_stay.nunique() > 1).to_numpy()).any():
            raise UserError(
                f"stay {stay_ids_N[differing_N.argmax()]} has different values in the column {name}; give it one"
            )
        fact_N = by_stay.first().to_numpy(np.float64)
        twice_N = ~np.isnan(fact_N) & facts[variable.name].notna().to_numpy()
        if twice_N.any():
            raise UserError(
                f"stay {stay_ids_N[twice_N.argmax()]} has {name} as a row and as a column; keep one of the two"
            )
        unusable[_reason(variable)] += ~np.isnan(fact_N) & ~variable.is_known(fact_N)
        facts[variable.name] = np.where(np.isnan(fact_N), facts[variable.name], fact_N)
    return facts, unusable


def refuse_misspelt(columns: Sequence[str], variables: Sequence[StaticVariable]) -> None:
    """Raise UserError for a column that is none of these facts by its name, but a misspelt one, or its cohort's name.

    Without its fact, a stay's risk would be that of an unknown fact.
    """
    in_tables = [each for each in variables if each.parameter]
    parameter_of = {name: each.parameter for each in in_tables for name in (each.parameter, each.name)}
    for column in columns:
        if line := explain_column(column, parameter_of):
            raise UserError(line)


def _reason(variable: StaticVariable) -> str:
    return UNKNOWN_CATEGORY if variable.categories else IMPLAUSIBLE


def with_measured(
    facts: pd.DataFrame, values_NTD: npt.NDArray[np.float32], names: Sequence[str], variables: Sequence[StaticVariable]
) -> pd.DataFrame:
    """Return static facts, with those that are the first value of a measured variable; `names` are the D variables."""
    measured = {
        each.name: first_values(values_NTD, names.index(each.first_of)) for each in variables if each.first_of in names
    }
    return facts.assign(**measured)
