import numpy as np
import pandas as pd
import pytest

from imputune.data.static import (
    AGE,
    GENDER,
    HEIGHT,
    StaticVariable,
    first_values,
    static_names,
    static_numbers,
    unknown_for_all,
)

FACTS = pd.DataFrame({"age_years": [70.0, np.nan, 200.0], "gender": [1.0, 0.0, 2.0], "height_cm": [1.8, np.nan, 90.0]})


def test_numbers_of_facts_by_value() -> None:
    """A number is itself, a category one column a value; what is implausible, or no known value, is unknown."""
    numbers_NS = static_numbers(FACTS, (AGE, GENDER))
    assert numbers_NS.dtype == np.float32
    np.testing.assert_array_equal(numbers_NS, [[70, 0, 1], [np.nan, 1, 0], [np.nan, np.nan, np.nan]])
    assert static_names((AGE, GENDER)) == ("age_years", "gender=0", "gender=1")


def test_no_facts_are_no_columns() -> None:
    """A dataset without static facts gives an array without columns."""
    assert static_numbers(pd.DataFrame(index=range(4)), ()).shape == (4, 0)


def test_a_number_without_limits_is_known_where_it_is_finite() -> None:
    """Only finite numbers count."""
    score = StaticVariable(name="score", parameter="Score")
    assert score.is_known(np.array([-5.0, np.nan, np.inf, 1e9])).tolist() == [True, False, False, True]


def test_facts_that_no_stay_has() -> None:
    """Heights of 1.8 and 90 cm are implausible, so no height is known."""
    assert unknown_for_all(FACTS, (AGE, GENDER, HEIGHT)) == ["height_cm"]


@pytest.mark.parametrize(("hours", "value"), [([5, 9], 50.0), ([], np.nan)])
def test_first_value_of_a_measured_variable(hours: list[int], value: float) -> None:
    """The first observed hour counts; without one, the fact is unknown."""
    values_NTD = np.full((1, 48, 2), np.nan, dtype=np.float32)
    for hour in hours:
        values_NTD[0, hour, 1] = hour * 10
    np.testing.assert_array_equal(first_values(values_NTD, 1), [value])
