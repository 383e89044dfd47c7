from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from imputune.data.cohort import Variable
from imputune.data.raw.binning import totals
from imputune.data.raw.physionet2012 import bin_long_table
from imputune.data.raw.physionet2012_parameters import STATIC, VARIABLES
from imputune.data.static import AGE, HEIGHT
from imputune.errors import UserError

ROWS = [
    (1, "00:00", "Age", 77),
    (1, "00:00", "Gender", 0),
    (1, "00:00", "Height", -1),
    (1, "00:00", "ICUType", 9),
    (1, "00:00", "Weight", 3),
    (1, "05:00", "Weight", 80),
    (1, "00:10", "HR", 112),
    (2, "00:10", "HR", 80),
    (2, "00:20", "Age", 50),
]


def table(rows: list[tuple[object, ...]], **columns: object) -> pd.DataFrame:
    """Return a long table, with further columns."""
    return pd.DataFrame(rows, columns=["RecordID", "Time", "Parameter", "Value"]).assign(**columns)


def test_facts_in_rows_of_the_first_minute() -> None:
    """Used rows are not counted as ignored; what a model cannot use is, with the reason; later rows are no facts."""
    stays = bin_long_table(table(ROWS), VARIABLES, STATIC)
    assert stays.static is not None
    unknown = [np.nan] * 5
    np.testing.assert_array_equal(stays.static[["age_years", "gender", "height_cm"]].iloc[0], [77, 0, np.nan])
    np.testing.assert_array_equal(stays.static.iloc[1], unknown)
    counts = {reason: count for reason, count in totals(stays.ignored).items() if count}
    assert counts == {
        "a static fact at another time than 00:00": 2,
        "category that the model does not know": 1,
        "implausible static value": 1,
    }
    assert stays.ignored_N.tolist() == [3, 1]


def test_a_model_without_static_facts_ignores_their_rows() -> None:
    """All seven rows are counted, as before."""
    stays = bin_long_table(table(ROWS), VARIABLES)
    assert stays.static is None
    assert stays.ignored_N.tolist() == [6, 1]


def test_facts_in_columns() -> None:
    """A column of the parameter's name gives the fact; -1 and an empty cell say that it is unknown."""
    rows = [(1, "00:10", "HR", 112), (1, "01:10", "HR", 100), (2, "00:10", "HR", 80), (3, "00:10", "HR", 80)]
    stays = bin_long_table(table(rows, Age=[77, 77, -1, None], Height=["180", "180", "", "170"]), VARIABLES, (AGE,))
    assert stays.static is not None
    np.testing.assert_array_equal(stays.static["age_years"], [77, np.nan, np.nan])
    assert stays.ignored_N.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"Age": [77, 7]}, "stay 1 has different values in the column Age; give it one"),
        ({"Age": [77, "old"]}, "row 2 of the table: Age 'old' is not a number; correct it"),
    ],
)
def test_columns_that_cannot_be_read(columns: Mapping[str, object], line: str) -> None:
    """One line says what is wrong."""
    rows = [(1, "00:10", "HR", 112), (1, "01:10", "HR", 100)]
    with pytest.raises(UserError) as caught:
        bin_long_table(table(rows, **columns), VARIABLES, (AGE,))
    assert str(caught.value) == line


def test_a_fact_as_row_and_column() -> None:
    """The same fact twice is refused, because one of them may be wrong."""
    with pytest.raises(UserError, match="stay 1 has Age as a row and as a column; keep one of the two"):
        bin_long_table(table(ROWS, Age=[77] * 7 + [50] * 2), VARIABLES, STATIC)


def test_a_fact_that_is_the_first_value_of_a_variable() -> None:
    """Where records measure it, as MIMIC-III's do, the first measured value is the fact."""
    height = type(HEIGHT)(name="height_cm", parameter="", unit="cm", limits=(100, 250), first_of="height")
    rows = [(1, "03:00", "height", 181), (1, "02:00", "height", 180), (2, "01:00", "HR", 80)]
    stays = bin_long_table(table(rows), (Variable("HR", "bpm"), Variable("height", "cm")), (height,))
    assert stays.static is not None
    np.testing.assert_array_equal(stays.static["height_cm"], [180, np.nan])


def test_columns_that_a_model_cannot_use_are_counted() -> None:
    """An unknown category and an implausible number in columns count as in rows, once for each stay."""
    rows = [(1, "00:10", "HR", 112), (1, "01:10", "HR", 100), (2, "00:10", "HR", 80)]
    stays = bin_long_table(table(rows, ICUType=[9, 9, 2], Age=[500, 500, 50]), VARIABLES, STATIC)
    counts = {reason: count for reason, count in totals(stays.ignored).items() if count}
    assert counts == {"category that the model does not know": 1, "implausible static value": 1}
    assert stays.ignored_N.tolist() == [2, 0]


def test_a_static_fact_of_another_dataset_as_a_row() -> None:
    """A model's own static facts are known parameters, also where the challenge has none of the name."""
    frailty = type(AGE)(name="frailty", parameter="Frailty", limits=(1, 9))
    rows = [(1, "00:00", "Frailty", 4), (1, "00:10", "HR", 112)]
    stays = bin_long_table(table(rows), VARIABLES, (frailty,))
    assert stays.static is not None
    assert stays.static["frailty"].tolist() == [4]
    assert stays.ignored_N.tolist() == [0]


def test_a_fact_that_is_a_variable_too_is_not_counted_twice() -> None:
    """A row of a variable at 00:00 is observed and gives the fact; no count goes below 0."""
    weight = type(AGE)(name="weight_kg", parameter="Weight", limits=(20, 400))
    rows = [(1, "00:00", "Weight", 80), (1, "00:10", "HR", 112)]
    stays = bin_long_table(table(rows), (Variable("HR", "bpm"), Variable("Weight", "kg")), (weight,))
    assert stays.static is not None
    assert stays.static["weight_kg"].tolist() == [80]
    assert all((count_N >= 0).all() for count_N in stays.ignored.values())


@pytest.mark.parametrize(
    ("column", "meant"),
    [("age", "Age"), ("gender", "Gender"), ("Gendr", "Gender"), ("icu_type", "ICUType"), ("age_years", "Age")],
)
def test_a_misspelt_column_of_a_fact_is_refused(column: str, meant: str) -> None:
    """Without its fact, the risk would be that of an unknown fact; the line is like that of a misspelt row."""
    rows = [(1, "00:10", "HR", 112)]
    with pytest.raises(UserError) as caught:
        bin_long_table(table(rows, **{column: 1}), VARIABLES, STATIC)
    assert str(caught.value) == f"unknown column {column!r} (did you mean {meant!r}?); rename it or remove it"
    assert bin_long_table(table(rows, **{column: 1}), VARIABLES).columns_not_read == (column,)


def test_other_columns_are_named() -> None:
    """Columns that are no fact of the model are told, and change nothing."""
    stays = bin_long_table(table([(1, "00:10", "HR", 112)], Age=77, Ward="B", Height=180), VARIABLES, (AGE,))
    assert stays.columns_not_read == ("Ward", "Height")
    assert stays.static is not None
    assert stays.static["age_years"].tolist() == [77]


def test_a_fact_in_the_index_of_a_table() -> None:
    """An index of the parameter's name is a column of the fact."""
    stays = bin_long_table(table([(1, "00:10", "HR", 112)], Age=77).set_index("Age"), VARIABLES, (AGE,))
    assert stays.static is not None
    assert (stays.static["age_years"].tolist(), stays.columns_not_read) == ([77], ())
