"""The names of outcomes."""

import re
from collections.abc import Iterable
from typing import get_args

from imputune.errors import UserError, near_miss
from imputune.settings.names import CatalogueName

DEFAULT_OUTCOME = "in_hospital_death"
"""The outcome of a cohort that names no other."""
OUTCOME_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
EXTRACTED = (
    DEFAULT_OUTCOME,
    "los_over_3_days",
    "los_over_7_days",
    "one_year_survival",
    "readmission_within_30_days",
)
"""The outcomes that extractions make."""
RESERVED = ("mortality", "variants", "imputers", "assessments", "figures", "report", *get_args(CatalogueName))
"""Words that folders of results and registered models have already."""


def check_outcome_name(name: str) -> str:
    """Return a name that an outcome may have; raises ValueError for any other, because it names folders and models."""
    if not OUTCOME_NAME.fullmatch(name):
        raise ValueError(
            f"an outcome's name has lower-case letters, digits and _, such as los_over_7_days: got {name!r}"
        )
    if name in RESERVED or name.startswith("csai_"):
        raise ValueError(f"the name {name!r} is taken by other results or models: choose another name of the outcome")
    return name


def known_outcome(name: str, known: Iterable[str], dataset: str) -> str:
    """Return an outcome that a cohort has; raises UserError, with near miss and list, for another."""
    names = tuple(known)
    if name not in names:
        raise UserError(
            f"cohort {dataset} has no outcome {name!r}{near_miss(name, names)}: choose from {', '.join(names)}"
        )
    return name
