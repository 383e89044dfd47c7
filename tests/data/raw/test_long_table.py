import numpy as np
import pandas as pd
import pytest

from imputune.data.raw.long_table import is_missing


@pytest.mark.parametrize("dtype", ["object", "str", "string", "string[pyarrow]", "category"])
def test_empty_cells_are_missing_whatever_the_type_of_text(dtype: str) -> None:
    """An empty cell is missing in every type of column, blank text in all but categories."""
    missing_R = is_missing(pd.Series(["a", None, " ", "", " b "], dtype=dtype))
    assert missing_R.dtype == bool
    blank = dtype != "category"
    assert missing_R.tolist() == [False, True, blank, blank, False]


@pytest.mark.parametrize("dtype", ["float64", "Float64", "object"])
def test_missing_numbers_are_missing(dtype: str) -> None:
    """NaN, or pandas's own mark, is missing; 0 is not."""
    assert is_missing(pd.Series([0.0, np.nan], dtype=dtype)).tolist() == [False, True]
