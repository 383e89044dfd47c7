"""Stays that two cohorts share: by subjects or the records' own ids, if both are of one source, and by values.

Letters: N stays of the first cohort, M of the second, T hours, D variables.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from imputune.data.cohort import Cohort
from imputune.data.raw.synthetic import GENERATED


def shared_stays(cohort: Cohort, other: Cohort) -> npt.NDArray[np.bool_]:
    """Return which stays of a cohort are in another one too, (N,).

    A stay is shared if both cohorts are of the same source and the other one has its subject, or its id if subjects are
    not known, or if the other cohort has a record of the same variables with the same values in the same hours.
    """
    same_values_N = np.isin(_record_hashes(cohort), _record_hashes(other))
    if not _of_one_source(cohort, other):
        return same_values_N
    if cohort.subject_ids_N is not None and other.subject_ids_N is not None:
        return same_values_N | np.isin(cohort.subject_ids_N, other.subject_ids_N)
    return same_values_N | np.isin(*_ids(cohort, other))


def shared_words(cohort: Cohort, other: Cohort) -> str:
    """Return how stays that are shared are in the other cohort: themselves, or another stay of their subject."""
    if cohort.subject_ids_N is None or other.subject_ids_N is None:
        return "are"
    return "are, or have another stay of their subject,"


def _record_hashes(cohort: Cohort) -> npt.NDArray[np.bytes_]:
    """Return a sha256 of each stay's values as hexadecimal digits, (N,); all NaN count as equal, and so do 0 and -0."""
    names = ",".join(cohort.variable_names).encode()
    hashes = []
    for values_TD in cohort.values_NTD:
        plain_TD = np.where(np.isnan(values_TD), np.float32(np.nan), values_TD + np.float32(0))
        hashes.append(hashlib.sha256(names + plain_TD.tobytes()).hexdigest())
    cohort.release()
    return np.array(hashes, dtype=np.bytes_)


def _of_one_source(cohort: Cohort, other: Cohort) -> bool:
    """Say whether equal ids mean equal stays: the same records, and a set in common where sets are named.

    Two windows of the same records are two datasets; their source.json says under `records` which ones these are.
    """
    if cohort.records != other.records or cohort.records == GENERATED:
        return False  # ids of generated stays are running numbers, which every seed gives anew: they name no patient
    if (cohort.source_ids_N is None) != (other.source_ids_N is None):
        return False
    ours, theirs = _sets(cohort.source), _sets(other.source)
    return not ours or not theirs or bool(ours & theirs)


def _sets(source: Mapping[str, JsonValue]) -> set[str]:
    sets = source.get("sets")
    return {str(each) for each in sets} if isinstance(sets, list) else set()


def _ids(cohort: Cohort, other: Cohort) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the records' own ids of two cohorts, (N,) and (M,)."""
    if cohort.source_ids_N is not None and other.source_ids_N is not None:
        return cohort.source_ids_N, other.source_ids_N
    return cohort.stay_ids_N, other.stay_ids_N
