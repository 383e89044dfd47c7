"""Commands on records and cohorts: extract, describe."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from imputune.cli.app import AsJson, app
from imputune.console import print_table, watched_download
from imputune.data.cohort import Cohort, describe, read_cohort, write_cohort
from imputune.data.download import download_physionet2012
from imputune.data.physionet2012 import extract_physionet2012
from imputune.data.synthetic import extract_synthetic
from imputune.params import find_root, read_params, use_dataset

extract = typer.Typer(help="Raw records to data/<dataset>: hourly bins of the first 48 hours.", no_args_is_help=True)
app.add_typer(extract, name="extract")

Out = Annotated[Path | None, typer.Option(help="Folder to write instead of data/<dataset>.")]


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
    print_table(str(folder), ("fact", "value"), [(key, _shown(value)) for key, value in facts.items()])
    print_table("Missing share", ("variable", "share"), [(name, f"{share:.1%}") for name, share in missing.items()])


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


def _shown(fact: Any) -> str:
    if isinstance(fact, dict):
        return _counted(fact) or "none"
    return f"{fact:.2%}" if isinstance(fact, float) else f"{fact:,}" if isinstance(fact, int) else str(fact)


def _counted(exclusions: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in exclusions.items())
