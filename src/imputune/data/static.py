"""Static facts: what is known of a stay at admission, as typed variables, and as numbers that heads read.

Letters: N stays, S numbers of the static facts, D variables of a record.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, kw_only=True)
class StaticVariable:
    """A fact about a stay, known at admission: a number with its unit, or a category.

    name: its column in a cohort. parameter: its name in raw records, in rows of the first minute. categories: the
    values it can have; empty for a number. limits: lowest and highest plausible number, in its unit; a number beyond
    counts as unknown. first_of: the measured variable whose first value is the fact, where records do not have it as
    rows of its own.
    """

    name: str
    parameter: str
    unit: str = ""
    categories: tuple[int, ...] = ()
    limits: tuple[float, float] | None = None
    first_of: str = ""

    def is_known(self, fact_N: np.ndarray) -> np.ndarray:
        """Return which facts count, bool (N,): those that are plausible, or among the categories."""
        if self.categories:
            return np.isin(fact_N, self.categories)
        if self.limits is None:
            return np.isfinite(fact_N)
        lowest, highest = self.limits
        return (fact_N >= lowest) & (fact_N <= highest)


AGE = StaticVariable(name="age_years", parameter="Age", unit="years", limits=(0, 120))
GENDER = StaticVariable(name="gender", parameter="Gender", categories=(0, 1))
HEIGHT = StaticVariable(name="height_cm", parameter="Height", unit="cm", limits=(100, 250))
ICU_TYPE = StaticVariable(name="icu_type", parameter="ICUType", categories=(1, 2, 3, 4))
WEIGHT = StaticVariable(name="weight_kg", parameter="Weight", unit="kg", limits=(20, 400))


def static_numbers(static: pd.DataFrame, variables: Sequence[StaticVariable]) -> np.ndarray:
    """Return static facts as numbers, float32 (N, S), NaN where a fact is unknown.

    A number takes one column. A category takes one column for each of its values, with 1 for the stay's own and 0 for
    the others. `static` has a row for each stay and a column for each variable.
    """
    columns = [np.empty((len(static), 0), dtype=np.float32)]
    for variable in variables:
        fact_N = static[variable.name].to_numpy(np.float64)
        known_N1 = variable.is_known(fact_N)[:, None]
        number_NC = fact_N[:, None] == variable.categories if variable.categories else fact_N[:, None]
        columns.append(np.where(known_N1, number_NC, np.nan).astype(np.float32))
    return np.concatenate(columns, axis=1)


def static_names(variables: Sequence[StaticVariable]) -> tuple[str, ...]:
    """Return a name for each column of `static_numbers`: age_years, gender=0, gender=1, ..."""
    return tuple(
        name
        for variable in variables
        for name in ([f"{variable.name}={value}" for value in variable.categories] or [variable.name])
    )


def unknown_for_all(static: pd.DataFrame, variables: Sequence[StaticVariable]) -> list[str]:
    """Return the names of the facts that no stay has."""
    return [each.name for each in variables if not each.is_known(static[each.name].to_numpy(np.float64)).any()]


def first_values(values_NTD: np.ndarray, variable: int) -> np.ndarray:
    """Return the first observed value of a variable in each stay, float64 (N,), NaN where it was never observed.

    values_NTD: (N, T, D), NaN where not observed.
    """
    values_NT = values_NTD[:, :, variable]
    hour_N1 = (~np.isnan(values_NT)).argmax(axis=1)[:, None]
    return np.take_along_axis(values_NT, hour_N1, axis=1)[:, 0].astype(np.float64)
