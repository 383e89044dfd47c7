"""The file windows.csv of a cohort's folder: whose stay each is, and when its window began and ended.

It is no part of the cohort's hash: only labels that are added later are joined by it.
"""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from imputune.data.static_file import read_text_table
from imputune.errors import UserError, one_line

WINDOWS_FILE = "windows.csv"
TIMES = ("start", "end", "next_start")
"""When the window begins; when it ends, or the stay if that is earlier; when the subject's next stay starts, if any."""
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f"


def stay_windows(
    subject_ids_N: npt.NDArray[np.int64],
    start_N: npt.NDArray[np.datetime64],
    end_N: npt.NDArray[np.datetime64],
    next_start_N: npt.NDArray[np.datetime64],
) -> pd.DataFrame:
    """Return the windows of stays as a table: subject_id, and the columns of `TIMES`, NaT where there is no next stay.

    Shapes: (N,) each; `subject_ids_N` are the records' own.
    """
    times = zip(TIMES, (start_N, end_N, next_start_N), strict=True)
    return pd.DataFrame({"subject_id": subject_ids_N, **{name: pd.Series(time_N) for name, time_N in times}})


def write_windows(stay_ids_N: npt.NDArray[np.int64], windows: pd.DataFrame, path: Path) -> None:
    """Write the windows of the stays, a row each."""
    table = windows.reset_index(drop=True)
    table.insert(0, "stay_id", stay_ids_N)
    table.to_csv(path, index=False, lineterminator="\n", date_format=_TIME_FORMAT)


def read_windows(path: Path, stay_ids_N: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Read the windows of a cohort's stays; raises UserError for a file that is broken or of other stays."""
    try:
        table = read_text_table(path)
        if table["stay_id"].tolist() != [str(stay_id) for stay_id in stay_ids_N]:
            raise ValueError("it must have the stays of stays.csv in the same order")
        return _parsed(table)
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {one_line(error)}; run `imputune extract` again") from None


def _parsed(table: pd.DataFrame) -> pd.DataFrame:
    try:
        times = [pd.to_datetime(table[name].replace("", None), format=_TIME_FORMAT).to_numpy() for name in TIMES]
        return stay_windows(table["subject_id"].to_numpy(np.int64), *times)
    except ValueError:  # its text has an id or a time of a patient
        told = f"subject_id must be a whole number, {', '.join(TIMES)} like 2150-03-01 10:00:00.000000"
        raise ValueError(told) from None
