"""From a MEDS dataset to stays in bins, in limited memory; temporary files are written to a scratch folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np

from imputune.data.cohort import Variable
from imputune.data.raw.database import cannot_write, open_database, scratch_folder
from imputune.data.raw.meds.codes import count_codes, find_codes, insert_codes
from imputune.data.raw.meds.dataset_files import MedsFiles, find_meds
from imputune.data.raw.meds.labels import differing_labels, join_labels
from imputune.data.raw.meds.reasons import told_counts
from imputune.data.raw.meds.static_facts import insert_fact_codes, static_facts, static_variables
from imputune.data.raw.meds.stays import EventCounts, MedsStays, WindowRules
from imputune.data.raw.meds.values import NOT_ALIVE, REPEATING, collect_events, combine_values, measured_stays
from imputune.data.raw.meds.variable_file import VariableFile
from imputune.data.raw.meds.windows import choose_windows, collect_marks, contradicted_labels
from imputune.errors import UserError
from imputune.files import FileProgress, no_progress
from imputune.protocol.outcomes import DEFAULT_OUTCOME


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome to read: its name, and a label table; without one it is derived from hospital discharges."""

    name: str = DEFAULT_OUTCOME
    labels: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where temporary files are written, and how much DuckDB may use; `progress` receives bytes read."""

    home: Path
    threads: int = 2
    memory_gib: float = 0.5
    progress: FileProgress = field(default=no_progress)


def extract_meds(
    raw: Path, file: VariableFile, rules: WindowRules, resources: Resources, outcome: Outcome | None = None
) -> MedsStays:
    """Read a MEDS dataset into stays in bins of hours.

    Memory is limited to `resources.memory_gib` beside what Python needs; values are in a file that is removed when the
    array is. The same events give the same bytes in any order.

    Raises UserError for a folder that is no MEDS dataset, a damaged file, codes that are absent, claimed twice or give
    the outcome away, a broken label table, no stay left (with the counts), or a full disk. No message contains a value,
    an id or a time of an event.
    """
    wanted = outcome or Outcome()
    rules.check()
    if wanted.labels is None and wanted.name != DEFAULT_OUTCOME:
        told = f"only {DEFAULT_OUTCOME} can be derived from codes"
        raise UserError(f"{told}: give --labels FILE for the outcome {wanted.name}")
    # First, so that leftovers of a killed extraction are removed even if this one fails.
    with scratch_folder(resources.home, "meds") as scratch:
        files = find_meds(raw)
        with open_database(scratch, resources.memory_gib, resources.threads, explained) as database:
            reading = _Reading(database=database, files=files, file=file, rules=rules, progress=resources.progress)
            return _extract(reading, wanted, scratch / "values.npy")


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A dataset and what is read from it."""

    database: duckdb.DuckDBPyConnection
    files: MedsFiles
    file: VariableFile
    rules: WindowRules
    progress: FileProgress


def _extract(reading: _Reading, outcome: Outcome, path: Path) -> MedsStays:
    database, files, file, rules = reading.database, reading.files, reading.file, reading.rules
    _refuse_missing_unit(files, file)
    counts = count_codes(database, files, reading.progress)
    meant = find_codes(file, counts.events, rules.needs_age)
    insert_codes(database, meant, file.variables)
    insert_fact_codes(database, meant, file.statics)
    collect_marks(database, files, bool(meant.statics), reading.progress)
    stays_read, left_out, ignored = choose_windows(database, rules, outcome.name, outcome.labels is None)
    if outcome.labels is None:
        label_counts = contradicted_labels(database)
    else:
        label_counts = join_labels(database, outcome.labels, rules.hours)
        if outcome.name == DEFAULT_OUTCOME:
            label_counts |= differing_labels(database)
    stays = database.execute("SELECT * FROM chosen ORDER BY stay").fetchnumpy()
    if not len(stays["stay"]):
        raise _no_stay_left(stays_read, left_out)
    derived = {} if outcome.name == DEFAULT_OUTCOME else {DEFAULT_OUTCOME: "in_hospital_death"}
    static, contradicting, facts_not_alive = static_facts(database, file, len(stays["stay"]))
    dropped = collect_events(database, files, rules, reading.progress)
    measured_N = measured_stays(database, len(static))
    left_out["without a measurement"] = int((~measured_N).sum())
    if not measured_N.any():
        raise _no_stay_left(stays_read, left_out)
    values_NTD, repeating = combine_values(database, rules, file.variables, measured_N, path)
    not_alive = dropped.pop(NOT_ALIVE) + facts_not_alive
    in_windows = sum(dropped.values())
    told = {reason: count for reason, count in dropped.items() if reason}
    return MedsStays(
        rules=rules,
        subject_ids_N=np.asarray(stays["subject_id"])[measured_N].astype(np.int64),
        start_N=np.asarray(stays["start"])[measured_N],
        until_N=np.asarray(stays["until"])[measured_N],
        next_start_N=np.ma.filled(stays["next_start"], np.datetime64("NaT"))[measured_N],
        values_NTD=values_NTD,
        variables=tuple(Variable(each.name, each.unit) for each in file.variables),
        static=static[measured_N].reset_index(drop=True),
        static_variables=static_variables(file),
        labels={
            name: np.asarray(stays[column])[measured_N].astype(np.int8)
            for name, column in ({outcome.name: "outcome"} | derived).items()
        },
        stays_read=stays_read,
        exclusions=left_out,
        events=EventCounts(
            read=counts.total,
            in_windows=in_windows,
            dropped=told | {REPEATING: repeating},
            ignored=ignored
            | {
                "without a subject or code": counts.unusable,
                "facts that contradict": contradicting,
            }
            | ({f"events {NOT_ALIVE}": not_alive} if not_alive else {}),  # so that other cohorts keep their hash
        ),
        label_counts=label_counts,
        about=files.about(),
        absent=meant.absent,
        outcome_is_derived=outcome.labels is None,
    )


def _refuse_missing_unit(files: MedsFiles, file: VariableFile) -> None:
    lines = [row.line for each in file.variables for row in each.rows if row.raw_unit]
    if lines and not files.units:
        raise UserError(
            f"raw_unit in line {lines[0]} of the variable file needs the column unit, which this dataset lacks: empty "
            "the cell, or tell units apart by code or by raw_lowest and raw_highest"
        )


def _no_stay_left(stays_read: int, left_out: Mapping[str, int]) -> UserError:
    counts = told_counts(left_out)
    return UserError(
        f"all {stays_read:,} stays were left out ({counts}): check the dataset, or change --minimum-age, "
        "--minimum-hours, --stays or the codes of starts and ends"
    )


def explained(error: duckdb.Error) -> str:
    """Return one line that explains a failure of DuckDB and its remedy, without values of an event."""
    if cannot_write(error):
        return "cannot write temporary files in data/: free the disk"
    if isinstance(error, duckdb.OutOfMemoryException):
        return "DuckDB needs more memory than --memory-gib gives it: raise it"
    if isinstance(error, duckdb.ProgrammingError | duckdb.InternalError):
        return f"DuckDB failed ({type(error).__name__}): report this with the version of the dataset's extractor"
    return "a .parquet file of the dataset is damaged: write or fetch the dataset again"
