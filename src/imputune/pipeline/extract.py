"""The command extract: write an extracted cohort, and make it the one that the pipeline reads."""

from dataclasses import dataclass
from pathlib import Path

from imputune.data.cohort import Cohort, write_cohort
from imputune.data.cohort_facts import CohortFacts, describe
from imputune.datasets import Destination
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.settings.file import add_budget, find_root, use_dataset, use_outcome


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What was written.

    now_in_use: whether params.yaml was changed to name the dataset. budget_of: the dataset whose budget of epochs was
    copied, "" if none was. outcome_in_use: the outcome that params.yaml was changed to name, "" for no change.
    """

    folder: Path
    facts: CohortFacts
    now_in_use: bool = False
    budget_of: str = ""
    outcome_in_use: str = ""


def run_extract(cohort: Cohort, destination: Destination) -> Extracted:
    """Write a cohort; in data/<dataset>, also make it the one that commands read.

    Raises UserError when the disk refuses, or params.yaml cannot be changed.
    """
    folder = destination.folder(cohort.dataset)
    write_cohort(cohort, folder)
    facts = describe(cohort)
    if destination.out is not None:
        return Extracted(folder=folder, facts=facts)
    params = find_root(Path.cwd()) / "params.yaml"
    named = () if cohort.outcome == DEFAULT_OUTCOME else (cohort.outcome,)  # asked for with --outcome
    return Extracted(
        folder=folder,
        facts=facts,
        now_in_use=use_dataset(params, cohort.dataset),
        budget_of=add_budget(params, cohort.dataset),
        outcome_in_use=use_outcome(params, named or tuple(cohort.outcomes)),
    )
