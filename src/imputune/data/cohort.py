"""A cohort and its folder: stays x bins x variables with outcomes; values.npy, CSV tables, source.json.

Letters: N stays, T bins (hours, unless `bin_hours` is another number than 1), D variables.
"""

import csv
import hashlib
import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, JsonValue

from imputune.data.outcome_file import NO_LABEL, OUTCOMES_FILE, labels_of, read_outcomes, write_outcomes
from imputune.data.outcome_loss import refuse_changed_labels, refuse_lost_outcomes
from imputune.data.static import StaticVariable
from imputune.data.static_file import read_static_variables, read_text_table, write_static_variables
from imputune.data.window import HOURS, Window
from imputune.data.window_file import WINDOWS_FILE, write_windows
from imputune.errors import UserError, one_line
from imputune.files import replacing_folder
from imputune.protocol.outcomes import DEFAULT_OUTCOME, known_outcome

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
    """ICU stays in bins of hours, with their outcomes; one of them is chosen.

    Shapes: `stay_ids_N` int64, ascending; `outcome_N` int8, the labels of the chosen outcome: 0, 1, or -1 for no label;
    `other_outcomes` has the labels of the others by name; `values_NTD` float32 in the units of
    `variables`, NaN where nothing was observed in the bin; `static` float64, one row per stay in the same order and
    one column per variable of `static_variables`, as recorded, NaN where unknown.
    `source` says where the cohort came from, and under `exclusions` how many stays were left out, by reason. It has no
    path, time or date. If the records' own ids must not leave data/, `stay_ids_N` are running numbers and
    `source_ids_N`, int64, are the records' ids. `subject_ids_N`, int64, say which stays are of one subject; None: each
    stay is of another one. `first_outcome` is the one that folds are drawn by, "" for the chosen one.
    `bin_hours`: the length of a bin. `windows`: whose stays they are and their times, as `window_file.stay_windows`
    returns them, for the folder's windows.csv; None for records without times, and in a cohort that was read.

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
    subject_ids_N: npt.NDArray[np.int64] | None = None
    outcome: str = DEFAULT_OUTCOME
    other_outcomes: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    first_outcome: str = ""
    bin_hours: int = 1
    windows: pd.DataFrame | None = None

    @property
    def records(self) -> str:
        """What it was extracted from: its dataset, or what source.json names for several datasets of one source."""
        return str(self.source.get("records", self.dataset))

    @property
    def outcomes(self) -> dict[str, npt.NDArray[np.int8]]:
        """The labels of every outcome by name, the first outcome first."""
        found = {self.outcome: self.outcome_N, **self.other_outcomes}
        first = self.first_outcome or self.outcome
        return {first: found.pop(first), **found}

    @property
    def window(self) -> Window:
        """The window of the stays: all T bins."""
        return Window(hours=self.values_NTD.shape[1] * self.bin_hours, bin_hours=self.bin_hours)

    @property
    def labelled_N(self) -> npt.NDArray[np.bool_]:
        """Which stays have a label of the chosen outcome."""
        return self.outcome_N != NO_LABEL

    @property
    def events(self) -> int:
        """The number of stays with label 1."""
        return int((self.outcome_N == 1).sum())

    @property
    def subjects_N(self) -> npt.NDArray[np.int64]:
        """The subject of each stay; the stay's own id if subjects are not known."""
        return self.stay_ids_N if self.subject_ids_N is None else self.subject_ids_N

    def with_outcome(self, name: str) -> "Cohort":
        """Return the cohort with another of its outcomes chosen; raises UserError, with those it has, for another."""
        if name == self.outcome:
            return self
        labels = self.outcomes
        chosen_N = labels.pop(known_outcome(name, labels, self.dataset))
        first = self.first_outcome or self.outcome
        return replace(self, outcome=name, outcome_N=chosen_N, other_outcomes=labels, first_outcome=first)

    def labelled(self) -> "Cohort":
        """Return the stays that have a label of the chosen outcome; the cohort itself if all have one."""
        return self if self.labelled_N.all() else self.of_rows(np.flatnonzero(self.labelled_N))

    def of_rows(self, row_M: npt.NDArray[np.int64]) -> "Cohort":
        """Return some of the stays, in memory; `row_M` are their row numbers, ascending."""
        return replace(
            self,
            stay_ids_N=self.stay_ids_N[row_M],
            outcome_N=self.outcome_N[row_M],
            values_NTD=np.array(self.values_NTD[row_M]),
            static=self.static.iloc[row_M].reset_index(drop=True),
            source_ids_N=None if self.source_ids_N is None else self.source_ids_N[row_M],
            subject_ids_N=None if self.subject_ids_N is None else self.subject_ids_N[row_M],
            other_outcomes={name: label_N[row_M] for name, label_N in self.other_outcomes.items()},
            values_file=None,
            windows=None if self.windows is None else self.windows.iloc[row_M].reset_index(drop=True),
        )

    @property
    def observed_NTD(self) -> npt.NDArray[np.bool_]:
        """Where a value was observed, as bool of the shape of `values_NTD`."""
        return ~np.isnan(self.values_NTD)

    @property
    def observed_bins_ND(self) -> npt.NDArray[np.int64]:
        """In how many bins of each stay each variable was observed; the values are read some stays at a time."""
        stays, _, variables = self.values_NTD.shape
        bins_ND = np.empty((stays, variables), dtype=np.int64)
        for start in range(0, stays, COUNTED_AT_ONCE):
            some = slice(start, start + COUNTED_AT_ONCE)
            (~np.isnan(self.values_NTD[some])).sum(axis=1, out=bins_ND[some])
        return bins_ND

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The D names, in the order of the last axis of `values_NTD`."""
        return tuple(variable.name for variable in self.variables)

    def outcome_of(self, stay_ids_M: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Return the outcome of these stays, 0 or 1, (M,).

        Raises UserError for an id that the cohort does not have, and for a stay without a label.
        """
        row_M = np.searchsorted(self.stay_ids_N, stay_ids_M).clip(max=len(self.stay_ids_N) - 1)
        if (unknown_M := self.stay_ids_N[row_M] != stay_ids_M).any():
            what = f"stay {stay_ids_M[unknown_M.argmax()]} is in saved predictions but not in cohort {self.dataset}"
            raise UserError(f"{what}: run fine-tuning again")
        if (unlabelled_M := self.outcome_N[row_M] == NO_LABEL).any():
            what = (
                f"stay {stay_ids_M[unlabelled_M.argmax()]} is in saved predictions and has no label of {self.outcome}"
            )
            raise UserError(f"{what} in cohort {self.dataset}: run fine-tuning again")
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


class _SourceFile(BaseModel, frozen=True, extra="allow"):
    """The content of source.json; a dataset may add keys of its own."""

    __pydantic_extra__: dict[str, JsonValue]
    format: int
    dataset: str
    exclusions: dict[str, int]


def write_cohort(cohort: Cohort, folder: Path) -> None:
    """Write the cohort as a folder, all files or none; the same cohort gives the same bytes.

    The files are written to a temporary folder beside `folder`, which then replaces `folder`. Raises UserError if the
    system refuses to write (an earlier cohort in `folder` stays as it was), if `folder` has other files or a cohort of
    other records, another window or another first outcome, or if labels in its outcomes.csv would be lost.
    """
    check_target(folder)
    check_kind(folder, cohort.records, cohort.window, cohort.first_outcome or cohort.outcome)
    refuse_lost_outcomes(folder, cohort.outcomes)
    with replacing_folder(folder) as fresh:
        _write_files(cohort, fresh)
        refuse_changed_labels(folder, fresh, cohort.outcomes)


def check_target(folder: Path) -> None:
    """Raise UserError if no cohort may be written there: to a file, or to a folder with other files."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder with --out")
    known = {*FILES, OUTCOMES_FILE, WINDOWS_FILE}
    if folder.is_dir() and (other := sorted({path.name for path in folder.iterdir()} - known)):
        raise UserError(f"{folder} holds other files ({other[0]}); choose an empty or a new folder with --out")


def read_window(folder: Path) -> Window:
    """Return the window of the cohort in a folder; the usual one if there is none that could be read."""
    try:
        source = json.loads((folder / "source.json").read_bytes())
        return Window(hours=source.get("hours", HOURS), bin_hours=source.get("bin_hours", 1))
    except (OSError, ValueError, AttributeError):
        return Window()


def check_kind(folder: Path, records: str, window: Window, outcome: str) -> None:
    """Raise UserError if the folder has a cohort of other records, another window or first outcome.

    Such a cohort is never overwritten. records: as `Cohort.records`.
    """
    try:
        source = json.loads((folder / "source.json").read_bytes())
        earlier, first = source.get("records", source.get("dataset", records)), source.get("outcome", DEFAULT_OUTCOME)
    except (OSError, ValueError, AttributeError):
        return  # there is no cohort that anything could read
    found = read_window(folder)
    if earlier != records:
        told = f"the records {earlier}, this one is of {records}"
    elif (found, first) != (window, outcome):
        told = f"{found} with the first outcome {first}, this one has {window} and {outcome}"
    else:
        return
    raise UserError(f"{folder} has a cohort of {told}: choose another name or folder, or delete that folder")


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


def cohort_hash(folder: Path) -> str:
    """Return the sha256 over names, sizes and bytes of the cohort's files; raises UserError if one is missing.

    Outcomes beside the first are not part of it: they change no imputer. `outcome_hash` is that of their labels.
    """
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


def outcome_hash(cohort: Cohort) -> str:
    """Return the sha256 of the chosen outcome's name and labels; "" for the first outcome, which `cohort_hash` covers.

    Adding or correcting the labels of one outcome so makes the heads of this outcome anew, and nothing else.
    """
    if cohort.outcome == (cohort.first_outcome or cohort.outcome):
        return ""
    content = cohort.outcome.encode() + b"\n" + cohort.stay_ids_N.tobytes() + cohort.outcome_N.tobytes()
    return hashlib.sha256(content).hexdigest()


def _write_files(cohort: Cohort, folder: Path) -> None:
    np.save(folder / "values.npy", np.ascontiguousarray(cohort.values_NTD), allow_pickle=False)
    column = _column(cohort.outcome)
    stays = pd.DataFrame({"stay_id": cohort.stay_ids_N, column: labels_of(cohort.outcome_N)})
    if cohort.subject_ids_N is not None:
        stays["subject_id"] = cohort.subject_ids_N
    if cohort.source_ids_N is not None:
        stays["source_id"] = cohort.source_ids_N
    stays.join(cohort.static.reset_index(drop=True)).to_csv(folder / "stays.csv", index=False, lineterminator="\n")
    variables = pd.DataFrame([(v.name, v.unit) for v in cohort.variables], columns=["name", "unit"])
    variables.to_csv(folder / "variables.csv", index=False, lineterminator="\n")
    write_static_variables(cohort.static_variables, folder / "static.csv")
    named: dict[str, JsonValue] = {} if cohort.outcome == DEFAULT_OUTCOME else {"outcome": cohort.outcome}
    if cohort.window != Window():
        named |= {"hours": cohort.window.hours, "bin_hours": cohort.bin_hours}
    source = _SourceFile.model_validate(
        {"format": FORMAT, "dataset": cohort.dataset, **named, **cohort.source}
    ).model_dump()
    text = json.dumps(source, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "source.json").write_text(text, encoding="utf-8")
    if cohort.windows is not None:
        write_windows(cohort.stay_ids_N, cohort.windows, folder / WINDOWS_FILE)
    if cohort.other_outcomes:
        write_outcomes(cohort.stay_ids_N, cohort.other_outcomes, folder / OUTCOMES_FILE)


def _read_files(folder: Path) -> Cohort:
    source = _SourceFile.model_validate_json((folder / "source.json").read_bytes())
    stays = read_text_table(folder / "stays.csv")
    variables = read_text_table(folder / "variables.csv").astype(str)
    static_variables = read_static_variables(folder / "static.csv")
    values_file = ValuesFile.at(folder / "values.npy")
    content = source.model_dump(exclude={"dataset", "format"})
    outcome = str(content.pop("outcome", DEFAULT_OUTCOME))
    hours, bin_hours = (int(str(content.pop(key, usual))) for key, usual in (("hours", HOURS), ("bin_hours", 1)))
    _check_window(hours, bin_hours, values_file)
    stay_ids_N = _whole_numbers(stays["stay_id"])
    return Cohort(
        dataset=source.dataset,
        stay_ids_N=stay_ids_N,
        outcome_N=_outcome(stays[_column(outcome)]),
        values_NTD=values_file.map(),
        variables=tuple(Variable(name, unit) for name, unit in zip(variables["name"], variables["unit"], strict=True)),
        static=pd.DataFrame({each.name: _numbers(stays[each.name]) for each in static_variables}, index=stays.index),
        source=content,
        static_variables=static_variables,
        values_file=values_file,
        source_ids_N=_whole_numbers(stays["source_id"]) if "source_id" in stays else None,
        subject_ids_N=_whole_numbers(stays["subject_id"]) if "subject_id" in stays else None,
        outcome=outcome,
        other_outcomes=read_outcomes(folder / OUTCOMES_FILE, stay_ids_N, outcome),
        bin_hours=bin_hours,
    )


def _check_window(hours: int, bin_hours: int, values_file: ValuesFile) -> None:
    """Raise ValueError if values.npy has not the bins that source.json tells of."""
    shape = values_file.map().shape
    if bin_hours < 1 or len(shape) != 3 or shape[1] * bin_hours != hours:
        raise ValueError(f"values.npy of shape {shape} is not of {hours} hours in bins of {bin_hours}")


def _column(outcome: str) -> str:
    """Return the column of stays.csv that has the first outcome: died, or outcome if it is another."""
    return "died" if outcome == DEFAULT_OUTCOME else "outcome"


def _whole_numbers(column: pd.Series) -> npt.NDArray[np.int64]:
    if unfit := [text for text in column if not _WHOLE.fullmatch(text)]:
        raise ValueError(f"{column.name} in stays.csv must be a whole number, got {unfit[0]!r}")
    return np.array(column, dtype=np.int64)


def _outcome(column: pd.Series) -> npt.NDArray[np.int8]:
    if not column.isin(("0", "1", "")).all():
        raise ValueError(f"{column.name} in stays.csv must be 0, 1 or empty")
    return np.array(column.replace("", str(NO_LABEL)), dtype=np.int8)


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """Return numbers, NaN where the text is empty."""
    number_N = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if not (np.isfinite(number_N) | (column == "").to_numpy()).all():
        raise ValueError(f"{column.name} in stays.csv must be a number or empty")
    return number_N


def _check_cohort(cohort: Cohort) -> None:
    expected = (len(cohort.stay_ids_N), cohort.window.bins, len(cohort.variables))
    values_NTD = cohort.values_NTD
    if values_NTD.dtype != np.float32 or values_NTD.shape != expected:
        raise ValueError(f"values.npy must be float32 {expected}, got {values_NTD.dtype} {values_NTD.shape}")
    if np.any(np.diff(cohort.stay_ids_N) <= 0):
        raise ValueError("the ids in stays.csv must be ascending and unique")
