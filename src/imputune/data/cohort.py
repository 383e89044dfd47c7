"""A cohort and its folder: stays x 48 hours x variables with outcomes; values.npy, two CSV tables, source.json.

Letters: N stays, T hours, D variables.
"""

import csv
import hashlib
import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, JsonValue, TypeAdapter

from imputune.data.static import StaticVariable
from imputune.data.static_file import read_static_variables, read_text_table, write_static_variables
from imputune.errors import UserError, one_line
from imputune.files import replacing_folder

HOURS = 48
FORMAT = 2  # of the folder's files; raised when older cohorts lack what commands read
FILES = ("source.json", "static.csv", "stays.csv", "values.npy", "variables.csv")
HASHED_AT_ONCE = 2**20  # bytes
COUNTED_AT_ONCE = 1024  # stays
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
HOW_TO_EXTRACT = "run `imputune extract DATASET --raw DIR` or `imputune extract synthetic` to make it"


@dataclass(frozen=True)
class Variable:
    """One measured quantity and the unit of its values."""

    name: str
    unit: str


@dataclass(frozen=True)
class ValuesFile:
    """The values.npy of a cohort, and when it was last changed before the cohort was read."""

    path: Path
    modified_ns: int

    @classmethod
    def at(cls, path: Path) -> "ValuesFile":
        """Return the file as it is now."""
        return cls(path.resolve(), path.stat().st_mtime_ns)

    def map(self) -> npt.NDArray[np.float32]:
        """Map the file's array into memory, read-only; raises UserError if the file has changed since."""
        if not self.path.exists() or self.path.stat().st_mtime_ns != self.modified_ns:
            raise UserError(f"{self.path} has changed since the command began: start the command again")
        return np.load(self.path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Cohort:
    """ICU stays in hourly bins, with their outcome: in-hospital death.

    Shapes: `stay_ids_N` int64, ascending; `outcome_N` int8, 0 or 1; `values_NTD` float32 in the units of
    `variables`, NaN where nothing was observed in the hour; `static` float64, one row per stay in the same order and
    one column per variable of `static_variables`, as recorded, NaN where unknown.
    `source` says where the cohort came from, and under `exclusions` how many stays were left out, by reason. It has no
    path, time or date. If the records' own ids must not leave data/, `stay_ids_N` are running numbers and
    `source_ids_N`, int64, are the records' ids.

    Values read from a folder are mapped from `values_file`, read-only: pages are loaded when they are used, and a
    worker process receives the file's path instead of the values.
    """

    dataset: str
    stay_ids_N: npt.NDArray[np.int64]
    outcome_N: npt.NDArray[np.int8]
    values_NTD: npt.NDArray[np.float32]
    variables: tuple[Variable, ...]
    static: pd.DataFrame
    source: Mapping[str, JsonValue]
    static_variables: tuple[StaticVariable, ...] = ()
    values_file: ValuesFile | None = None
    source_ids_N: npt.NDArray[np.int64] | None = None

    @property
    def observed_NTD(self) -> npt.NDArray[np.bool_]:
        """Where a value was observed, as bool of the shape of `values_NTD`."""
        return ~np.isnan(self.values_NTD)

    @property
    def observed_hours_ND(self) -> npt.NDArray[np.int64]:
        """In how many hours of each stay each variable was observed; the values are read some stays at a time."""
        stays, _, variables = self.values_NTD.shape
        hours_ND = np.empty((stays, variables), dtype=np.int64)
        for start in range(0, stays, COUNTED_AT_ONCE):
            some = slice(start, start + COUNTED_AT_ONCE)
            (~np.isnan(self.values_NTD[some])).sum(axis=1, out=hours_ND[some])
        return hours_ND

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The D names, in the order of the last axis of `values_NTD`."""
        return tuple(variable.name for variable in self.variables)

    def outcome_of(self, stay_ids_M: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Return the outcome of these stays, 0 or 1, (M,); raises UserError for an id that the cohort does not have."""
        row_M = np.searchsorted(self.stay_ids_N, stay_ids_M).clip(max=len(self.stay_ids_N) - 1)
        if (unknown_M := self.stay_ids_N[row_M] != stay_ids_M).any():
            what = f"stay {stay_ids_M[unknown_M.argmax()]} is in saved predictions but not in cohort {self.dataset}"
            raise UserError(f"{what}: run fine-tuning again")
        return self.outcome_N[row_M]

    def release(self) -> None:
        """Return the memory of mapped values to the system; they are read again when they are used."""
        if whole_file := self._whole_file():
            whole_file.madvise(mmap.MADV_DONTNEED)

    def in_memory(self) -> "Cohort":
        """Return the cohort with its values in memory, to be sent to another machine.

        Raises UserError if `values_file` has changed since the cohort was read.
        """
        if self._whole_file() is None or self.values_file is None:
            return self
        return replace(self, values_NTD=np.asarray(self.values_file.map()), values_file=None)

    def _whole_file(self) -> mmap.mmap | None:
        """Return the map of `values_file` if `values_NTD` is the whole of it; otherwise None."""
        values, file = self.values_NTD, self.values_file
        if file is None or not isinstance(values, np.memmap) or not isinstance(values.base, mmap.mmap):
            return None
        return values.base if values.filename is not None and Path(values.filename) == file.path else None

    def __getstate__(self) -> dict[str, Any]:
        mapped = self._whole_file() is not None
        return {name: content for name, content in vars(self).items() if not (mapped and name == "values_NTD")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "values_NTD" not in state:
            vars(self)["values_NTD"] = state["values_file"].map()


class CohortFacts(BaseModel, frozen=True, extra="forbid"):
    """What a cohort contains: counts, shares from 0 to 1, and left-out stays by reason."""

    dataset: str
    stays: int
    hours: int
    variables: int
    observed_cells: int
    observed_share: float
    deaths: int
    death_share: float
    missing_share_by_variable: dict[str, float]
    exclusions: dict[str, int]


class _SourceFile(BaseModel, frozen=True, extra="allow"):
    """The content of source.json; a dataset may add keys of its own."""

    __pydantic_extra__: dict[str, JsonValue]
    format: int
    dataset: str
    exclusions: dict[str, int]


def write_cohort(cohort: Cohort, folder: Path) -> None:
    """Write the cohort as a folder, all files or none; the same cohort gives the same bytes.

    The files are written to a temporary folder beside `folder`, which then replaces `folder`. Raises UserError if the
    system refuses to write (an earlier cohort in `folder` stays as it was) or if `folder` has other files.
    """
    check_target(folder)
    with replacing_folder(folder) as fresh:
        _write_files(cohort, fresh)


def check_target(folder: Path) -> None:
    """Raise UserError if no cohort may be written there: to a file, or to a folder with other files."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder with --out")
    if folder.is_dir() and (other := sorted({path.name for path in folder.iterdir()} - set(FILES))):
        raise UserError(f"{folder} holds other files ({other[0]}); choose an empty or a new folder with --out")


def read_cohort(folder: Path) -> Cohort:
    """Read a cohort folder; raises UserError, with the remedy, if it is missing, malformed or of an older format."""
    _refuse_other_format(folder)
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        cause = f"{', '.join(missing)} missing" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder} is no cohort: {cause}; {HOW_TO_EXTRACT}")
    try:
        cohort = _read_files(folder)
        _check_cohort(cohort)
    except (OSError, EOFError, AttributeError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{folder} is no cohort: {one_line(error)}; delete it and {HOW_TO_EXTRACT}") from error
    return cohort


def _refuse_other_format(folder: Path) -> None:
    """Raise UserError, with the command that made the cohort, if another version of imputune wrote it."""
    try:
        source = json.loads((folder / "source.json").read_bytes())
        found, command = source.get("format", 1), source.get("command", "")
    except (OSError, ValueError, AttributeError):
        return  # what is wrong is told where the files are read
    if found != FORMAT:
        again = f"`{command}` (with your --raw, if it needs one)" if command else "`imputune extract`"
        raise UserError(
            f"{folder} was written by another version of imputune (format {found}, this version reads {FORMAT}): run "
            f"{again} again"
        )


def describe(cohort: Cohort) -> CohortFacts:
    """Count what is in the cohort."""
    stays, hours, variables = cohort.values_NTD.shape
    observed_D = cohort.observed_hours_ND.sum(axis=0)
    missing_share_D = 1 - observed_D / (stays * hours)
    by_variable = zip(cohort.variable_names, missing_share_D, strict=True)
    return CohortFacts(
        dataset=cohort.dataset,
        stays=stays,
        hours=hours,
        variables=variables,
        observed_cells=int(observed_D.sum()),
        observed_share=float(observed_D.sum() / (stays * hours * variables)),
        deaths=int(cohort.outcome_N.sum()),
        death_share=float(cohort.outcome_N.mean()),
        missing_share_by_variable={name: round(float(share), 6) for name, share in by_variable},
        exclusions=TypeAdapter(dict[str, int]).validate_python(cohort.source["exclusions"]),
    )


def cohort_hash(folder: Path) -> str:
    """Return the sha256 over names, sizes and bytes of the cohort's files; raises UserError if one is missing."""
    digest = hashlib.sha256()
    for name in FILES:
        try:
            with (folder / name).open("rb") as file:
                digest.update(f"{name} {(folder / name).stat().st_size}\n".encode())
                while content := file.read(HASHED_AT_ONCE):
                    digest.update(content)
        except OSError as error:
            raise UserError(f"{folder} is no cohort: cannot read {name}; run `imputune extract` to make it") from error
    return digest.hexdigest()


def _write_files(cohort: Cohort, folder: Path) -> None:
    np.save(folder / "values.npy", np.ascontiguousarray(cohort.values_NTD), allow_pickle=False)
    stays = pd.DataFrame({"stay_id": cohort.stay_ids_N, "died": cohort.outcome_N})
    if cohort.source_ids_N is not None:
        stays["source_id"] = cohort.source_ids_N
    stays.join(cohort.static.reset_index(drop=True)).to_csv(folder / "stays.csv", index=False, lineterminator="\n")
    variables = pd.DataFrame([(v.name, v.unit) for v in cohort.variables], columns=["name", "unit"])
    variables.to_csv(folder / "variables.csv", index=False, lineterminator="\n")
    write_static_variables(cohort.static_variables, folder / "static.csv")
    source = _SourceFile.model_validate({"format": FORMAT, "dataset": cohort.dataset, **cohort.source}).model_dump()
    text = json.dumps(source, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "source.json").write_text(text, encoding="utf-8")


def _read_files(folder: Path) -> Cohort:
    source = _SourceFile.model_validate_json((folder / "source.json").read_bytes())
    stays = read_text_table(folder / "stays.csv")
    variables = read_text_table(folder / "variables.csv").astype(str)
    static_variables = read_static_variables(folder / "static.csv")
    values_file = ValuesFile.at(folder / "values.npy")
    return Cohort(
        dataset=source.dataset,
        stay_ids_N=_whole_numbers(stays["stay_id"]),
        outcome_N=_outcome(stays["died"]),
        values_NTD=values_file.map(),
        variables=tuple(Variable(name, unit) for name, unit in zip(variables["name"], variables["unit"], strict=True)),
        static=pd.DataFrame({each.name: _numbers(stays[each.name]) for each in static_variables}, index=stays.index),
        source=source.model_dump(exclude={"dataset", "format"}),
        static_variables=static_variables,
        values_file=values_file,
        source_ids_N=_whole_numbers(stays["source_id"]) if "source_id" in stays else None,
    )


def _whole_numbers(column: pd.Series) -> npt.NDArray[np.int64]:
    if unfit := [text for text in column if not _WHOLE.fullmatch(text)]:
        raise ValueError(f"{column.name} in stays.csv must be a whole number, got {unfit[0]!r}")
    return np.array(column, dtype=np.int64)


def _outcome(column: pd.Series) -> npt.NDArray[np.int8]:
    if not column.isin(("0", "1")).all():
        raise ValueError("died in stays.csv must be 0 or 1")
    return np.array(column, dtype=np.int8)


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """Return numbers, NaN where the text is empty."""
    number_N = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if not (np.isfinite(number_N) | (column == "").to_numpy()).all():
        raise ValueError(f"{column.name} in stays.csv must be a number or empty")
    return number_N


def _check_cohort(cohort: Cohort) -> None:
    expected = (len(cohort.stay_ids_N), HOURS, len(cohort.variables))
    values_NTD = cohort.values_NTD
    if values_NTD.dtype != np.float32 or values_NTD.shape != expected:
        raise ValueError(f"values.npy must be float32 {expected}, got {values_NTD.dtype} {values_NTD.shape}")
    if np.any(np.diff(cohort.stay_ids_N) <= 0):
        raise ValueError("the ids in stays.csv must be ascending and unique")
