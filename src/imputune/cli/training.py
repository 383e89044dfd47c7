"""Commands that train and compare: folds, pretrain, finetune, grid, assess, overfit, compare."""

import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from imputune.cli.app import AsJson, Dataset, app
from imputune.errors import UserError
from imputune.protocol.imputers import (
    IMPUTERS,
    PRETRAINED,
    check_installed,
    known_imputer,
)
from imputune.protocol.variants import (
    HEADS,
    PARTS,
    PROTOCOL,
    WORDS,
    choose_cells,
    grid_cells,
    make_cell,
)
from imputune.runtime.console import print_table, tell, watched
from imputune.runtime.workers import start_preloading
from imputune.settings.file import find_root, read_params

if TYPE_CHECKING:
    from imputune.pipeline.inputs import CellResult
    from imputune.settings.names import ImputerName
    from imputune.settings.schema import Params

Words = Annotated[str, typer.Option(help="Words separated by commas; else any.")]
Imputers = Annotated[
    str,
    typer.Option(help=f"Separated by commas: {', '.join(IMPUTERS)}; or all: CSAI and params.yaml's under matrix."),
]
BY = "imputer,head"
NEURAL = tuple(cell for cell in PROTOCOL if cell.is_neural)


@app.command("folds")
def folds_command(dataset: Dataset = None) -> None:
    """Divide a cohort into folds."""
    from imputune.pipeline.folds import run_folds_stage
    from imputune.pipeline.project import Project

    project = Project.open(find_root(Path.cwd()), dataset)
    folds = run_folds_stage(project)
    parts = ", ".join(f"{len(fold.train)}/{len(fold.validation)}/{len(fold.test)}" for fold in folds)
    typer.echo(f"{len(folds)} folds of {project.dataset} (train/validation/test): {parts}")


@app.command("pretrain")
def pretrain_command(
    dataset: Dataset = None,
    imputer: Imputers = PRETRAINED,
) -> None:
    """Pretrain an imputer on every fold, anew, and score it on held-out cells; interrupted, it goes on."""
    names = _imputers(imputer or PRETRAINED, read_params(find_root(Path.cwd()) / "params.yaml"))
    for name in names:
        check_installed(name)
    start_preloading()
    from imputune.evaluation.rows import imputer_rows
    from imputune.pipeline.pretrain import run_pretrain
    from imputune.pipeline.project import Project
    from imputune.reporting.tables import imputers_table

    project = Project.open(find_root(Path.cwd()), dataset)
    for name in names:
        result = run_pretrain(project, watched, name)
        table = imputers_table(imputer_rows([fold.imputation for fold in result["results"]]))
        print_table(f"{IMPUTERS[name].label} on {project.dataset}, run {result['run_id']}", table.header, table.lines)


@app.command("finetune")
def finetune_command(
    dataset: Dataset = None,
    head: Annotated[str, typer.Option(help=f"One of: {', '.join(WORDS['head'])}.")] = "mlp2",
    mode: Annotated[str, typer.Option(help="frozen, or unfrozen: the imputer is trained too (networks alone).")] = "",
    input: Annotated[str, typer.Option(help=f"What the head reads: {', '.join(WORDS['input'])}; else its usual.")] = "",
    schedule: Annotated[str, typer.Option(help=f"One of: {', '.join(WORDS['schedule'])}; else plateau, or none.")] = "",
    imputer: Annotated[str, typer.Option(help=f"One of: {', '.join(IMPUTERS)}.")] = PRETRAINED,
) -> None:
    """Fine-tune a head on a pretrained imputer, on every fold, anew; interrupted, it goes on with the folds left."""
    cell = make_cell(head, mode, input, schedule, imputer)
    start_preloading()
    from imputune.pipeline.grid import run_grid
    from imputune.pipeline.inputs import Request
    from imputune.pipeline.project import Project

    project = Project.open(find_root(Path.cwd()), dataset)
    [made] = run_grid(project, Request([cell], again=True), tell, as_one=False)
    _print_folds(project.dataset, made)


@app.command("grid")
def grid_command(
    dataset: Annotated[
        str, typer.Argument(help="Cohorts in data/, separated by commas; without it, the one params.yaml names.")
    ] = "",
    head: Words = "",
    mode: Words = "",
    input: Words = "",
    schedule: Words = "",
    imputer: Imputers = "",
    fold: Annotated[str, typer.Option(help="Numbers of folds, separated by commas; else all.")] = "",
    all_cells: Annotated[bool, typer.Option("--all", help="Every cell of the paper's protocol.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Train also what is done already.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Name the cells and end.")] = False,
) -> None:
    """Fine-tune many cells over the cores: those params.yaml names, those chosen here, or all; skip what is done.

    With --imputer, of each imputer and head the usual cell, where no other words are given, and without --head the
    heads under matrix. Killed at any moment, the same command goes on where it stopped.
    """
    wanted = {part: _words(text) for part, text in zip(PARTS, (head, mode, input, schedule), strict=True)}
    params = read_params(find_root(Path.cwd()) / "params.yaml")
    imputers = _imputers(imputer, params)
    if all_cells and (any(wanted.values()) or imputers):
        raise UserError("--all takes every cell: leave out --head, --mode, --input, --schedule and --imputer, or --all")
    chosen = all_cells or any(wanted.values()) or imputers
    cells = (
        choose_cells(wanted, imputers, params.matrix.head if imputers else HEADS) if chosen else grid_cells(params.grid)
    )
    if show:
        if fold:
            raise UserError("--list names cells, each with all its folds: leave out --fold, or --list")
        typer.echo("\n".join(cell.name for cell in cells))
        return
    start_preloading()
    from imputune.pipeline.grid import run_grid
    from imputune.pipeline.inputs import Request
    from imputune.pipeline.project import Project

    projects = [Project.open(find_root(Path.cwd()), name) for name in _words(dataset) or [""]]
    for project in projects:
        made = run_grid(project, Request(cells, _numbers(fold), again), tell)
        header = ("cell", "folds", "validation AUC", "test AUC", "seconds")
        print_table(f"Cells of {project.dataset}", header, [_line(each) for each in made])


@app.command("assess")
def assess_command(
    dataset: Dataset = None,
    imputer: Imputers = "all",
    again: Annotated[bool, typer.Option("--again", help="Assess also what is assessed already.")] = False,
) -> None:
    """Score imputers alone on the same held-out cells of every fold's test stays: error, distribution, time."""
    names = _imputers(imputer or "all", read_params(find_root(Path.cwd()) / "params.yaml"))
    start_preloading()
    from imputune.evaluation.assessed_imputers import assessed_imputer
    from imputune.pipeline.assess import run_assess
    from imputune.pipeline.project import Project
    from imputune.reporting.imputer_tables import errors_table

    project = Project.open(find_root(Path.cwd()), dataset)
    results = run_assess(project, names, again, tell)
    table = errors_table([assessed_imputer(result) for result in results])
    print_table(table.title, table.header, table.lines)
    tell(table.remark)


@app.command("overfit")
def overfit_command(
    dataset: Dataset = None,
    head: Annotated[str, typer.Option(help="mlp2, mlp5, lstm or gru.")] = "mlp2",
    mode: Annotated[str, typer.Option(help="frozen or unfrozen.")] = "",
    input: Annotated[str, typer.Option(help="What the head reads; else its usual.")] = "",
    schedule: Annotated[str, typer.Option(help="optuna, cyclic or plateau; else plateau.")] = "",
    fold: Annotated[str, typer.Option(help="Numbers of folds, separated by commas; else all.")] = "",
    epochs: Annotated[int, typer.Option(help="How many, all of them trained.", min=1)] = 200,
) -> None:
    """Train a cell without early stopping, to show when it overfits (the paper's Fig. 4); compare draws the curves."""
    cell = make_cell(head, mode, input, schedule)
    if not cell.is_neural:
        raise UserError(f"{head} has no epochs: choose from {', '.join(dict.fromkeys(c.head for c in NEURAL))}")
    start_preloading()
    from imputune.pipeline.grid import run_grid
    from imputune.pipeline.inputs import Request
    from imputune.pipeline.project import Project

    project = Project.open(find_root(Path.cwd()), dataset).with_epochs(epochs)
    [made] = run_grid(project, Request([cell], _numbers(fold), True, False), tell, as_one=False)
    _print_folds(project.dataset, made)


@app.command("compare")
def compare_command(
    dataset: Dataset = None,
    by: Annotated[
        str, typer.Option(help=f"{BY}: the matrix of imputers and heads, and the report; else the paper's tables.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Build the paper's tables and figures from tracked runs, print them, and write them to results/<dataset>."""
    from imputune.pipeline.compare import run_compare
    from imputune.pipeline.compare_imputers import run_report
    from imputune.pipeline.project import Project

    if by and sorted(_words(by)) != sorted(_words(BY)):
        raise UserError(f"--by takes {BY}: got {by!r}")
    project = Project.open(find_root(Path.cwd()), dataset)
    comparison = run_report(project) if by else run_compare(project)
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=1))
        return
    typer.echo(comparison.title)
    for sentence in comparison.answers:
        typer.echo(sentence)
    for table in comparison.tables():
        print_table(table.title, table.header, table.lines)
        if table.remark:
            tell(table.remark)
    for note in comparison.notes:
        tell(f"note: {note}")


def _imputers(text: str, params: "Params") -> "list[ImputerName]":
    """Return the imputers of a list separated by commas, each once; UserError for an unknown one."""
    words = [PRETRAINED, *params.matrix.imputer] if text.strip() == "all" else _words(text)
    if text and not words:
        raise UserError(f"--imputer takes names separated by commas, such as mean,locf, or all: got {text!r}")
    return list(dict.fromkeys(map(known_imputer, words)))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[int] | None:
    """Return the numbers of folds in a list separated by commas, None for an empty one."""
    words = _words(text)
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--fold takes numbers separated by commas, such as 0,1: got {text!r}")
    return sorted({int(word) for word in words}) or None


def _line(made: "CellResult") -> tuple[str, ...]:
    """Return a cell's name, its finished folds, their mean validation and test AUC, and their seconds as text."""
    results = made.results.values()
    aucs = (fmean(result.scores[name] for result in results) for name in ("validation_auc", "test_auc"))
    seconds = sum(result.seconds for result in results)
    return made.cell.name, str(len(results)), *(f"{auc:.3f}" for auc in aucs), f"{seconds:,.0f}"


def _print_folds(dataset: str, made: "CellResult") -> None:
    lines = [
        (str(fold), f"{r.scores['validation_auc']:.3f}", f"{r.scores['test_auc']:.3f}", str(r.best_epoch))
        for fold, r in made.results.items()
    ]
    title = f"{made.cell.name} on {dataset}, run {made.run_id}"
    print_table(title, ("fold", "validation AUC", "test AUC", "best epoch"), lines)
