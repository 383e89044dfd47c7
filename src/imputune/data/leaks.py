"""Variables and static facts that may give an outcome away: by their name, or because they alone nearly decide it.

Letters: M training stays, T hours, D variables.
"""

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from imputune.data.cohort import Cohort

SUSPECT_AUC = 0.95
"""A variable or fact whose AUC alone is at least this, or at most 1 minus this, is told."""
FEWEST_EVENTS = 10
"""With fewer events, or fewer stays without one, an AUC of 0.95 may be chance: no AUC is told."""
SUSPECT_NAME = re.compile(
    r"(^|_)(death|died|dead|deceased|mortality|expired?|discharged?|outcome|survival|survived|readmi[a-z]*|los|"
    r"length_of_stay|billing|drg|icd[0-9]*)(_|$)"
)
"""Words of what is known only when a stay has ended."""
STAYS_AT_ONCE = 512
Array = npt.NDArray[np.float64]


def leak_notes(cohort: Cohort, row_M: npt.NDArray[np.int64]) -> Iterator[str]:
    """Yield a line for each variable and static fact that may give the chosen outcome away.

    `row_M` are labelled training stays: no other stay is looked at. A variable alone is its mean, its last value, or
    whether it was observed at all; an unknown value counts as lower than all others. With few events, only names are
    looked at.
    """
    event_M = cohort.outcome_N[row_M] == 1
    enough = min(event_M.sum(), (~event_M).sum()) >= FEWEST_EVENTS
    auc_of = dict.fromkeys((*cohort.variable_names, *(each.name for each in cohort.static_variables)), (0.5, ""))
    for what, value_MD in _statistics(cohort, row_M).items():
        for name, auc in zip(cohort.variable_names, _auc(event_M, value_MD), strict=True):
            auc_of[name] = max(auc_of[name], (float(auc), what))
    for fact in cohort.static_variables:
        [auc] = _auc(event_M, cohort.static[fact.name].to_numpy(np.float64)[row_M, None])
        auc_of[fact.name] = float(auc), "a static fact"
    for name, (auc, what) in auc_of.items():
        if SUSPECT_NAME.search(_words(name)):
            yield f"{name}, by its name, may contain {cohort.outcome}: leave it out if the first hours do not have it"
        elif enough and auc >= SUSPECT_AUC:
            yield (
                f"{name} alone ({what}) has an AUC of {auc:.3f} for {cohort.outcome} on training stays: check that it "
                "does not contain the outcome"
            )


def _words(name: str) -> str:
    """Return a name in lower case with _ between its words."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _statistics(cohort: Cohort, row_M: npt.NDArray[np.int64]) -> dict[str, Array]:
    """Return numbers of each variable by stay, (M, D), by what they are."""
    parts: dict[str, list[Array]] = {"its mean": [], "its last value": [], "whether it was observed": []}
    for start in range(0, len(row_M), STAYS_AT_ONCE):
        values = np.asarray(cohort.values_NTD[row_M[start : start + STAYS_AT_ONCE]], dtype=np.float64)
        observed = ~np.isnan(values)
        count = observed.sum(axis=1)
        total = np.where(observed, values, 0).sum(axis=1)
        last = values.shape[1] - 1 - observed[:, ::-1].argmax(axis=1)
        parts["its mean"].append(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))
        parts["its last value"].append(np.take_along_axis(values, last[:, None], axis=1)[:, 0])
        parts["whether it was observed"].append((count > 0).astype(np.float64))
    return {what: np.concatenate(each) for what, each in parts.items()}


def _auc(event_M: npt.NDArray[np.bool_], value_MK: Array) -> Array:
    """Return the AUC of each column alone, (K,), in the direction in which it is 0.5 or more."""
    events, stays = int(event_M.sum()), len(event_M)
    rank_MK = rankdata(np.where(np.isnan(value_MK), -np.inf, value_MK), axis=0)
    auc_K = (rank_MK[event_M].sum(axis=0) - events * (events + 1) / 2) / (events * (stays - events))
    return np.maximum(auc_K, 1 - auc_K)
