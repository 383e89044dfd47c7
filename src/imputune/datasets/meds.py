"""The command `imputune extract meds`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from pydantic import BaseModel, JsonValue

import imputune
from imputune.data.cohort import Cohort, check_kind
from imputune.data.outcome_file import NO_LABEL, Labels
from imputune.data.raw.meds.dataset_files import find_meds
from imputune.data.raw.meds.extraction import Outcome, Resources, extract_meds
from imputune.data.raw.meds.labels import BOTH_VALUES, DIFFERING
from imputune.data.raw.meds.reasons import told_counts
from imputune.data.raw.meds.stays import MedsStays, WindowRules
from imputune.data.raw.meds.suggestion import FEWEST_SUBJECTS, suggest_variables
from imputune.data.raw.meds.variable_file import READY, VariableFile, read_variable_file, ready_text
from imputune.data.raw.meds.variable_rows import Mark, split_patterns
from imputune.data.raw.meds.windows import CONTRADICTIONS
from imputune.data.window import HOURS
from imputune.data.window_file import stay_windows
from imputune.datasets import Destination
from imputune.errors import UserError
from imputune.protocol.outcomes import DEFAULT_OUTCOME, check_outcome_name
from imputune.runtime.console import counted, say, show_files, warn

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_OTHERS = re.compile(r"(physionet2012|mimic3|synthetic)(_\d+h(_by_\d+h)?)?")
"""Names of the other datasets and of their windows (`Window.dataset_name`)."""
SHOWN = 5
USUAL_FILE = "mimic4"
DOUBTFUL = (*CONTRADICTIONS, BOTH_VALUES, DIFFERING)


@dataclass(frozen=True, kw_only=True)
class MedsOptions:
    """The options of the command."""

    raw: Annotated[Path | None, typer.Option(help="Folder of the MEDS dataset: data/ with .parquet files.")] = None
    variables: Annotated[
        str,
        typer.Option(
            help=f"A variable file, or a ready one: {', '.join(READY)} (default: {USUAL_FILE}; docs/meds.md)."
        ),
    ] = ""
    name: Annotated[str, typer.Option(help="The dataset's name here (default: the ready file's, or meds).")] = ""
    start: Annotated[str, typer.Option(help="Codes that start a stay, in place of the variable file's.")] = ""
    end: Annotated[str, typer.Option(help="Codes that end a stay, in place of the variable file's.")] = ""
    stays: Annotated[Literal["first", "all"], typer.Option(help="First stay of each subject, or all.")] = "first"
    hours: Annotated[int, typer.Option(min=1, help="Length of the window.")] = HOURS
    bin_hours: Annotated[int, typer.Option(min=1, help="Length of a bin.")] = 1
    minimum_hours: Annotated[
        int | None, typer.Option(min=1, help="Hours that a stay must last (default: the window).")
    ] = None
    minimum_age: Annotated[float, typer.Option(min=0, help="Years at the start; 0: also without a birth.")] = 18
    maximum_age: Annotated[float | None, typer.Option(min=0, help="Years at the start.")] = None
    outcome: Annotated[
        str, typer.Option(help=f"Name of the outcome (default: {DEFAULT_OUTCOME}); --labels needs it.")
    ] = ""
    labels: Annotated[Path | None, typer.Option(help="MEDS label table of the outcome, as ACES writes it.")] = None
    memory_gib: Annotated[float, typer.Option(min=0.25, help="Most memory of DuckDB.")] = 0.5
    suggest_variables: Annotated[
        bool, typer.Option("--suggest-variables", help="Print the dataset's codes as a variable file to edit.")
    ] = False
    print_variables: Annotated[
        bool, typer.Option("--print-variables", help="Print a ready variable file to edit; read nothing.")
    ] = False


class MedsSource(BaseModel, frozen=True, extra="forbid"):
    """Where a cohort of a MEDS dataset came from: the rules, what was read, and what was left out, by reason."""

    command: str
    version: str
    records: str
    dataset_metadata: dict[str, str]
    variable_file: str
    variable_file_sha256: str
    rules: dict[str, JsonValue]
    stays_read: int
    stays_shorter_than_the_window: int
    events_read: int
    events_in_the_windows: int
    events_dropped: dict[str, int]
    events_ignored: dict[str, int]
    labels: dict[str, int]
    variables_without_events: list[str]
    exclusions: dict[str, int]


def extract(destination: Destination, options: MedsOptions) -> Cohort | None:
    """Extract any hospital's records in the Medical Event Data Standard; docs/meds.md has the rules."""
    _refuse_without_effect(destination, options)
    if options.print_variables:
        typer.echo(ready_text(options.variables or USUAL_FILE), nl=False)
        return None
    if options.raw is None:
        raise UserError("--raw is missing: name the folder of the MEDS dataset")
    outcome = _outcome(options)
    workers = destination.params().workers
    with show_files() as progress:
        resources = Resources(
            home=destination.data(), threads=workers, memory_gib=options.memory_gib, progress=progress
        )
        if options.suggest_variables:
            text, rare = suggest_variables(options.raw, resources)
        else:
            file = _with_marks(read_variable_file(options.variables or USUAL_FILE), options)
            name = _name(options, file)
            rules = _rules(options)
            rules.check()
            folder, records = destination.folder(name), records_name(find_meds(options.raw).about())
            check_kind(folder, records, rules.window, outcome.name)  # before what may take minutes
            stays = extract_meds(options.raw, file, rules, resources, outcome)
    if options.suggest_variables:
        typer.echo(text, nl=False)
        say(f"{counted(rare, 'code')} with numbers of fewer than {FEWEST_SUBJECTS} subjects left out")
        return None
    if not options.variables:
        others = ", ".join(each for each in READY if each != USUAL_FILE)
        say(f"--variables is not given: the ready file {USUAL_FILE} was read (others: {others}, or your own)")
    _say_counts(stays)
    return to_cohort(stays, name, file)


def _refuse_without_effect(destination: Destination, options: MedsOptions) -> None:
    """Raise UserError for an option that has no effect beside --print-variables or --suggest-variables."""
    used = {"print_variables": ("variables",), "suggest_variables": ("raw", "memory_gib")}
    for shows, also in used.items():
        if not getattr(options, shows):
            continue
        given = [
            field.name
            for field in fields(options)
            if field.name not in (shows, *also) and getattr(options, field.name) != field.default
        ]
        if destination.out is not None:
            given.append("out")
        if given:
            told = f"--{given[0]} has no effect beside --{shows}".replace("_", "-")
            raise UserError(f"{told}, which writes no cohort: leave one of them out")


def _rules(options: MedsOptions) -> WindowRules:
    return WindowRules(
        hours=options.hours,
        bin_hours=options.bin_hours,
        minimum_hours=options.hours if options.minimum_hours is None else options.minimum_hours,
        stays=options.stays,
        minimum_age=options.minimum_age,
        maximum_age=options.maximum_age,
    )


def _with_marks(file: VariableFile, options: MedsOptions) -> VariableFile:
    marks: Mapping[Mark, str] = {"start": options.start, "end": options.end}
    for mark, codes in marks.items():
        if patterns := split_patterns(codes):
            file = file.with_mark(mark, patterns)
    return file


def _name(options: MedsOptions, file: VariableFile) -> str:
    name = options.name or (file.name if file.name in READY else "meds")
    is_others = _OTHERS.fullmatch(name)
    if not _NAME.fullmatch(name) or is_others:
        what = "is another dataset's" if is_others else "must be of a-z, 0-9, _ and -"
        raise UserError(f"--name {name!r} {what}: choose another name")
    return name


def _outcome(options: MedsOptions) -> Outcome:
    """Return the outcome; UserError for labels without its name, which nothing in a label table tells."""
    if options.labels is not None and not options.outcome:
        told = f"--labels {options.labels} does not say which outcome it has"
        raise UserError(f"{told}: name it with --outcome, such as --outcome sepsis, or --outcome {DEFAULT_OUTCOME}")
    name = options.outcome or DEFAULT_OUTCOME
    try:
        check_outcome_name(name)
    except ValueError as error:
        raise UserError(f"--outcome: {error}") from None
    return Outcome(name=name, labels=options.labels)


def records_name(about: Mapping[str, str]) -> str:
    """Return what a cohort's source.json says of its records: MEDS, and the dataset's name if it has one."""
    return f"MEDS {about.get('dataset_name', '')}".strip()


def to_cohort(stays: MedsStays, name: str, file: VariableFile) -> Cohort:
    """Return stays as a cohort whose first outcome is the one that was asked for.

    In-hospital death stands beside another outcome if it has both values. Stays without a label of any outcome are left
    out, and counted. Stays are numbered from 1; `subject_ids_N` are the records' own, and stay in data/. Raises
    UserError if the first outcome has one value only.
    """
    first = next(iter(stays.labels))
    labels = {each: label_N for each, label_N in stays.labels.items() if each == first or _values(label_N) == {0, 1}}
    if len(values := _values(labels[first])) < 2:
        labelled = counted(int((labels[first] != NO_LABEL).sum()), "labelled stay")
        what = f"{first} is {values.pop()} in all {labelled}" if values else f"no stay has a label of {first}"
        check = "the codes of kind died and discharge" if stays.outcome_is_derived else "--labels"
        raise UserError(f"{what}: a model needs stays with label 0 and stays with label 1; check {check}")
    kept_N = np.any([label_N != NO_LABEL for label_N in labels.values()], axis=0)
    source = MedsSource(
        command=_command(stays, name, first),
        version=imputune.__version__,
        records=records_name(stays.about),
        dataset_metadata=dict(stays.about),
        variable_file=file.name,
        variable_file_sha256=file.sha256,
        rules={field: getattr(stays.rules, field) for field in stays.rules.__dataclass_fields__},
        stays_read=stays.stays_read,
        stays_shorter_than_the_window=stays.shorter,
        events_read=stays.events.read,
        events_in_the_windows=stays.events.in_windows,
        events_dropped=dict(stays.events.dropped),
        events_ignored=dict(stays.events.ignored),
        labels=dict(stays.label_counts),
        variables_without_events=list(stays.absent),
        exclusions={**stays.exclusions, f"without a label of {' or '.join(labels)}": int((~kept_N).sum())},
    )
    return Cohort(
        dataset=name,
        stay_ids_N=np.arange(1, kept_N.sum() + 1),
        outcome_N=labels.pop(first)[kept_N],
        values_NTD=stays.values_NTD if kept_N.all() else stays.values_NTD[kept_N],
        variables=stays.variables,
        static=stays.static[kept_N].reset_index(drop=True),
        static_variables=stays.static_variables,
        source=source.model_dump(),
        subject_ids_N=stays.subject_ids_N[kept_N],
        outcome=first,
        bin_hours=stays.rules.bin_hours,
        other_outcomes={each: label_N[kept_N] for each, label_N in labels.items()},
        windows=stay_windows(
            stays.subject_ids_N[kept_N], stays.start_N[kept_N], stays.until_N[kept_N], stays.next_start_N[kept_N]
        ),
    )


def _command(stays: MedsStays, name: str, outcome: str) -> str:
    """Return the command without paths, and without options that are the usual ones."""
    rules, usual = stays.rules, WindowRules()
    given = {
        "name": (name, ""),
        "stays": (rules.stays, usual.stays),
        "hours": (rules.hours, usual.hours),
        "bin-hours": (rules.bin_hours, usual.bin_hours),
        "outcome": (outcome, DEFAULT_OUTCOME),
    }
    words = (f"--{option} {value}" for option, (value, default) in given.items() if value != default)
    return f"imputune extract meds {' '.join(words)}"


def _values(label_N: Labels) -> set[int]:
    return set(label_N[label_N != NO_LABEL].tolist())


def _say_counts(stays: MedsStays) -> None:
    events = stays.events
    dropped = told_counts(events.dropped) or "none"
    read = counted(events.read, "event")
    say(f"{read} read, {events.in_windows:,} of the variables in the windows; dropped: {dropped}")
    if ignored := told_counts(events.ignored):
        say(f"ignored: {ignored}")
    if stays.absent:
        hinted = sorted(stays.absent.items(), key=lambda item: not item[1])
        names = ", ".join(f"{name}{hint}" for name, hint in hinted[:SHOWN])
        more = ", ..." if len(stays.absent) > SHOWN else ""
        warn(f"{len(stays.absent)} of the variables have no event in this dataset: {names}{more}")
    if stays.shorter:
        say(f"{counted(stays.shorter, 'stay')} ended before the window: the hours after the end have no value")
    tell_labels(stays.label_counts)


def tell_labels(counts: Mapping[str, int]) -> None:
    """Print what became of the labels: a note, and a warning of labels that are doubtful."""
    if told := told_counts({reason: count for reason, count in counts.items() if reason not in DOUBTFUL}):
        say(told)
    if doubtful := told_counts({reason: count for reason, count in counts.items() if reason in DOUBTFUL}):
        warn(f"doubtful labels: {doubtful}")
