"""The command `imputune extract physionet2012`."""

from pathlib import Path
from typing import Annotated

import typer

from imputune.data.cohort import Cohort
from imputune.data.raw.download import download_physionet2012
from imputune.data.raw.physionet2012 import extract_physionet2012
from imputune.data.window import HOURS, Window
from imputune.datasets import Destination
from imputune.runtime.console import say, show_files


def extract(
    destination: Destination,
    raw: Annotated[Path, typer.Option(help="Folder with set-a.tar.gz (or set-a/) and Outcomes-a.txt.")],
    sets: Annotated[str, typer.Option(help="Which sets, separated by commas: a, b, c.")] = "a",
    download: Annotated[bool, typer.Option(help="Download the public files into RAW first.")] = False,
    hours: Annotated[int, typer.Option(min=1, max=HOURS, help="Length of the window.")] = HOURS,
    bin_hours: Annotated[int, typer.Option(min=1, help="Length of a bin; another window is a dataset of its own.")] = 1,
) -> Cohort:
    """Extract the PhysioNet/Computing in Cardiology Challenge 2012: 35 variables."""
    letters = [letter.strip() for letter in sets.split(",")]
    if download:
        with show_files() as progress:
            download_physionet2012(letters, raw, progress=progress)
    window = Window(hours=hours, bin_hours=bin_hours)
    return extract_physionet2012(raw, letters, lambda text: say(f"note: {text}"), window)
