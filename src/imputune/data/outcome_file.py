"""The file outcomes.csv of a cohort's folder: the labels of every outcome beside the first.

Letters: N stays.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from imputune.data.static_file import read_text_table
from imputune.protocol.outcomes import check_outcome_name

OUTCOMES_FILE = "outcomes.csv"
NO_LABEL = -1
"""The label of a stay that has none."""
ID = "stay_id"
Labels = npt.NDArray[np.int8]


def write_outcomes(stay_ids_N: npt.NDArray[np.int64], outcomes: Mapping[str, Labels], path: Path) -> None:
    """Write the labels of outcomes by name, a row for each stay: 0, 1, or empty for no label."""
    columns = {check_outcome_name(name): labels_of(label_N) for name, label_N in outcomes.items()}
    pd.DataFrame({ID: stay_ids_N, **columns}).to_csv(path, index=False, lineterminator="\n")


def read_outcomes(path: Path, stay_ids_N: npt.NDArray[np.int64], first: str) -> dict[str, Labels]:
    """Read the labels by name, {} if there is no file; `first` is the outcome that stays.csv has.

    Raises ValueError for other stays than the cohort's, a name that no outcome may have or the first one has, and
    another label than 0, 1 or empty.
    """
    if not path.is_file():
        return {}
    table = read_text_table(path)
    if table[ID].tolist() != [str(stay_id) for stay_id in stay_ids_N]:
        raise ValueError(f"{OUTCOMES_FILE} must have the stays of stays.csv in the same order")
    outcomes = {}
    for name in table.columns.drop(ID):
        if check_outcome_name(name) == first:
            raise ValueError(f"{OUTCOMES_FILE} repeats the outcome {first}, which stays.csv has")
        if not table[name].isin(("0", "1", "")).all():
            raise ValueError(f"{name} in {OUTCOMES_FILE} must be 0, 1 or empty")
        outcomes[name] = np.array(table[name].replace("", str(NO_LABEL)), dtype=np.int8)
    return outcomes


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names of the outcomes in a file; none if it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(name for name in next(csv.reader(file), []) if name != ID)
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()


def labels_of(label_N: Labels) -> pd.Series:
    """Return labels as a column of a table: whole numbers, or text if some stay has none."""
    labels = pd.Series(label_N)
    return labels.astype(str).where(labels != NO_LABEL, "") if (label_N == NO_LABEL).any() else labels
