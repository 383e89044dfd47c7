"""Several outcomes of a cohort: on disk, chosen, their hashes, folds by subject, and what may give them away."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imputune.data.cohort import Cohort, Variable, cohort_hash, outcome_hash, read_cohort, write_cohort
from imputune.data.cohort_facts import describe
from imputune.data.folds import draw_folds, labelled_fold
from imputune.data.leaks import leak_notes
from imputune.data.outcome_choice import chosen_outcome, outcome_names
from imputune.data.overlap import shared_stays
from imputune.data.raw.synthetic import extract_synthetic
from imputune.errors import UserError

MakeCohort = Callable[..., Cohort]
SYNTHETIC_HASH = "2b7222954f055d04e43f98e3a88f06191e885fca3c8f326b82fe3ce22d0d604d"


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """60 generated stays, three of them without a length of stay."""
    made = extract_synthetic(60, 7)
    labels = {name: label_N.copy() for name, label_N in made.other_outcomes.items()}
    labels["los_over_7_days"][:] = np.arange(60) % 2
    labels["los_over_7_days"][[4, 9, 30]] = -1
    return replace(made, other_outcomes=labels)


def test_further_outcomes_do_not_change_the_cohorts_hash(tmp_path: Path) -> None:
    """The generated cohort has the hash that it had when it knew in-hospital death alone."""
    written = extract_synthetic(1000, 2012)
    write_cohort(written, tmp_path / "with")
    write_cohort(replace(written, other_outcomes={}), tmp_path / "without")
    assert cohort_hash(tmp_path / "with") == cohort_hash(tmp_path / "without") == SYNTHETIC_HASH
    assert (tmp_path / "with/outcomes.csv").is_file()
    assert not (tmp_path / "without/outcomes.csv").exists()


def test_outcomes_are_read_as_written(cohort: Cohort, tmp_path: Path) -> None:
    """Names, order, labels and missing labels survive; a chosen outcome is one of them."""
    write_cohort(cohort, tmp_path / "c")
    read = read_cohort(tmp_path / "c")
    assert list(read.outcomes) == list(cohort.outcomes) == list(outcome_names(tmp_path / "c"))
    for name, label_N in cohort.outcomes.items():
        assert read.outcomes[name].tolist() == label_N.tolist()
    chosen = read.with_outcome("los_over_7_days")
    assert (chosen.outcome, int((~chosen.labelled_N).sum())) == ("los_over_7_days", 3)
    assert chosen.outcome_N[[3, 4, 5]].tolist() == [1, -1, 1]
    assert chosen.with_outcome("in_hospital_death").outcome_N.tolist() == cohort.outcome_N.tolist()
    assert next(iter(chosen.outcomes)) == "in_hospital_death"
    assert len(chosen.labelled().stay_ids_N) == len(chosen.labelled().values_NTD) == 57
    assert read.labelled() is read


def test_a_first_outcome_of_another_name_is_read_as_written(cohort: Cohort, tmp_path: Path) -> None:
    """Its column is called outcome, its name stands in source.json, and some stays may have no label."""
    label_N = np.array([1, 0, -1] * 20, dtype=np.int8)
    subject_ids_N = np.arange(60) // 2
    made = replace(cohort, outcome="readmission", outcome_N=label_N, other_outcomes={}, subject_ids_N=subject_ids_N)
    write_cohort(made, tmp_path / "c")
    read = read_cohort(tmp_path / "c")
    assert (tmp_path / "c/stays.csv").read_text().splitlines()[0].startswith("stay_id,outcome,subject_id,")
    assert (read.outcome, read.outcome_N.tolist()) == ("readmission", label_N.tolist())
    assert read.subjects_N.tolist() == subject_ids_N.tolist()
    assert read.source == cohort.source
    assert chosen_outcome(tmp_path / "c", "") == "readmission"


def test_each_outcome_has_a_hash_of_its_own(cohort: Cohort) -> None:
    """Correcting one label changes the hash of this outcome alone; the first outcome has none."""
    corrected = {name: label_N.copy() for name, label_N in cohort.other_outcomes.items()}
    corrected["los_over_3_days"][0] ^= 1
    changed = replace(cohort, other_outcomes=corrected)
    hashes = {
        name: (outcome_hash(cohort.with_outcome(name)), outcome_hash(changed.with_outcome(name)))
        for name in cohort.outcomes
    }
    assert {name for name, (before, after) in hashes.items() if before != after} == {"los_over_3_days"}
    assert hashes["in_hospital_death"] == ("", "")
    assert len({before for before, _ in hashes.values()}) == 4


def test_an_unknown_outcome_is_named_with_those_there_are(cohort: Cohort, tmp_path: Path) -> None:
    """One line has the near miss and the list; a name that no folder may have is refused without a cohort too."""
    write_cohort(cohort, tmp_path / "c")
    for ask in (
        lambda: cohort.with_outcome("los_over_7_day"),
        lambda: chosen_outcome(tmp_path / "c", "los_over_7_day"),
    ):
        with pytest.raises(UserError) as caught:
            ask()
        assert "(did you mean 'los_over_7_days'?): choose from in_hospital_death, los_over_3_days, " in str(
            caught.value
        )
    for name in ("../x", "Death", "variants", "csai", "mortality"):
        with pytest.raises(UserError):
            chosen_outcome(tmp_path / "nowhere", name)
    assert chosen_outcome(tmp_path / "nowhere", "readmission") == "readmission"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (("stay_id,", "stay_ids,"), "stay_id"),
        (("900003,", "900099,"), "must have the stays of stays.csv in the same order"),
        (("los_over_3_days", "in_hospital_death"), "repeats the outcome in_hospital_death"),
        (("los_over_3_days", "LOS"), "an outcome's name has lower-case letters"),
        (("900001,", "900001,7"), "must be 0, 1 or empty"),
        (("900001,", "900001,1,"), "row 2 of it has 5 fields, not 4"),
        (("stay_id,", '"stay_id,'), "unexpected end of data"),
    ],
)
def test_a_broken_outcomes_file_is_refused(cohort: Cohort, tmp_path: Path, change: tuple[str, str], cause: str) -> None:
    """One line says what is wrong with it."""
    write_cohort(cohort, tmp_path / "c")
    path = tmp_path / "c/outcomes.csv"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(UserError, match=r"c/outcomes\.csv: .*; correct or remove .*c/outcomes\.csv$") as caught:
        read_cohort(tmp_path / "c")
    assert cause in str(caught.value)


def test_describe_counts_every_outcome(cohort: Cohort) -> None:
    """Shares are of labelled stays."""
    facts = describe(cohort).outcomes["los_over_7_days"]
    label_N = cohort.outcomes["los_over_7_days"]
    assert (facts.labelled, facts.events) == (57, int((label_N == 1).sum()))
    assert facts.event_share == facts.events / 57


def test_all_outcomes_share_the_folds_of_the_first(cohort: Cohort) -> None:
    """Whichever outcome is chosen, folds are the same; a head's fold lacks the unlabelled stays and no other."""
    chosen = cohort.with_outcome("los_over_7_days")
    for ours, theirs in zip(draw_folds(cohort, 3, 1), draw_folds(chosen, 3, 1), strict=True):
        assert ours.test.tolist() == theirs.test.tolist()
        kept = labelled_fold(theirs, chosen)
        for split in ("train", "validation", "test"):
            left_out = set(getattr(theirs, split)) - set(getattr(kept, split))
            assert left_out == set(getattr(theirs, split)) & {4, 9, 30}
        assert labelled_fold(ours, cohort).train.tolist() == ours.train.tolist()


def test_an_outcome_with_one_value_in_a_split_is_refused(cohort: Cohort) -> None:
    """The line names the split, the fold and the outcome."""
    label_N = np.zeros(60, dtype=np.int8)
    label_N[0] = 1
    chosen = replace(cohort, other_outcomes={"rare": label_N}).with_outcome("rare")
    fold = next(fold for fold in draw_folds(chosen, 3, 1) if 0 not in fold.train)
    with pytest.raises(UserError, match=rf"train stays of fold {fold.number} have one value of rare only"):
        labelled_fold(fold, chosen)


def test_stays_of_a_subject_are_in_one_split(make_cohort: MakeCohort) -> None:
    """With subjects, no subject is in two splits of a fold; fewer subjects than folds is an error."""
    made = make_cohort(90, 30)
    subject_ids_N = np.arange(90) // 3 + 5000
    by_subject = replace(made, subject_ids_N=subject_ids_N)
    for fold in draw_folds(by_subject, 5, 3):
        splits = [set(subject_ids_N[getattr(fold, split)]) for split in ("train", "validation", "test")]
        assert sum(map(len, splits)) == len(set.union(*splits)) == 30
    with pytest.raises(UserError, match="has 3 subjects, too few for 5 folds"):
        draw_folds(replace(made, subject_ids_N=np.arange(90) // 30), 5, 3)


def test_unlabelled_stays_of_the_first_outcome_are_spread_evenly(make_cohort: MakeCohort) -> None:
    """Stays without a label are stratified like the others."""
    made = make_cohort(100, 20)
    label_N = made.outcome_N.copy()
    label_N[40:60] = -1
    for fold in draw_folds(replace(made, outcome_N=label_N), 5, 3):
        counts = [int((label_N[fold.test] == label).sum()) for label in (-1, 0, 1)]
        assert counts == [4, 12, 4]


def test_another_stay_of_a_subject_is_shared(make_cohort: MakeCohort) -> None:
    """Two cohorts of one source share the stays of a subject, whatever the stays' own ids are."""
    one = replace(make_cohort(4, 2), dataset="meds", subject_ids_N=np.array([1, 1, 2, 3]))
    other = replace(
        make_cohort(3, 1, seed=1), dataset="meds", stay_ids_N=np.arange(3), subject_ids_N=np.array([1, 7, 3])
    )
    assert shared_stays(one, other).tolist() == [True, True, False, True]
    assert not shared_stays(one, replace(other, dataset="elsewhere")).any()


def test_a_variable_that_gives_the_outcome_away_is_told(make_cohort: MakeCohort) -> None:
    """By its name, by its value, or by being observed at all; nothing is told of variables that do not."""
    made = make_cohort(100, 30)
    assert list(leak_notes(made, np.arange(100))) == []
    values_NTD = made.values_NTD.copy()
    values_NTD[:, :, 1] = np.where(made.outcome_N[:, None] == 1, np.nan, values_NTD[:, :, 1])
    renamed = replace(made, values_NTD=values_NTD, variables=(Variable("DischargeCode", ""), *made.variables[1:]))
    by_name, by_value = leak_notes(renamed, np.arange(100))
    assert by_name.startswith("DischargeCode, by its name, may contain in_hospital_death")
    assert by_value.startswith("Temp alone (")
    # Stays that are not training stays are not looked at.
    assert len(list(leak_notes(renamed, np.flatnonzero(np.arange(100) % 2)))) == 2
    hidden = replace(renamed, values_NTD=np.where(np.arange(100)[:, None, None] < 60, made.values_NTD, values_NTD))
    assert len(list(leak_notes(hidden, np.arange(60)))) == 1
    # Nine events may be told apart by chance.
    few = np.concatenate([np.flatnonzero(made.outcome_N == 1)[:9], np.flatnonzero(made.outcome_N == 0)])
    assert len(list(leak_notes(renamed, few))) == 1


def test_outcomes_that_a_user_added_are_not_overwritten(cohort: Cohort, tmp_path: Path) -> None:
    """The line names them, and the folder stays as it was, whether an extraction makes outcomes of this name or not."""
    write_cohort(replace(cohort, other_outcomes={**cohort.other_outcomes, "sepsis": cohort.outcome_N}), tmp_path / "c")
    before = (tmp_path / "c/outcomes.csv").read_bytes()
    with pytest.raises(UserError, match=r"outcomes\.csv has labels of sepsis, which would be lost: move the file"):
        write_cohort(cohort, tmp_path / "c")
    assert (tmp_path / "c/outcomes.csv").read_bytes() == before
    write_cohort(cohort, tmp_path / "d")
    with pytest.raises(UserError, match=r"has labels of los_over_3_days, .*, which would be lost: move the file"):
        write_cohort(replace(cohort, other_outcomes={}), tmp_path / "d")
    assert read_cohort(tmp_path / "d").other_outcomes


def test_labels_that_a_user_corrected_are_not_overwritten(cohort: Cohort, tmp_path: Path) -> None:
    """Other labels of the same stays are refused, whatever number a stay has now; other stays bring other labels."""
    source_ids_N = np.arange(60) + 7000
    numbered = replace(cohort, stay_ids_N=np.arange(1, 61), source_ids_N=source_ids_N)
    write_cohort(numbered, tmp_path / "c")
    path = tmp_path / "c/outcomes.csv"
    rows = path.read_text().splitlines()
    place = rows[0].split(",").index("los_over_7_days")
    fields = rows[-1].split(",")
    fields[place] = str(1 - int(fields[place]))
    path.write_text("\n".join([*rows[:-1], ",".join(fields)]) + "\n")
    before = {each.name: each.read_bytes() for each in (tmp_path / "c").iterdir()}
    fewer = replace(numbered.of_rows(np.arange(5, 60)), stay_ids_N=np.arange(1, 56))
    for again in (numbered, fewer):
        with pytest.raises(UserError, match=r"1 stay has other labels of los_over_7_days in .*outcomes\.csv than"):
            write_cohort(again, tmp_path / "c")
    assert {each.name: each.read_bytes() for each in (tmp_path / "c").iterdir()} == before
    write_cohort(replace(numbered.of_rows(np.arange(55)), stay_ids_N=np.arange(2, 57)), tmp_path / "c")
    write_cohort(extract_synthetic(60, 7), tmp_path / "d")
    write_cohort(extract_synthetic(60, 8), tmp_path / "d")


def test_an_outcomes_file_as_other_programs_write_it(cohort: Cohort, tmp_path: Path) -> None:
    """A byte-order mark, other line ends and no newline at the end do not matter; a broken file is not replaced."""
    write_cohort(cohort, tmp_path / "c")
    path = tmp_path / "c/outcomes.csv"
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.rstrip().replace("\n", "\r\n").encode())
    assert list(read_cohort(tmp_path / "c").outcomes) == list(outcome_names(tmp_path / "c")) == list(cohort.outcomes)
    write_cohort(cohort, tmp_path / "c")
    path.write_text(text.replace("900001,", "900001,yes"))
    with pytest.raises(UserError, match="must be 0, 1 or empty; correct or remove"):
        write_cohort(cohort, tmp_path / "c")
    assert "yes" in path.read_text()
