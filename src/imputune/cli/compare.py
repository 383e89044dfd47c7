"""The command compare, and how its tables are printed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imputune.cli.app import AsJson, Dataset, OutcomeOption, app
from imputune.cli.word_lists import split_words
from imputune.errors import UserError
from imputune.runtime.console import print_table, say
from imputune.settings.file import find_root

if TYPE_CHECKING:
    from imputune.pipeline.project import Project
    from imputune.reporting.tables import Table

BY = "imputer,head"


@app.command("compare")
def compare_command(
    dataset: Dataset = None,
    outcome: OutcomeOption = "",
    by: Annotated[
        str,
        typer.Option(help=f"{BY} compares imputers with heads and writes a report (default: the paper's tables)."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Compare fine-tuned variants, or imputers with heads.

    Prints the tables, and writes tables and figures to results/<dataset>.
    """
    from imputune.pipeline.comparison_link import say_link
    from imputune.pipeline.project import Project

    if by and sorted(split_words(by)) != sorted(split_words(BY)):
        raise UserError(f"--by takes {BY}: got {by!r}")
    project = Project.open(find_root(Path.cwd()), dataset, outcome)
    if by:
        _compare_imputers(project, as_json)
    else:
        _compare_variants(project, as_json)
    say_link(project, "imputers" if by else "heads")


def _compare_variants(project: "Project", as_json: bool) -> None:
    from imputune.pipeline.compare import run_compare
    from imputune.reporting.comparison import protocol_sentence, variant_tables, variant_title

    comparison = run_compare(project)
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=1))
        return
    typer.echo(variant_title(comparison))
    typer.echo(protocol_sentence(comparison))
    _print_tables(variant_tables(comparison), comparison.notes)


def _compare_imputers(project: "Project", as_json: bool) -> None:
    from imputune.pipeline.compare_imputers import run_compare_imputers
    from imputune.reporting.comparison import imputer_answers, imputer_tables, imputer_title, protocol_sentence

    comparison = run_compare_imputers(project)
    answers = imputer_answers(comparison)
    if as_json:
        typer.echo(json.dumps(comparison.as_json(answers), indent=1))
        return
    typer.echo(imputer_title(comparison))
    typer.echo(protocol_sentence(comparison))
    for sentence in answers:
        typer.echo(sentence)
    _print_tables(imputer_tables(comparison), comparison.notes)


def print_report_table(table: "Table") -> None:
    """Print a table, and its remark on standard error."""
    print_table(table.title, table.header, table.lines)
    if table.remark:
        say(table.remark)


def _print_tables(tables: "Sequence[Table]", notes: "Sequence[str]") -> None:
    for table in tables:
        print_report_table(table)
    for note in notes:
        say(f"note: {note}")
