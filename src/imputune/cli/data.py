"""Commands on records and cohorts: the group extract, describe and label."""

from pathlib import Path
from typing import Annotated

import typer

from imputune.cli.app import AsJson, Commands, LateGroup, app
from imputune.cli.options import cohort_folder
from imputune.errors import UserError
from imputune.runtime.console import counted, counted_each, print_table, warn


class ExtractGroup(LateGroup):
    """The group extract: a command for each dataset."""

    def load(self) -> Commands:
        """Return the commands by their names."""
        from imputune.cli.extract import dataset_commands

        return dataset_commands()


extract = typer.Typer(
    cls=ExtractGroup,
    help="Raw records to data/<dataset>: bins of the first hours of stays, usually 48 of an hour.",
    no_args_is_help=True,
)
app.add_typer(extract, name="extract")


@app.command("describe")
def describe_command(
    folder: Annotated[Path, typer.Argument(help="A cohort's folder, or its name in data/.")],
    outcome: Annotated[str, typer.Option(help="One of the cohort's outcomes (default: its first).")] = "",
    as_json: AsJson = False,
    card: Annotated[
        bool, typer.Option("--card", help="Print a data card in Markdown; it has no stay's record or date.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="With --card: a file for the card (default: print it).")] = None,
) -> None:
    """Describe a cohort: stays, outcomes, observed cells, and the fraction of missing cells by variable."""
    from imputune.files import replace_text
    from imputune.pipeline.describe import drawn_protocol, run_data_card, run_describe

    folder = cohort_folder(folder)
    if card and as_json:
        raise UserError("--card is Markdown and --json is JSON: choose one")
    if out is not None and not card:
        raise UserError("--out works only with --card: add --card, or leave out --out")
    if card:
        text = run_data_card(folder, outcome)
        if out is None:
            typer.echo(text, nl=False)
        elif out.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{out} is in the cohort's folder, which holds its own files only: name another file")
        else:
            replace_text(out, text)
            typer.echo(f"{out}: the data card of {folder}")
        return
    facts = run_describe(folder, outcome)
    if as_json:
        typer.echo(facts.model_dump_json(indent=2))
        return
    shown = facts.model_dump(exclude={"missing_share_by_variable", "outcomes"})
    facts_lines = [(name, _shown(fact)) for name, fact in shown.items()]
    if protocol := drawn_protocol(folder):
        facts_lines.append(("protocol", protocol))
    print_table(str(folder), ("fact", "value"), facts_lines)
    outcomes = [
        (name, f"{each.labelled:,}", f"{each.events:,}", f"{each.event_share:.1%}")
        for name, each in facts.outcomes.items()
    ]
    print_table("Outcomes", ("outcome", "labelled stays", "events", "share"), outcomes)
    missing = [(name, f"{share:.1%}") for name, share in facts.missing_share_by_variable.items()]
    print_table("Missing share", ("variable", "share"), missing)


@app.command("label")
def label_command(
    folder: Annotated[Path, typer.Argument(help="A cohort's folder, or its name in data/.")],
    outcome: Annotated[str, typer.Option(help="Name of the outcome.")],
    labels: Annotated[Path, typer.Option(help="MEDS label table of the outcome, as ACES writes it.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite the labels of an outcome that the cohort has already.")
    ] = False,
) -> None:
    """Add an outcome to a cohort from a label table; folds and pretrained imputers stay as they are."""
    from imputune.datasets.meds import tell_labels
    from imputune.pipeline.label import run_label
    from imputune.protocol.outcome_words import outcome_words

    folder = cohort_folder(folder)
    added = run_label(folder, outcome, labels, replace=replace)
    tell_labels(added.counts)
    if not added.by_time:
        warn("these records have no dates: each label belongs to the stay whose id is its subject_id, at any time")
    have = "has" if added.labelled == 1 else "have"
    typer.echo(
        f"{folder}: outcome {outcome}: {added.labelled:,} of {counted(added.stays, 'stay')} {have} a label, "
        f"{outcome_words(outcome).counted(added.events)}"
    )
    if added.changed is not None:
        typer.echo(f"{counted(added.changed, 'stay')} had another label of {outcome} before")


def _shown(fact: object) -> str:
    if isinstance(fact, dict):
        return counted_each(fact) or "none"
    return f"{fact:.2%}" if isinstance(fact, float) else f"{fact:,}" if isinstance(fact, int) else str(fact)
