"""The file outcomes.csv of a cohort's folder: the labels of every outcome beside the first.

Letters: N stays.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from imputune.data.raw.text import without_mark
from imputune.data.static_file import text_table
from imputune.errors import UserError, one_line
from imputune.protocol.outcomes import check_outcome_name

OUTCOMES_FILE = "outcomes.csv"
NO_LABEL = -1
"""The label of a stay that has none."""
ID = "stay_id"
Labels = npt.NDArray[np.int8]


def write_outcomes(stay_ids_N: npt.NDArray[np.int64], outcomes: Mapping[str, Labels], path: Path) -> None:
    """Write the labels of outcomes by name, a row for each stay: 0, 1, or empty for no label."""
    path.write_text(outcomes_text(stay_ids_N, outcomes), encoding="utf-8")


def outcomes_text(stay_ids_N: npt.NDArray[np.int64], outcomes: Mapping[str, Labels]) -> str:
    """Return the content of the file; see `write_outcomes`."""
    columns = {check_outcome_name(name): labels_of(label_N) for name, label_N in outcomes.items()}
    return pd.DataFrame({ID: stay_ids_N, **columns}).to_csv(index=False, lineterminator="\n")


def read_outcomes(path: Path, stay_ids_N: npt.NDArray[np.int64], first: str) -> dict[str, Labels]:
    """Read the labels by name, {} if there is no file; `first` is the outcome that stays.csv has.

    Raises UserError for a file that cannot be read, other stays than the cohort's, a name that no outcome may have or
    the first one has, and another label than 0, 1 or empty.
    """
    if not path.is_file():
        return {}
    table = read_outcome_table(path)
    if table[ID].tolist() != [str(stay_id) for stay_id in stay_ids_N]:
        raise _broken(path, "it must have the stays of stays.csv in the same order")
    if first in table:
        raise _broken(path, f"it repeats the outcome {first}, which stays.csv has")
    return {
        name: np.array(table[name].replace("", str(NO_LABEL)), dtype=np.int8) for name in table.columns if name != ID
    }


def read_outcome_table(path: Path) -> pd.DataFrame:
    """Return the file as text, stay_id first; a byte-order mark, and no newline at the end, do not matter.

    Raises UserError for a file that cannot be read, a name that no outcome may have, and a label that is none.
    """
    try:
        table = text_table(without_mark(path.read_bytes()).decode(), "it")
        for name in table.columns.drop(ID):
            check_outcome_name(name)
            if not table[name].isin(("0", "1", "")).all():
                raise _broken(path, f"{name} must be 0, 1 or empty")
    except OSError as error:
        raise _broken(path, error.strerror or "it cannot be read") from None
    except UnicodeDecodeError:
        raise _broken(path, "it is no UTF-8 text") from None
    except KeyError:
        raise _broken(path, f"it has no column {ID}") from None
    except (ValueError, csv.Error) as error:
        raise _broken(path, one_line(error)) from None
    return table[[ID, *table.columns.drop(ID)]]


def _broken(path: Path, what: str) -> UserError:
    return UserError(f"cannot read {path}: {what}; correct or remove {path}")


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names of the outcomes in a file; none if it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return tuple(name for name in next(csv.reader(file), []) if name != ID)
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()


def labels_of(label_N: Labels) -> pd.Series:
    """Return labels as a column of a table: whole numbers, or text if some stay has none."""
    labels = pd.Series(label_N)
    return labels.astype(str).where(labels != NO_LABEL, "") if (label_N == NO_LABEL).any() else labels
