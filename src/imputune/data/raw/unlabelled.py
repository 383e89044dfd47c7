"""Raw records of stays whose outcome is not known yet, in every form that `imputune predict` reads."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pyarrow import ArrowException

from imputune.data.cohort import Variable
from imputune.data.raw.binning import BinnedStays
from imputune.data.raw.physionet2012 import bin_long_table, bin_record_files
from imputune.data.raw.records import read_record_files
from imputune.data.raw.text import is_utf16
from imputune.data.static import StaticVariable
from imputune.data.window import Window
from imputune.errors import UserError, one_line

TABLES = (".csv", ".csv.gz", ".parquet")
RECORDS = (".txt", ".tar.gz")


def read_raw(
    path: Path,
    variables: Sequence[Variable],
    static: Sequence[StaticVariable] = (),
    window: Window | None = None,
) -> BinnedStays:
    """Read raw records and bin them for a model of these variables, static facts and window (48 bins of an hour).

    `path` is a folder or a .tar.gz archive of text records with the header Time,Parameter,Value and a line RecordID;
    one such .txt; or a table .csv, .csv.gz or .parquet with the columns RecordID, Time (HH:MM), Parameter and Value.
    Raises UserError, with the file and line or the table's row, for anything missing or unreadable.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; name a folder of records, or a file ({', '.join(RECORDS + TABLES)})")
    if path.is_dir() or path.name.lower().endswith(RECORDS):
        return bin_record_files(read_record_files(path), variables, static, window)
    if not path.name.lower().endswith(TABLES):
        raise UserError(f"{path} is of an unknown kind; name a folder, or a file ({', '.join(RECORDS + TABLES)})")
    try:
        return bin_long_table(_read_table(path), variables, static, window)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_table(path: Path) -> pd.DataFrame:
    """Read a file as mlflow reads a request with the same content, so that `predict` and a served model agree."""
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, low_memory=False)
    except pd.errors.EmptyDataError:
        raise UserError("the file is empty; give at least one measurement") from None
    except UnicodeDecodeError as error:
        cause = "it is UTF-16 text" if is_utf16(bytes(error.object)) else "it is no UTF-8 text"
        raise UserError(f"{cause}; save it as UTF-8") from None
    except (OSError, EOFError, zlib.error, OverflowError, TypeError, KeyError, ValueError, ArrowException) as error:
        raise UserError(f"cannot be read as a table ({one_line(error)}); write it again") from error
