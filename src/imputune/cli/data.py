"""Commands on records and cohorts: extract, describe."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from imputune.cli.app import AsJson, app
from imputune.cli.options import cohort_folder, option_parameters
from imputune.data.cohort import Cohort, check_target
from imputune.datasets import Destination, datasets
from imputune.datasets.meds import tell_labels
from imputune.errors import UserError
from imputune.pipeline.extract import run_extract
from imputune.protocol.outcome_words import outcome_words
from imputune.runtime.console import counted, print_table, warn

extract = typer.Typer(
    help="Raw records to data/<dataset>: bins of the first hours of stays, usually 48 of an hour.", no_args_is_help=True
)
app.add_typer(extract, name="extract")

Out = Annotated[Path | None, typer.Option(help="Folder to write instead of data/<dataset>.")]


def _command(function: Callable[..., Cohort | None]) -> Callable[..., None]:
    """Return a dataset's `extract` as a command: Typer reads its options; --out takes the place of `destination`.

    The options are the function's other parameters, or the fields of the one other parameter if it is a dataclass.
    """
    hints = {name: hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"}
    signature = inspect.signature(function)
    options = [each.replace(annotation=hints[each.name]) for each in list(signature.parameters.values())[1:]]
    alone: Any = options[0].annotation if len(options) == 1 else None
    together = alone if is_dataclass(alone) else None

    def run(out: Path | None = None, **chosen: Any) -> None:
        destination = Destination(out)
        if out is not None:
            check_target(out)  # before what may take minutes
        cohort = function(destination, alone(**chosen)) if together else function(destination, **chosen)
        if cohort is not None:
            _store(cohort, destination)

    if together:
        options = option_parameters(alone)
    options.append(inspect.Parameter("out", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Out))
    run.__signature__ = signature.replace(parameters=options, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in options}
    run.__doc__ = function.__doc__
    return run


for name, function in datasets():
    extract.command(name)(_command(function))


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
    from imputune.pipeline.describe import run_data_card, run_describe

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
    print_table(str(folder), ("fact", "value"), [(name, _shown(fact)) for name, fact in shown.items()])
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
    from imputune.pipeline.label import run_label

    folder = cohort_folder(folder)
    added = run_label(folder, outcome, labels, replace=replace)
    tell_labels(added.counts)
    if not added.by_time:
        warn("these records have no dates: each label belongs to the stay whose id is its subject_id, at any time")
    typer.echo(
        f"{folder}: outcome {outcome}: {added.labelled:,} of {counted(added.stays, 'stay')} have a label, "
        f"{outcome_words(outcome).counted(added.events)}"
    )
    if added.changed is not None:
        typer.echo(f"{counted(added.changed, 'stay')} had another label of {outcome} before")


def _store(cohort: Cohort, destination: Destination) -> None:
    extracted = run_extract(cohort, destination)
    facts = extracted.facts
    left_out = sum(facts.exclusions.values())
    reasons = f": {_counted(facts.exclusions)}" if left_out else ""
    typer.echo(
        f"{extracted.folder}: {counted(facts.stays, 'stay')}, {outcome_words(facts.outcome).counted(facts.events)}, "
        f"{counted(facts.observed_cells, 'observed cell')} ({counted(left_out, 'stay')} left out{reasons})"
    )
    if extracted.now_in_use:
        typer.echo(f"params.yaml now says dataset: {cohort.dataset}, so `dvc repro` reads it")
    if extracted.outcome_in_use:
        typer.echo(f"params.yaml now says outcome: {extracted.outcome_in_use}, the first of the cohort")
    if extracted.budget_of:
        typer.echo(
            f"params.yaml now has a budget for {cohort.dataset}, copied from {extracted.budget_of}: "
            "change it as you need"
        )


def _shown(fact: object) -> str:
    if isinstance(fact, dict):
        return _counted(fact) or "none"
    return f"{fact:.2%}" if isinstance(fact, float) else f"{fact:,}" if isinstance(fact, int) else str(fact)


def _counted(exclusions: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in exclusions.items() if count)
