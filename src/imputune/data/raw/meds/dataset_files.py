"""A MEDS dataset on disk: its files, the columns that the standard asks for, and the SQL that reads them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from imputune.errors import UserError

HOW_TO = "point --raw at the folder that has data/ with its .parquet files"
_NEEDED = ("subject_id", "time", "code")
_KINDS = {
    "subject_id": "whole numbers (int64)",
    "time": "timestamps without a time zone",
    "code": "text",
    "numeric_value": "numbers (float32)",
    "text_value": "text",
    "prediction_time": "timestamps without a time zone",
    "boolean_value": "true or false",
}


@dataclass(frozen=True, kw_only=True)
class MedsFiles:
    """The event files of a dataset, and which of the optional columns they have.

    folder: the dataset's, with data/ and metadata/. size: bytes of all files. units: whether there is a column `unit`,
    in which some extractors put the unit of a number.
    """

    folder: Path
    paths: tuple[Path, ...]
    size: int
    numbers: bool
    texts: bool
    units: bool

    def select(self, *, texts: bool = False, units: bool = False) -> str:
        """Return the SQL that reads events: subject_id, time, code, number, and if asked for, text and unit."""
        columns = ["subject_id", "time::TIMESTAMP AS time", "code"]
        columns.append("numeric_value::DOUBLE AS number" if self.numbers else "NULL::DOUBLE AS number")
        if texts:
            columns.append("text_value::VARCHAR AS text" if self.texts else "NULL::VARCHAR AS text")
        if units:
            columns.append("lower(trim(unit::VARCHAR)) AS unit")
        return f"SELECT {', '.join(columns)} FROM {self.scan()}"

    def scan(self) -> str:
        """Return the SQL of the table of all events, as the files have it."""
        return f"read_parquet({listed(self.paths)}, union_by_name = true, hive_partitioning = false)"

    def about(self) -> dict[str, str]:
        """Return what metadata/dataset.json says of the dataset's name, version, extractor and standard."""
        try:
            content = json.loads((self.folder / "metadata/dataset.json").read_bytes())
        except (OSError, ValueError):
            return {}
        names = ("dataset_name", "dataset_version", "etl_name", "etl_version", "meds_version")
        return {name: str(content[name]) for name in names if isinstance(content, dict) and content.get(name)}

    def descriptions(self) -> Path | None:
        """Return the file that describes codes, if the dataset has one with the columns code and description."""
        path = self.folder / "metadata/codes.parquet"
        return path if path.is_file() and {"code", "description"} <= set(read_schema(path).names) else None


def find_meds(folder: Path) -> MedsFiles:
    """Find a dataset's files, data/**/*.parquet, and check their columns.

    Raises UserError for a folder without them (naming what is missing, and a folder inside that has them), a file that
    is damaged, and a column that is missing or not of the standard's type.

    Source: the MEDS standard, version 0.4 (DataSchema).
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: {HOW_TO}")
    paths = tuple(sorted(path for path in (folder / "data").rglob("*.parquet") if path.is_file()))
    if not paths:
        raise UserError(f"{folder} is no MEDS dataset: {_what_is_missing(folder)}")
    columns: set[str] = set()
    for path in paths:
        schema = read_schema(path)
        check_columns(path, schema, _NEEDED, ("numeric_value", "text_value"))
        columns |= set(schema.names)
    return MedsFiles(
        folder=folder,
        paths=paths,
        size=sum(path.stat().st_size for path in paths),
        numbers="numeric_value" in columns,
        texts="text_value" in columns,
        units="unit" in columns,
    )


def check_columns(path: Path, schema: pa.Schema, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise UserError for a column that a file lacks, or whose type is not the standard's."""
    if missing := [name for name in needed if name not in schema.names]:
        others = ", ".join(schema.names[:6]) or "none"
        raise UserError(f"{path} lacks the column {', '.join(missing)} (it has {others}): write it as MEDS asks")
    for name in (*needed, *(name for name in optional if name in schema.names)):
        kind = schema.field(name).type
        if not _is_right(name, kind):
            raise UserError(f"{path}: {name} must be {_KINDS[name]}, got {_told(kind)}; convert the column")


def _is_right(name: str, kind: pa.DataType) -> bool:
    if name in ("numeric_value", "text_value") and pa.types.is_null(kind):
        return True  # a file in which no event has one
    if name == "subject_id":
        return pa.types.is_signed_integer(kind)
    if name in ("time", "prediction_time"):
        return pa.types.is_timestamp(kind) and kind.tz is None
    if name == "numeric_value":
        return pa.types.is_floating(kind)
    if name == "boolean_value":
        return pa.types.is_boolean(kind)
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(plain) or pa.types.is_large_string(plain)


def _told(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return f"timestamps of the time zone {kind.tz}"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else str(kind)


def read_schema(path: Path) -> pa.Schema:
    """Return a parquet file's schema; raises UserError if it is no such file, or damaged."""
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException):
        raise UserError(f"{path} is no parquet file, or damaged: write or fetch it again") from None


def _what_is_missing(folder: Path) -> str:
    inside = sorted(path.parent for path in folder.glob("*/data") if any(path.rglob("*.parquet")))
    if inside:
        return f"it has no data/ with .parquet files (did you mean {inside[0]}?)"
    if folder.name == "data" and any(folder.rglob("*.parquet")):
        return f"--raw is the folder above data/ (did you mean {folder.parent}?)"
    if (folder / "data").is_dir():
        return f"data/ has no .parquet file; {HOW_TO}"
    return f"it has no folder data/; {HOW_TO}"


def listed(paths: Iterable[Path]) -> str:
    """Return files as a list in SQL, with the characters that DuckDB reads as a pattern escaped."""
    return "[" + ", ".join(quoted(_plain(str(path))) for path in paths) + "]"


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _plain(path: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
