"""The command `imputune extract physionet2012`."""

from pathlib import Path
from typing import Annotated

import typer

from imputune.data.cohort import Cohort
from imputune.data.raw.download import download_physionet2012
from imputune.data.raw.physionet2012 import extract_physionet2012
from imputune.datasets import Place
from imputune.runtime.console import watched_files


def extract(
    place: Place,
    raw: Annotated[Path, typer.Option(help="Folder with set-a.tar.gz (or set-a/) and Outcomes-a.txt.")],
    sets: Annotated[str, typer.Option(help="Which sets, separated by commas: a, b, c.")] = "a",
    download: Annotated[bool, typer.Option(help="Fetch the public files into RAW first.")] = False,
) -> Cohort:
    """Extract the PhysioNet/Computing in Cardiology Challenge 2012: 35 variables."""
    letters = [letter.strip() for letter in sets.split(",")]
    if download:
        with watched_files() as watch:
            download_physionet2012(letters, raw, watch=watch)
    return extract_physionet2012(raw, letters)
