import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imputune.data.cohort import Cohort, Variable
from imputune.data.folds import COHORTS, divide, draw_external, draw_folds, draw_splits, read_folds, write_folds
from imputune.data.joined import join_cohorts
from imputune.data.outcome_file import NO_LABEL
from imputune.errors import UserError
from imputune.settings.fold_sections import External, Folds, Fractions, SingleSplit

MakeCohort = Callable[..., Cohort]
SPLITS = ("train", "validation", "test")
TENTHS = Fractions(train=0.8, validation=0.1, test=0.1)


@pytest.mark.parametrize("fractions", [Fractions(), TENTHS])
@pytest.mark.parametrize(("stays", "deaths"), [(40, 10), (333, 41), (250, 230)])
def test_each_split_has_its_fraction_of_stays_and_events(
    make_cohort: MakeCohort, fractions: Fractions, stays: int, deaths: int
) -> None:
    """Within events and within non-events, a part has its fraction to within one; no stay is lost or in two parts."""
    cohort = make_cohort(stays, deaths)
    [fold] = draw_splits(cohort, SingleSplit(fractions=fractions, seeds=(5,)))
    rows = [getattr(fold, split) for split in SPLITS]
    assert np.sort(np.concatenate(rows)).tolist() == list(range(stays))
    for split, row_M in zip(SPLITS, rows, strict=True):
        assert (np.diff(row_M) > 0).all()
        for label, count in ((1, deaths), (0, stays - deaths)):
            found = int((cohort.outcome_N[row_M] == label).sum())
            assert abs(found - count * getattr(fractions, split)) <= 1


def test_a_seed_gives_its_split_whatever_the_others(make_cohort: MakeCohort) -> None:
    """Fold k is the split of the k-th seed: the same alone and in a list; other seeds give other test stays."""
    cohort = make_cohort(60, 20)
    first, second = draw_splits(cohort, SingleSplit(seeds=(3, 8)))
    [alone] = draw_splits(cohort, SingleSplit(seeds=(8,)))
    assert (first.number, second.number, alone.number) == (0, 1, 0)
    assert second.test.tolist() == alone.test.tolist()
    assert first.test.tolist() != second.test.tolist()
    assert second.test.tolist() != list(range(12))


def test_subjects_stay_together_in_a_split(make_cohort: MakeCohort) -> None:
    """No subject is in two parts, also where one stay of it is an event and another is not."""
    cohort = replace(make_cohort(120, 40), subject_ids_N=np.arange(120) * 7 % 50)
    for fold in draw_splits(cohort, SingleSplit(seeds=(1, 2))):
        subjects = [set(cohort.subjects_N[getattr(fold, split)].tolist()) for split in SPLITS]
        assert not subjects[0] & subjects[1]
        assert not subjects[1] & subjects[2]
        assert not subjects[0] & subjects[2]
        assert abs(len(fold.train) - 0.64 * 120) <= 5
        assert abs(len(fold.test) - 0.2 * 120) <= 5


def test_stays_without_a_label_are_spread_too(make_cohort: MakeCohort) -> None:
    """Of 20 stays without a label, 64, 16 and 20 % are in the three parts."""
    cohort = make_cohort(100, 40)
    label_N = cohort.outcome_N.copy()
    label_N[50:70] = NO_LABEL
    [fold] = draw_splits(replace(cohort, outcome_N=label_N), SingleSplit(seeds=(0,)))
    assert [int((label_N[getattr(fold, split)] == NO_LABEL).sum()) for split in SPLITS] == [13, 3, 4]


def test_too_few_events_for_a_part(make_cohort: MakeCohort) -> None:
    """A part without a death is a one-line error with the part, the seed and the remedy."""
    with pytest.raises(UserError) as caught:
        draw_splits(make_cohort(40, 2), SingleSplit(seeds=(4,)))
    assert str(caught.value) == (
        "cohort synthetic has 2 deaths, and none is among the 8 test stays of seed 4: extract more records, or "
        "change folds.single_split.fractions in params.yaml"
    )


def test_external_tests_on_all_stays_of_the_second_cohort(make_cohort: MakeCohort) -> None:
    """Training and validation stays are of the first cohort alone, anew for each seed."""
    cohort = replace(make_cohort(90, 90), outcome_N=(np.arange(90) % 3 == 0).astype(np.int8))
    cohort = replace(cohort, source={"exclusions": {}, COHORTS: [["here", 60], ["there", 30]]})
    folds = draw_external(cohort, External(validation=0.25, seeds=(1, 2)))
    for fold in folds:
        assert fold.test.tolist() == list(range(60, 90))
        assert np.sort(np.concatenate([fold.train, fold.validation])).tolist() == list(range(60))
        assert len(fold.validation) == 15
        assert cohort.outcome_N[fold.validation].sum() == 5
    assert folds[0].validation.tolist() != folds[1].validation.tolist()


def test_external_needs_two_cohorts(make_cohort: MakeCohort) -> None:
    """A cohort that was not joined is refused with the command that joins."""
    with pytest.raises(UserError, match=r"is of one source, .* `imputune extract joined --train FOLDER --test FOLDER`"):
        divide(make_cohort(40, 9), Folds(count=5, protocol="external"), 3)


def test_the_file_of_cross_validation_is_as_earlier_versions_wrote_it(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """Its keys are those of earlier versions alone, so that hashes in old results stay valid; others say theirs."""
    cohort, path = make_cohort(40, 10), tmp_path / "folds.json"
    settings = Folds(count=5)
    write_folds(divide(cohort, settings, 3), cohort, "abc", path, settings)
    content = json.loads(path.read_text())
    assert list(content) == ["dataset", "cohort_hash", "folds"]
    write_folds(draw_folds(cohort, 5, 3), cohort, "abc", tmp_path / "before")
    assert path.read_bytes() == (tmp_path / "before").read_bytes()
    single = Folds(count=5, protocol="single_split", single_split=SingleSplit(seeds=(7,)))
    write_folds(divide(cohort, single, 3), cohort, "abc", path, single)
    assert json.loads(path.read_text())["division"] == {
        "protocol": "single_split",
        "fractions": {"train": 0.64, "validation": 0.16, "test": 0.2},
        "seeds": [7],
    }
    assert [fold.number for fold in read_folds(path, cohort, "abc", single, 99)] == [0]


@pytest.mark.parametrize(
    ("settings", "differing"),
    [
        (Folds(count=5), "single_split, params.yaml has cross_validation"),
        (Folds(count=5, protocol="single_split", single_split=SingleSplit(seeds=(8,))), "single_split"),
        (Folds(count=5, protocol="single_split", single_split=SingleSplit(seeds=(7,), fractions=TENTHS)), "single_sp"),
    ],
)
def test_folds_of_another_protocol_are_refused(
    make_cohort: MakeCohort, tmp_path: Path, settings: Folds, differing: str
) -> None:
    """Another protocol, other seeds or other fractions than in the file are one line with the command."""
    cohort, path = make_cohort(40, 10), tmp_path / "folds.json"
    single = Folds(count=5, protocol="single_split", single_split=SingleSplit(seeds=(7,)))
    write_folds(divide(cohort, single, 3), cohort, "abc", path, single)
    with pytest.raises(UserError, match=rf"other settings under folds \({differing}.* run `imputune folds synthetic`"):
        read_folds(path, cohort, "abc", settings, 3)


def test_joined_cohorts_by_value(make_cohort: MakeCohort) -> None:
    """The second cohort's stays come after the first's; ids are running numbers, and the records' own beside them."""
    first, second = make_cohort(12, 4, seed=1), make_cohort(9, 3, seed=2)
    second = replace(second, subject_ids_N=np.arange(9) // 3, source={"exclusions": {"too short": 2}})
    joined = join_cohorts({"here": first, "there": second}, "both")
    assert joined.stay_ids_N.tolist() == list(range(1, 22))
    assert joined.source_ids_N is not None
    assert joined.source_ids_N.tolist() == [*first.stay_ids_N, *second.stay_ids_N]
    np.testing.assert_array_equal(joined.values_NTD, np.concatenate([first.values_NTD, second.values_NTD]))
    assert joined.outcome_N.tolist() == [*first.outcome_N, *second.outcome_N]
    assert joined.source[COHORTS] == [["here", 12], ["there", 9]]
    assert joined.source["exclusions"] == {"too short": 2}
    assert len(set(joined.subjects_N[:12].tolist())) == 12
    assert len(set(joined.subjects_N[12:].tolist())) == 3
    assert not set(joined.subjects_N[:12].tolist()) & set(joined.subjects_N[12:].tolist())


def test_cohorts_that_do_not_go_together(make_cohort: MakeCohort) -> None:
    """Other variables, another window, another first outcome, and a shared stay are one line each."""
    first, second = make_cohort(12, 4, seed=1), make_cohort(9, 3, seed=2)
    degrees = replace(second, variables=(*second.variables[:2], Variable("pH", "2")))
    values_NTD = second.values_NTD.copy()
    values_NTD[4] = first.values_NTD[7]
    for changed, message in (
        (degrees, r"there has other variables or units than here \(pH\)"),
        (replace(second, bin_hours=2), "there has 8 hours .* and here has 4 hours"),
        (replace(second, outcome="readmission"), "first outcome of there is readmission and that of here is in_hosp"),
        (replace(second, values_NTD=values_NTD), "1 of the 9 stays of there are in here too"),
    ):
        with pytest.raises(UserError, match=message):
            join_cohorts({"here": first, "there": changed}, "both")
