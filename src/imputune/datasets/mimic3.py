"""The command `imputune extract mimic3`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from imputune.data.cohort import Cohort, check_kind
from imputune.data.raw.mimic3.extraction import DATASET, PAPER_STAYS, Mimic3Source, extract_mimic3
from imputune.data.raw.mimic3.variables import VARIABLES, VariableFacts
from imputune.data.window import HOURS, Window
from imputune.datasets import Destination
from imputune.errors import UserError
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.runtime.console import counted, print_table, say, show_files


def extract(
    destination: Destination,
    raw: Annotated[
        Path | None, typer.Option(help="Folder with the tables as .csv or .csv.gz; not needed with --list-variables.")
    ] = None,
    hours: Annotated[int, typer.Option(min=1, help="Length of the window.")] = HOURS,
    bin_hours: Annotated[int, typer.Option(min=1, help="Length of a bin; another window is a dataset of its own.")] = 1,
    list_variables: Annotated[
        bool, typer.Option("--list-variables", help="Show the 89 variables and read nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list-variables: JSON for machines.")] = False,
) -> Cohort | None:
    """Extract MIMIC-III v1.4 from its raw tables: 89 variables; params.yaml has the rules under mimic3."""
    window = Window(hours=hours, bin_hours=bin_hours)
    if list_variables:
        if raw is not None or window != Window():
            given = "--raw" if raw is not None else "--hours or --bin-hours"
            raise UserError(
                f"{given} has no effect beside --list-variables, which reads nothing: leave one of them out"
            )
        _show_variables(as_json)
        return None
    if as_json:
        raise UserError("--json works only with --list-variables: add --list-variables, or leave out --json")
    if raw is None:
        raise UserError("--raw is missing: name the folder with MIMIC-III's tables (or --list-variables)")
    window.check()
    params = destination.params()
    folder = destination.folder(window.dataset_name(DATASET))
    check_kind(folder, DATASET, window, DEFAULT_OUTCOME)  # before what may take minutes
    with show_files() as progress:
        cohort = extract_mimic3(
            raw, params.mimic3, destination.data(), params.workers, progress, lambda text: say(f"note: {text}"), window
        )
    _say_counts(cohort)
    return cohort


def _say_counts(cohort: Cohort) -> None:
    source = Mimic3Source.model_validate(cohort.source)
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in source.rows_dropped.items() if count)
    if shorter := source.stays_shorter_than_the_window:
        say(f"{counted(shorter, 'stay')} ended before the window: the hours after the end have no value")
    say(f"{counted(source.rows_in_the_stays_hours, 'row')} in the stays' hours; dropped: {dropped or 'none'}")
    observed_D = cohort.observed_bins_ND.sum(axis=0) > 0
    never = [name for name, observed in zip(cohort.variable_names, observed_D, strict=True) if not observed]
    if never:
        names = ", ".join(never[:3])
        say(f"{len(never)} of the variables were never observed ({names}, ...): are the tables complete?")
    say(
        f"{source.stays_read:,} ICU stays read, {len(cohort.outcome_N):,} kept; the paper's extract has "
        f"{PAPER_STAYS:,}, by rules that are not published"
    )


def _show_variables(as_json: bool) -> None:
    variables = [variable.facts() for variable in VARIABLES]
    if as_json:
        content = [variable.model_dump() for variable in variables]
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    lines = [(v.name, v.unit, v.combined, f"{v.lowest:g} to {v.highest:g}", _items_text(v)) for v in variables]
    print_table(f"{len(lines)} variables", ("variable", "unit", "in an hour", "accepted", "items"), lines)


def _items_text(variable: VariableFacts) -> str:
    """Return the item ids of each table, each with its conversion."""

    def with_conversion(item_id: int) -> str:
        conversion = variable.conversions.get(str(item_id))
        return f"{item_id} ({conversion})" if conversion else str(item_id)

    return "; ".join(f"{table} {' '.join(map(with_conversion, ids))}" for table, ids in variable.items.items())
