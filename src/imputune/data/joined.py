"""Two cohorts joined into one, for the protocol that trains on the first and tests on the second.

Letters: N stays of both.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from imputune.data.cohort import Cohort
from imputune.data.folds import COHORTS
from imputune.data.overlap import shared_stays, shared_words
from imputune.errors import UserError


def join_cohorts(cohorts: Mapping[str, Cohort], dataset: str) -> Cohort:
    """Return the stays of two cohorts, by their names, as one: all of the first, then all of the second.

    Stays have running numbers, and their own ids as source ids. Static facts and further outcomes that one of the two
    lacks are left out. `source` names both cohorts and their numbers of stays.

    Raises UserError if the two differ in variables, units, window or first outcome, or share a stay or a subject.
    """
    (first_name, first), (second_name, second) = cohorts.items()
    _check_alike(first_name, first, second_name, second)
    if shared := int(shared_stays(second, first).sum()):
        raise UserError(
            f"{shared:,} of the {len(second.stay_ids_N):,} stays of {second_name} {shared_words(second, first)} in "
            f"{first_name} too, so they would train and test: leave them out of {second_name}"
        )
    both = (first, second)
    outcome = next(iter(first.outcomes))
    labels = {
        name: np.concatenate([label_N, second.outcomes[name]])
        for name, label_N in first.outcomes.items()
        if name in second.outcomes
    }
    static_variables = tuple(each for each in first.static_variables if each in second.static_variables)
    names = [each.name for each in static_variables]
    exclusions: Counter[str] = Counter()
    for each in both:
        found = each.source["exclusions"]
        exclusions.update(found if isinstance(found, dict) else {})
    return Cohort(
        dataset=dataset,
        stay_ids_N=np.arange(1, 1 + sum(len(each.stay_ids_N) for each in both)),
        outcome_N=labels.pop(outcome),
        values_NTD=np.concatenate([each.values_NTD for each in both]),
        variables=first.variables,
        static=pd.concat([each.static[names] for each in both], ignore_index=True),
        source={
            "command": f"imputune extract joined --train {first_name} --test {second_name} --name {dataset}",
            "exclusions": dict(exclusions),
            COHORTS: [[name, len(each.stay_ids_N)] for name, each in cohorts.items()],
        },
        static_variables=static_variables,
        source_ids_N=np.concatenate([_own_ids(each) for each in both]),
        subject_ids_N=_subjects(first, second),
        outcome=outcome,
        other_outcomes=labels,
        bin_hours=first.bin_hours,
    )


def _check_alike(first_name: str, first: Cohort, second_name: str, second: Cohort) -> None:
    if first.variables != second.variables:
        differing = sorted({variable.name for variable in {*first.variables} ^ {*second.variables}})
        raise UserError(
            f"{second_name} has other variables or units than {first_name} "
            f"({', '.join(differing[:5]) or 'their order'}): extract both with the same"
        )
    if first.window != second.window:
        raise UserError(
            f"{second_name} has {second.window} and {first_name} has {first.window}: extract both with the same window"
        )
    outcomes = next(iter(first.outcomes)), next(iter(second.outcomes))
    if outcomes[0] != outcomes[1]:
        raise UserError(
            f"the first outcome of {second_name} is {outcomes[1]} and that of {first_name} is {outcomes[0]}: "
            "extract both with the same"
        )


def _own_ids(cohort: Cohort) -> npt.NDArray[np.int64]:
    return cohort.stay_ids_N if cohort.source_ids_N is None else cohort.source_ids_N


def _subjects(first: Cohort, second: Cohort) -> npt.NDArray[np.int64] | None:
    """Return running numbers of the subjects, (N,), of which none is in both cohorts; None if neither knows them."""
    if first.subject_ids_N is None and second.subject_ids_N is None:
        return None
    numbers = [np.unique(each.subjects_N, return_inverse=True)[1] for each in (first, second)]
    return np.concatenate([1 + numbers[0], 2 + numbers[0].max() + numbers[1]])
