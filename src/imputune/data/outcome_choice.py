"""Which outcomes a cohort's folder has, and which of them a command means."""

import json
from pathlib import Path

from imputune.data.outcome_file import OUTCOMES_FILE, columns_of
from imputune.errors import UserError
from imputune.protocol.outcomes import DEFAULT_OUTCOME, check_outcome_name, known_outcome


def chosen_outcome(cohort_folder: Path, wanted: str) -> str:
    """Return the outcome that is wanted; for "" in_hospital_death if the cohort has it, or else its first.

    Without a cohort any name is taken that an outcome may have. Raises UserError for one that the cohort lacks.
    """
    known = outcome_names(cohort_folder)
    if not known:
        try:
            return check_outcome_name(wanted) if wanted else DEFAULT_OUTCOME
        except ValueError as error:
            raise UserError(f"outcome: {error}") from None
    if not wanted:
        return DEFAULT_OUTCOME if DEFAULT_OUTCOME in known else known[0]
    return known_outcome(wanted, known, cohort_folder.name)


def named_outcome(cohort_folder: Path, named: str, *, elsewhere: bool) -> str:
    """Return the outcome that params.yaml names, or "" if it names it for another dataset, and this cohort lacks it.

    `elsewhere`: the command's dataset is another one than params.yaml's.
    """
    return "" if elsewhere and named not in outcome_names(cohort_folder) else named


def outcome_names(folder: Path) -> tuple[str, ...]:
    """Return the names of a cohort folder's outcomes, the first outcome first; none if it is no cohort.

    What is wrong with a folder is told where the cohort is read.
    """
    try:
        first = json.loads((folder / "source.json").read_bytes()).get("outcome", DEFAULT_OUTCOME)
    except (OSError, ValueError, AttributeError):
        return ()
    return (first, *(name for name in columns_of(folder / OUTCOMES_FILE) if name != first))
