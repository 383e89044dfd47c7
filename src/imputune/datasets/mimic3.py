"""The command `imputune extract mimic3`."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from imputune.data.cohort import Cohort
from imputune.data.raw.mimic3.extraction import PAPER_STAYS, extract_mimic3
from imputune.data.raw.mimic3.variables import VARIABLES
from imputune.datasets import Place
from imputune.errors import UserError
from imputune.runtime.console import print_table, tell, watched_files


def extract(
    place: Place,
    raw: Annotated[
        Path | None, typer.Option(help="Folder with the tables as .csv or .csv.gz; needed but for --list-variables.")
    ] = None,
    list_variables: Annotated[
        bool, typer.Option("--list-variables", help="Show the 89 variables, read nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list-variables: JSON for machines.")] = False,
) -> Cohort | None:
    """Extract MIMIC-III v1.4 from its raw tables: 89 variables; params.yaml has the rules under mimic3."""
    if list_variables:
        _show_variables(as_json)
        return None
    if as_json:
        raise UserError("--json has an effect with --list-variables alone: add that, or leave --json out")
    if raw is None:
        raise UserError("--raw is missing: name the folder with MIMIC-III's tables (or --list-variables)")
    params = place.params()
    with watched_files() as watch:
        cohort = extract_mimic3(raw, params.mimic3, place.data(), params.workers, watch)
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in cohort.source["rows_dropped"].items() if count)
    tell(f"{cohort.source['rows_in_the_stays_hours']:,} rows in the stays' hours; dropped: {dropped or 'none'}")
    seen_D = np.asarray(cohort.observed_NTD.any(axis=(0, 1)))
    unseen = [name for name, seen in zip(cohort.variable_names, seen_D, strict=True) if not seen]
    if unseen:
        tell(
            f"{len(unseen)} of the variables were never observed ({', '.join(unseen[:3])}, ...): are the tables whole?"
        )
    tell(
        f"{cohort.source['stays_read']:,} ICU stays read, {len(cohort.died_N):,} kept; the paper's extract has "
        f"{PAPER_STAYS:,}, by rules that are not published"
    )
    return cohort


def _show_variables(as_json: bool) -> None:
    rows = [variable.row() for variable in VARIABLES]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    lines = [
        (row["name"], row["unit"], row["combined"], f"{row['lowest']:g} to {row['highest']:g}", _items(row))
        for row in rows
    ]
    print_table(f"{len(rows)} variables", ("variable", "unit", "in an hour", "accepted", "items"), lines)


def _items(row: dict[str, Any]) -> str:
    def told(number: int) -> str:
        conversion = row["conversions"].get(str(number))
        return f"{number} ({conversion})" if conversion else str(number)

    return "; ".join(f"{place} {' '.join(map(told, numbers))}" for place, numbers in row["items"].items())
