"""The command line: parses, calls a stage, prints."""

import json
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast, get_args

import typer
from typer.core import TyperGroup

from imputune.config import Head, Mode, ScheduleName, find_root, read_params, use_dataset
from imputune.console import print_table, screen, watched, watched_download
from imputune.data.cohort import Cohort, describe, read_cohort, write_cohort
from imputune.data.download import download_physionet2012
from imputune.data.physionet2012 import extract_physionet2012
from imputune.data.synthetic import extract_synthetic
from imputune.errors import UserError, near_miss

INTERRUPTED = 130


class Commands(TyperGroup):
    """Shows a UserError as one line, and ends an interrupted command without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted: nothing half-written was left; the same command starts again", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    help="Pretrain a clinical time-series imputer, fine-tune small heads on it, compare every run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
extract = typer.Typer(help="Raw records to data/<dataset>: hourly bins of the first 48 hours.", no_args_is_help=True)
app.add_typer(extract, name="extract")

Dataset = Annotated[
    str | None, typer.Argument(help="The cohort in data/<dataset>; without it, the one params.yaml names.")
]
Out = Annotated[Path | None, typer.Option(help="Folder to write instead of data/<dataset>.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _choice(what: str, known: tuple[str, ...]) -> Any:
    """Return an option whose value must be one of `known`; another is a UserError with the near miss."""

    def check(word: str) -> str:
        if word not in known:
            raise UserError(f"unknown {what} {word!r}{near_miss(word, known)}: choose from {', '.join(known)}")
        return word

    return typer.Option(help=f"One of: {', '.join(known)}.", callback=check)


@extract.command("physionet2012")
def extract_physionet2012_command(
    raw: Annotated[Path, typer.Option(help="Folder with set-a.tar.gz (or set-a/) and Outcomes-a.txt.")],
    sets: Annotated[str, typer.Option(help="Which sets, separated by commas: a, b, c.")] = "a",
    out: Out = None,
    download: Annotated[bool, typer.Option(help="Fetch the public files into RAW first.")] = False,
) -> None:
    """Extract the PhysioNet/Computing in Cardiology Challenge 2012: 35 variables."""
    letters = [letter.strip() for letter in sets.split(",")]
    if download:
        with watched_download() as watch:
            download_physionet2012(letters, raw, watch=watch)
    _store(extract_physionet2012(raw, letters), out)


@extract.command("synthetic")
def extract_synthetic_command(
    out: Out = None,
    stays: Annotated[int | None, typer.Option(help="How many; else params.yaml's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the generator; else params.yaml's.")] = None,
) -> None:
    """Generate records in the challenge's format and extract them: the same bytes on every run."""
    settings = read_params(find_root(Path.cwd()) / "params.yaml").synthetic
    _store(
        extract_synthetic(
            settings.stays if stays is None else stays,
            settings.seed if seed is None else seed,
        ),
        out,
    )


@app.command("describe")
def describe_command(
    folder: Annotated[Path, typer.Argument(help="A cohort's folder.")], as_json: AsJson = False
) -> None:
    """Show what a cohort holds: stays, observed cells, deaths, missing share by variable."""
    facts = describe(read_cohort(folder))
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    missing = facts.pop("missing_share_by_variable")
    print_table(str(folder), ("fact", "value"), [(key, str(value)) for key, value in facts.items()])
    print_table("Missing share", ("variable", "share"), [(name, f"{share:.1%}") for name, share in missing.items()])


@app.command("folds")
def folds_command(dataset: Dataset = None) -> None:
    """Divide a cohort into folds."""
    from imputune.stages import Project, run_folds_stage

    project = Project.open(find_root(Path.cwd()), dataset)
    folds = run_folds_stage(project)
    parts = ", ".join(f"{len(fold.train)}/{len(fold.validation)}/{len(fold.test)}" for fold in folds)
    typer.echo(f"{len(folds)} folds of {project.dataset} (train/validation/test): {parts}")


@app.command("pretrain")
def pretrain_command(dataset: Dataset = None) -> None:
    """Pretrain CSAI on every fold, and score it on held-out cells beside simple imputers."""
    from imputune.evaluation.comparison import IMPUTER_HEADER, imputer_lines, imputer_rows
    from imputune.stages import Project, run_pretrain

    project = Project.open(find_root(Path.cwd()), dataset)
    result = run_pretrain(project, watched)
    rows = imputer_rows([fold.imputation for fold in result["results"]])
    print_table(f"Imputers of {project.dataset}, run {result['run_id']}", IMPUTER_HEADER, imputer_lines(rows))


@app.command("finetune")
def finetune_command(
    dataset: Dataset = None,
    head: Annotated[str, _choice("head", get_args(Head))] = "mlp2",
    mode: Annotated[str, _choice("mode", get_args(Mode))] = "frozen",
    schedule: Annotated[str, _choice("schedule", get_args(ScheduleName))] = "plateau",
) -> None:
    """Fine-tune a head on the pretrained imputer, on every fold."""
    from imputune.stages import Project, run_finetune
    from imputune.training.finetune import Cell

    cell = Cell(cast(Head, head), cast(Mode, mode), cast(ScheduleName, schedule))
    project = Project.open(find_root(Path.cwd()), dataset)
    result = run_finetune(project, cell, watched)
    lines = [
        (
            str(fold.fold),
            *(f"{fold.scores[name]:.3f}" for name in ("validation_auc", "test_auc")),
            str(fold.best_epoch),
        )
        for fold in result["results"]
    ]
    print_table(
        f"{cell.name} on {project.dataset}, run {result['run_id']}",
        ("fold", "validation AUC", "test AUC", "best epoch"),
        lines,
    )


@app.command("compare")
def compare_command(dataset: Dataset = None, as_json: AsJson = False) -> None:
    """Build the tables of a dataset from its tracked runs, and write them to results/<dataset>."""
    from imputune.compare import run_compare
    from imputune.evaluation.comparison import CELL_HEADER, IMPUTER_HEADER, cell_lines, imputer_lines
    from imputune.stages import Project

    comparison = run_compare(Project.open(find_root(Path.cwd()), dataset))
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=1))
        return
    title = f"{comparison.dataset}: {comparison.stays:,} stays, {comparison.deaths:,} deaths"
    print_table(title, CELL_HEADER, cell_lines(comparison.rows))
    print_table(
        "Imputation of hidden cells, in training deviations",
        IMPUTER_HEADER,
        imputer_lines(comparison.imputers),
    )
    for note in comparison.notes:
        screen.print(f"note: {note}")


def _store(cohort: Cohort, out: Path | None) -> None:
    """Write a cohort; in its usual place, also make it the one the pipeline reads."""
    folder = out or find_root(Path.cwd()) / "data" / cohort.dataset
    write_cohort(cohort, folder)
    facts = describe(cohort)
    left_out = sum(facts["exclusions"].values())
    typer.echo(
        f"{folder}: {facts['stays']:,} stays, {facts['deaths']:,} deaths, {facts['observed_cells']:,} observed cells"
        f" ({left_out} stays left out{': ' + _counted(facts['exclusions']) if left_out else ''})"
    )
    if out is None and use_dataset(find_root(Path.cwd()) / "params.yaml", cohort.dataset):
        typer.echo(f"params.yaml now says dataset: {cohort.dataset}, so `dvc repro` reads it")


def _counted(exclusions: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in exclusions.items())


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; SIGTERM ends a command as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminate)
    app()


if __name__ == "__main__":
    main()
