from collections.abc import Callable
from dataclasses import replace

import numpy as np

from imputune.data.cohort import Cohort
from imputune.data.overlap import shared_stays

MakeCohort = Callable[..., Cohort]


def other_values(cohort: Cohort, **changes: object) -> Cohort:
    """Return the cohort with other values in every stay, and other changes."""
    return replace(cohort, values_NTD=cohort.values_NTD * 2 + 1, **changes)  # type: ignore[arg-type]


def test_the_same_values_are_the_same_stay_whatever_their_id(cohort: Cohort) -> None:
    """By hand: two stays of another cohort have the values of two of ours; another NaN, and -0 for 0, do not differ."""
    values_NTD = cohort.values_NTD.copy()
    values_NTD[7, 0, 0] = 0.0
    ours = replace(cohort, values_NTD=values_NTD)
    theirs_NTD = values_NTD * 2 + 1
    theirs_NTD[[3, 4]] = values_NTD[[7, 80]]
    theirs_NTD[3, 0, 0] = -0.0
    negative_nan = np.array([0xFFC00001], dtype=np.uint32).view(np.float32)[0]
    theirs_NTD[4][np.isnan(theirs_NTD[4])] = negative_nan
    theirs = replace(ours, values_NTD=theirs_NTD, stay_ids_N=ours.stay_ids_N + 1000)
    assert np.flatnonzero(shared_stays(ours, theirs)).tolist() == [7, 80]
    assert np.flatnonzero(shared_stays(theirs, ours)).tolist() == [3, 4]


def test_equal_ids_count_within_one_source(cohort: Cohort) -> None:
    """Of the same dataset and set, a stay's id is enough; of others, or of generated stays, it is not."""
    ours = replace(cohort, dataset="physionet2012", source={"exclusions": {}, "sets": ["set-a", "set-b"]})
    source = {"exclusions": {}, "sets": ["set-b"]}
    ids_N = ours.stay_ids_N + 60
    theirs = other_values(ours, source=source, stay_ids_N=ids_N)
    assert np.flatnonzero(shared_stays(ours, theirs)).tolist() == list(range(60, 90))
    assert np.flatnonzero(shared_stays(theirs, ours)).tolist() == list(range(30))
    assert not shared_stays(ours, replace(theirs, source={"exclusions": {}, "sets": ["set-c"]})).any()
    assert not shared_stays(ours, replace(theirs, dataset="other")).any()
    generated = replace(ours, dataset="synthetic")
    assert not shared_stays(generated, replace(theirs, dataset="synthetic")).any()


def test_the_records_own_ids_count_where_stays_have_running_numbers(cohort: Cohort) -> None:
    """Two extractions of MIMIC-III number their stays anew; the ids of the database tell which are the same."""
    ours = replace(cohort, dataset="mimic3", stay_ids_N=np.arange(90), source_ids_N=np.arange(5000, 5090))
    theirs = other_values(ours, source_ids_N=np.arange(5080, 5170))
    assert np.flatnonzero(shared_stays(ours, theirs)).tolist() == list(range(80, 90))
    assert not shared_stays(ours, replace(theirs, source_ids_N=None)).any()


def test_two_windows_of_the_same_records_are_one_source(cohort: Cohort) -> None:
    """A second window under another name has other values; its subjects are the same if its records are."""
    subjects = {"stay_ids_N": np.arange(90), "subject_ids_N": np.arange(5000, 5090)}
    ours = replace(cohort, dataset="ward", source={"exclusions": {}, "records": "MEDS ward"}, **subjects)
    theirs = other_values(ours, dataset="ward_24h", subject_ids_N=np.arange(5080, 5170))
    assert np.flatnonzero(shared_stays(ours, theirs)).tolist() == list(range(80, 90))
    assert not shared_stays(ours, replace(theirs, source={"exclusions": {}, "records": "MEDS clinic"})).any()
