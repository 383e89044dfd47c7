"""The command `imputune extract synthetic`."""

from typing import Annotated

import typer

from imputune.data.cohort import Cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.datasets import Place


def extract(
    place: Place,
    stays: Annotated[int | None, typer.Option(help="How many; else params.yaml's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the generator; else params.yaml's.")] = None,
) -> Cohort:
    """Generate records in the challenge's format and extract them: the same bytes on every run."""
    settings = place.params().synthetic
    return extract_synthetic(
        settings.stays if stays is None else stays,
        settings.seed if seed is None else seed,
    )
