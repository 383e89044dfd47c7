"""The commands of extract: one for each dataset, made from the dataset's own function."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.main import get_group

from imputune.cli.app import Commands
from imputune.cli.options import option_parameters
from imputune.data.cohort import Cohort, check_target
from imputune.datasets import Destination, datasets
from imputune.pipeline.extract import run_extract
from imputune.protocol.outcome_words import outcome_words
from imputune.runtime.console import counted, counted_each

Out = Annotated[Path | None, typer.Option(help="Folder to write instead of data/<dataset>.")]


def dataset_commands() -> Commands:
    """Return a command for each dataset, by name, as Typer makes it from `extract` in datasets/."""
    together = typer.Typer()
    for name, function in datasets():
        together.command(name)(_command(function))
    return get_group(together).commands


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


def _store(cohort: Cohort, destination: Destination) -> None:
    extracted = run_extract(cohort, destination)
    facts = extracted.facts
    left_out = sum(facts.exclusions.values())
    reasons = f": {counted_each(facts.exclusions)}" if left_out else ""
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
