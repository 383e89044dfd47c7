"""The command `imputune extract joined`."""

from typing import Annotated

import typer

from imputune.data.cohort import Cohort, read_cohort
from imputune.data.joined import join_cohorts
from imputune.datasets import Destination
from imputune.errors import UserError
from imputune.runtime.console import say
from imputune.settings.schema import FOLDER_NAME


def extract(
    destination: Destination,
    train: Annotated[str, typer.Option(help="Folder in data/ of the cohort that trains and validates.")],
    test: Annotated[str, typer.Option(help="Folder in data/ of the cohort that tests.")],
    name: Annotated[str, typer.Option(help="Name of the joined dataset (default: TRAIN_to_TEST).")] = "",
) -> Cohort:
    """Join two cohorts in data/, for folds.protocol external: train on the first, test on the second."""
    dataset = name or f"{train}_to_{test}"
    for option, text in (("--train", train), ("--test", test), ("--name", dataset)):
        if not FOLDER_NAME.fullmatch(text):
            raise UserError(f"{option} names a folder in data/, such as set-b: got {text!r}")
    if len({train, test, dataset}) < 3:
        raise UserError("--train, --test and --name must be three different folders in data/")
    cohorts = {folder: read_cohort(destination.data() / folder) for folder in (train, test)}
    joined = join_cohorts(cohorts, dataset)
    facts = {each.name for cohort in cohorts.values() for each in cohort.static_variables}
    outcomes = {outcome for cohort in cohorts.values() for outcome in cohort.outcomes}
    left_out = facts - {each.name for each in joined.static_variables} | outcomes - {*joined.outcomes}
    if left_out:
        say(f"note: left out, because the two cohorts do not both have them alike: {', '.join(sorted(left_out))}")
    return joined
