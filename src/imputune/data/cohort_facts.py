"""What a cohort contains, counted."""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, TypeAdapter

from imputune.data.cohort import Cohort
from imputune.data.outcome_file import NO_LABEL


class OutcomeFacts(BaseModel, frozen=True, extra="forbid"):
    """The number of stays with a label of an outcome, of events among them, and their share, 0 to 1."""

    labelled: int
    events: int
    event_share: float


class CohortFacts(BaseModel, frozen=True, extra="forbid"):
    """What a cohort contains: counts, shares from 0 to 1, left-out stays by reason, and every outcome by name.

    hours, bin_hours: the length of the window and of a bin. observed_share and missing_share_by_variable are shares of
    bins. outcome, events, event_share: of the chosen outcome.
    """

    dataset: str
    stays: int
    hours: int
    bin_hours: int
    variables: int
    observed_cells: int
    observed_share: float
    subjects: int
    outcome: str
    events: int
    event_share: float
    missing_share_by_variable: dict[str, float]
    exclusions: dict[str, int]
    outcomes: dict[str, OutcomeFacts]


def describe(cohort: Cohort) -> CohortFacts:
    """Count what is in the cohort."""
    stays, hours, variables = cohort.values_NTD.shape
    observed_D = cohort.observed_bins_ND.sum(axis=0)
    missing_share_D = 1 - observed_D / (stays * hours)
    by_variable = zip(cohort.variable_names, missing_share_D, strict=True)
    return CohortFacts(
        dataset=cohort.dataset,
        stays=stays,
        hours=hours * cohort.bin_hours,
        bin_hours=cohort.bin_hours,
        variables=variables,
        observed_cells=int(observed_D.sum()),
        observed_share=float(observed_D.sum() / (stays * hours * variables)),
        subjects=len(np.unique(cohort.subjects_N)),
        outcome=cohort.outcome,
        events=cohort.events,
        event_share=_event_share(cohort.outcome_N),
        missing_share_by_variable={name: round(float(share), 6) for name, share in by_variable},
        exclusions=TypeAdapter(dict[str, int]).validate_python(cohort.source["exclusions"]),
        outcomes={
            name: OutcomeFacts(
                labelled=int((label_N != NO_LABEL).sum()),
                events=int((label_N == 1).sum()),
                event_share=_event_share(label_N),
            )
            for name, label_N in cohort.outcomes.items()
        },
    )


def _event_share(label_N: npt.NDArray[np.int8]) -> float:
    """Return the share of events among labelled stays, 0 without labels."""
    labelled = int((label_N != NO_LABEL).sum())
    return float((label_N == 1).sum() / labelled) if labelled else 0.0
