"""The command describe: what a cohort folder holds."""

from pathlib import Path

from imputune.data.cohort import CohortFacts, describe, read_cohort


def run_describe(folder: Path) -> CohortFacts:
    """Return the facts of a cohort; UserError, with the remedy, when the folder is missing or malformed."""
    return describe(read_cohort(folder))
