"""The command `imputune extract synthetic`."""

from typing import Annotated

import typer

from imputune.data.cohort import Cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.window import HOURS, Window
from imputune.datasets import Destination


def extract(
    destination: Destination,
    stays: Annotated[
        int | None, typer.Option(help="Number of stays (default: synthetic.stays in params.yaml).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the generator (default: synthetic.seed in params.yaml).")
    ] = None,
    hours: Annotated[int, typer.Option(min=1, max=HOURS, help="Length of the window.")] = HOURS,
    bin_hours: Annotated[int, typer.Option(min=1, help="Length of a bin; another window is a dataset of its own.")] = 1,
) -> Cohort:
    """Generate records in the challenge's format and extract them: the same bytes on every run."""
    settings = destination.params().synthetic
    return extract_synthetic(
        settings.stays if stays is None else stays,
        settings.seed if seed is None else seed,
        Window(hours=hours, bin_hours=bin_hours),
    )
