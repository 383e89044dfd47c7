"""PhysioNet/Computing in Cardiology Challenge 2012: from text records and outcomes to a cohort.

Letters: N stays, T hours, D variables, F record files, R rows of the records.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel

import imputune
from imputune.data.cohort import Cohort, Variable
from imputune.data.outcome_file import NO_LABEL, Labels
from imputune.data.raw.binning import (
    MOST_ID,
    BinnedStays,
    bin_rows,
    bin_stays,
    bin_table,
    check_repeats,
    check_rows,
    totals,
)
from imputune.data.raw.long_table import Rows
from imputune.data.raw.outcomes import further_outcomes, parse_outcomes
from imputune.data.raw.physionet2012_parameters import ID, KNOWN, NAMES, OTHERS, STATIC, VARIABLES
from imputune.data.raw.records import RecordSet, RecordTable, parse_records, read_record_set
from imputune.data.raw.static_rows import static_of_rows
from imputune.data.static import StaticVariable
from imputune.data.window import HOURS, Window
from imputune.errors import UserError

SETS = ("a", "b", "c")


class ChallengeSource(BaseModel, frozen=True, extra="forbid"):
    """Where a cohort came from: the sets, the sha256 of each file, what was read, and what was left out, by reason."""

    command: str
    version: str
    sets: list[str]
    sha256: dict[str, str]
    records_read: int
    rows_read: int
    rows_dropped: dict[str, int]
    exclusions: dict[str, int]


def _no_note(text: str) -> None:
    """Say nothing."""


def extract_physionet2012(
    raw: Path, sets: Sequence[str], note: Callable[[str], None] = _no_note, window: Window | None = None
) -> Cohort:
    """Read challenge sets, for instance ("a", "b"), from `raw` into one cohort of 35 variables.

    `raw` is the folder with set-a/ or set-a.tar.gz and Outcomes-a.txt, or one of these sets itself. Stays without a
    measurement in the `window` (48 hours) are left out and counted. Outcomes without a record are counted too, and
    `note` is told.
    Raises UserError, with file and line, for anything missing or unreadable. Source: Silva et al. 2012, https://physionet.org/content/challenge-2012/.
    """
    if unknown := [letter for letter in sets if letter not in SETS]:
        raise UserError(f"unknown set {unknown[0]!r}; the sets are {', '.join(SETS)}")
    if not sets or len(set(sets)) != len(sets):
        raise UserError("a set must be named once; for instance --sets a,b")
    letters = sorted(sets)
    command = f"imputune extract physionet2012 --sets {','.join(letters)}"
    records = [read_record_set(raw, letter) for letter in letters]
    return read_records(records, "physionet2012", command, note=note, window=window)


def bin_long_table(
    table: object,
    variables: Sequence[Variable],
    static: Sequence[StaticVariable] = (),
    window: Window | None = None,
) -> BinnedStays:
    """Bin a table with the columns RecordID, Time (HH:MM), Parameter and Value, with the rules of the extraction.

    `static` are the facts that the model reads: in rows at 00:00, or in columns of the parameter's name. The
    challenge's other parameters are ignored and counted. Raises UserError as `bin_table` does.
    """
    names, others = _known(variables, static)
    return bin_table(table, names, others, static, window)


def bin_record_files(
    records: tuple[tuple[str, bytes], ...],
    variables: Sequence[Variable],
    static: Sequence[StaticVariable] = (),
    window: Window | None = None,
) -> BinnedStays:
    """Bin text records, (name, content) each, with the rules of the extraction, without outcomes.

    `static` are the facts that the model reads, in rows at 00:00. Raises UserError, with file and line, for a broken
    line, an unknown parameter, a time that is not HH:MM, a duplicate id, a line that repeats another, or a stay with
    too many lines.
    """
    names, others = _known(variables, static)
    parsed = parse_records(records)
    rows = check_rows(parsed.table, names, others, parsed.locate)
    stay_id_F = _stay_ids(parsed, rows, parsed.file_R, len(names) + others.index(ID))
    order_N = np.argsort(stay_id_F)
    stay_R = np.argsort(order_N)[parsed.file_R]
    check_repeats(rows, stay_R, stay_id_F[order_N], len(names), parsed.locate, (window or Window()).hours)
    return bin_stays(rows, stay_R, stay_id_F[order_N], names, others, static, window)


def read_records(
    record_sets: Sequence[RecordSet],
    dataset: str,
    command: str,
    *,
    note: Callable[[str], None] = _no_note,
    window: Window | None = None,
) -> Cohort:
    """Turn record files and outcomes, given as bytes, into a cohort.

    `command` is stored in the source as it is; `note` is told of ids in the outcomes that have no record. Raises
    UserError as `bin_record_files` does, and for an id without outcome, or if no stay is left.
    """
    window = window or Window()
    window.check_within(HOURS)
    parsed = parse_records(tuple(record for record_set in record_sets for record in record_set.records))
    rows = check_rows(parsed.table, NAMES, OTHERS, parsed.locate)
    file_R = parsed.file_R
    stay_id_F = _stay_ids(parsed, rows, file_R, KNOWN.index(ID))
    outcome_F, unrecorded = _outcomes_of_stays(record_sets, stay_id_F, note)

    order_N = np.argsort(stay_id_F)
    stay_R = np.argsort(order_N)[file_R]
    check_repeats(rows, stay_R, stay_id_F[order_N], len(VARIABLES), parsed.locate, window.hours)
    values_NTD, ignored = bin_rows(rows, stay_R, len(stay_id_F), len(VARIABLES), window)
    static = static_of_rows(rows, stay_R, len(stay_id_F), STATIC, KNOWN)
    measured_N = ~np.isnan(values_NTD).all(axis=(1, 2))
    if not measured_N.any():
        raise UserError(f"no measurements in any of the {len(stay_id_F)} records; check the files")
    stay_ids_N = stay_id_F[order_N][measured_N]
    source = ChallengeSource(
        command=window.command(command),
        version=imputune.__version__,
        sets=[record_set.name for record_set in record_sets],
        sha256={name: digest for record_set in record_sets for name, digest in record_set.sha256.items()},
        records_read=len(stay_id_F),
        rows_read=len(parsed.table),
        rows_dropped=totals(ignored),
        exclusions={"no measurements": int((~measured_N).sum())} | unrecorded,
    )
    return Cohort(
        dataset=window.dataset_name(dataset),
        stay_ids_N=stay_ids_N,
        outcome_N=outcome_F[order_N][measured_N],
        values_NTD=values_NTD[measured_N],
        variables=VARIABLES,
        static=static.facts.iloc[np.flatnonzero(measured_N)].reset_index(drop=True),
        static_variables=STATIC,
        source=source.model_dump() | ({} if window == Window() else {"records": dataset}),
        other_outcomes=_further(record_sets, stay_ids_N, note),
        bin_hours=window.bin_hours,
    )


def _further(
    record_sets: Sequence[RecordSet], stay_ids_N: npt.NDArray[np.int64], note: Callable[[str], None]
) -> dict[str, Labels]:
    """Return the labels of further outcomes by name; one without two values is left out, and `note` is told."""
    tables = [further_outcomes(record_set, stay_ids_N, note) for record_set in record_sets]
    table = pd.concat(tables).reindex(stay_ids_N)
    outcomes = {}
    for name in table:
        label_N = table[name].fillna(NO_LABEL).to_numpy(np.int8)
        if {0, 1} <= set(label_N.tolist()):
            outcomes[str(name)] = label_N
        else:
            note(f"{name} is no outcome of this cohort: its labels have one value only")
    return outcomes


def _known(variables: Sequence[Variable], static: Sequence[StaticVariable]) -> tuple[list[str], list[str]]:
    """Return the names of a model's variables, and the other parameters that a record may have: its static facts too.

    A name that differs from a variable's in letter case alone is no other parameter, but the variable misspelt.
    """
    names = [variable.name for variable in variables]
    in_any_case = {name.casefold() for name in names}
    others = dict.fromkeys((*KNOWN, *(each.parameter for each in static if each.parameter)))
    return names, [name for name in others if name.casefold() not in in_any_case]


def _stay_ids(
    parsed: RecordTable, rows: Rows, file_R: npt.NDArray[np.int64], id_parameter: int
) -> npt.NDArray[np.int64]:
    id_rows = np.flatnonzero(rows.parameter_R == id_parameter)
    counts_F = np.bincount(file_R[id_rows], minlength=len(parsed.names))
    if (counts_F == 0).any():
        raise UserError(f"{parsed.names[int(counts_F.argmin())]}: no RecordID line; restore or remove the file")
    ids = rows.value_R[id_rows]
    unfit = (ids < 0) | (ids % 1 != 0) | (ids > MOST_ID)
    if unfit.any():
        row = int(id_rows[unfit.argmax()])
        raise UserError(f"{parsed.locate(row)}: RecordID must be a whole number; correct the line")
    repeated = pd.Series(ids).duplicated().to_numpy()
    if repeated.any():
        row, stay_id = int(id_rows[repeated.argmax()]), int(ids[repeated.argmax()])
        first = parsed.locate(int(id_rows[(ids == stay_id).argmax()]))
        raise UserError(f"{parsed.locate(row)}: duplicate id {stay_id}, already at {first}; remove one of the two")
    return ids.astype(np.int64)


def _outcomes_of_stays(
    record_sets: Sequence[RecordSet], stay_id_F: npt.NDArray[np.int64], note: Callable[[str], None]
) -> tuple[npt.NDArray[np.int8], dict[str, int]]:
    """Return the outcome of each record, and how many outcomes have no record, by set (complete sets are not named)."""
    outcome_by_set, unrecorded, start = [], dict[str, int](), 0
    for record_set in record_sets:
        outcome = parse_outcomes(record_set)
        ids = stay_id_F[start : start + len(record_set.records)]
        start += len(ids)
        without = np.sort(ids[~np.isin(ids, outcome.index)])
        if len(without):
            raise UserError(
                f"{record_set.outcomes_name} has no line for {len(without)} of the {len(ids)} stays of "
                f"{record_set.name} (the first: {without[0]}); add them or remove their records"
            )
        if absent := len(outcome) - len(ids):
            unrecorded[f"no record in {record_set.name}"] = absent
            note(
                f"{absent:,} of the {len(outcome):,} ids in {record_set.outcomes_name} have no record in "
                f"{record_set.name}"
            )
        outcome_by_set.append(outcome.reindex(ids).to_numpy(np.int8))
    return np.concatenate(outcome_by_set), unrecorded
