import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imputune.data.cohort import Cohort
from imputune.data.folds import draw_folds, read_folds, write_folds
from imputune.errors import UserError

MakeCohort = Callable[..., Cohort]
SPLITS = ("train", "validation", "test")
SIZES = [(40, 5, 5), (103, 17, 5), (333, 41, 5), (50, 45, 5), (31, 9, 3), (10, 5, 5)]


@pytest.mark.parametrize(("stays", "deaths", "count"), SIZES)
def test_every_stay_stands_in_one_part_of_each_fold(
    make_cohort: MakeCohort, stays: int, deaths: int, count: int
) -> None:
    """No stay stands in two splits of a fold, none is left out, and positions ascend."""
    folds = draw_folds(make_cohort(stays, deaths), count, seed=2012)
    assert [fold.number for fold in folds] == list(range(count))
    for fold in folds:
        positions = [getattr(fold, split) for split in SPLITS]
        assert np.sort(np.concatenate(positions)).tolist() == list(range(stays))
        assert all((np.diff(split) > 0).all() for split in positions)


@pytest.mark.parametrize(("stays", "deaths", "count"), SIZES)
def test_every_stay_is_tested_once(make_cohort: MakeCohort, stays: int, deaths: int, count: int) -> None:
    """Over the folds each stay is in exactly one test split, and in exactly one validation split."""
    folds = draw_folds(make_cohort(stays, deaths), count, seed=2012)
    for split in ("test", "validation"):
        assert np.sort(np.concatenate([getattr(fold, split) for fold in folds])).tolist() == list(range(stays))


def test_validation_is_the_next_folds_test(make_cohort: MakeCohort) -> None:
    """Validation of fold k is the test split of fold k + 1, and that of the last fold the first's."""
    folds = draw_folds(make_cohort(60, 12), 5, seed=0)
    for fold, following in zip(folds, folds[1:] + folds[:1], strict=True):
        assert fold.validation.tolist() == following.test.tolist()


@pytest.mark.parametrize(("stays", "deaths", "count"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2012])
def test_parts_are_stratified(make_cohort: MakeCohort, stays: int, deaths: int, count: int, seed: int) -> None:
    """Each test split has its share of stays and of deaths, within one."""
    cohort = make_cohort(stays, deaths)
    for fold in draw_folds(cohort, count, seed):
        assert abs(len(fold.test) - stays / count) <= 1
        assert abs(int(cohort.outcome_N[fold.test].sum()) - deaths / count) < 1
        assert cohort.outcome_N[fold.test].sum() >= 1


def test_same_seed_same_folds(make_cohort: MakeCohort) -> None:
    """A seed fixes the folds, another seed draws others, and the order of stays does not decide them."""
    cohort = make_cohort(60, 12)
    first, again, other = (draw_folds(cohort, 5, seed)[0].test.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first != list(range(12))


@pytest.mark.parametrize(
    ("stays", "deaths", "what"), [(4, 2, "4 stays"), (30, 4, "4 deaths"), (30, 27, "3 survivors"), (30, 0, "0 deaths")]
)
def test_too_few_for_the_folds(make_cohort: MakeCohort, stays: int, deaths: int, what: str) -> None:
    """Fewer stays, deaths or survivors than folds is one line with the count and the remedy."""
    with pytest.raises(UserError) as caught:
        draw_folds(make_cohort(stays, deaths), 5, seed=0)
    assert str(caught.value) == (
        f"cohort synthetic has {what}, too few for 5 folds: extract more records, or lower folds.count in params.yaml"
    )


def test_read_returns_what_was_written(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """Folds come back from their file as the positions they were, which the file names by stay id."""
    cohort, path = make_cohort(40, 9), tmp_path / "artifacts" / "folds.json"
    folds = draw_folds(cohort, 5, seed=3)
    write_folds(folds, cohort, "abc", path)
    read = read_folds(path, cohort, "abc", 5, 3)
    assert [fold.number for fold in read] == [0, 1, 2, 3, 4]
    for written, back in zip(folds, read, strict=True):
        for split in SPLITS:
            assert getattr(back, split).tolist() == getattr(written, split).tolist()
    content = json.loads(path.read_text())
    assert content["folds"][0]["test"] == cohort.stay_ids_N[folds[0].test].tolist()


def test_same_folds_same_bytes(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """Drawing and writing twice gives one file's bytes."""
    cohort = make_cohort(40, 9)
    for name in ("first", "second"):
        write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_folds_of_other_data_are_refused(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """Folds drawn for other data are one line that names the command to draw them anew."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    with pytest.raises(UserError, match=r"divides other data than data/synthetic .* run `imputune folds synthetic`"):
        read_folds(path, cohort, "abd", 5, 3)


def test_missing_folds_name_the_command(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """No file is one line that names the command to draw folds."""
    with pytest.raises(UserError, match=r"no folds for synthetic .* is missing\): run `imputune folds synthetic`"):
        read_folds(tmp_path / "folds.json", make_cohort(40, 9), "abc", 5, 3)


@pytest.mark.parametrize(("count", "seed"), [(5, 4), (4, 3)])
def test_folds_drawn_otherwise_are_refused(make_cohort: MakeCohort, tmp_path: Path, count: int, seed: int) -> None:
    """Folds of another seed or count than params.yaml now has are one line with the command to draw them anew."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    with pytest.raises(
        UserError, match=r"another seed or folds\.count than params\.yaml .* run `imputune folds synthetic`"
    ):
        read_folds(path, cohort, "abc", count, seed)


def test_one_stay_moved_between_parts_is_refused(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """A file in which a test stay was put among the training stays is not taken for the drawn folds."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    content = json.loads(path.read_text())
    fold = content["folds"][0]
    fold["train"] = sorted([*fold["train"], fold["test"].pop()])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was drawn with another seed"):
        read_folds(path, cohort, "abc", 5, 3)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cohort_hash": "abc"}', '{"cohort_hash": "abc", "folds": [{"train": [100]}]}', "half"]
)
def test_a_broken_folds_file_is_refused(make_cohort: MakeCohort, tmp_path: Path, text: str) -> None:
    """An empty file, one cut in half, and JSON without the folds' keys are one line with the command."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    path.write_text(path.read_text()[: path.stat().st_size // 2] if text == "half" else text)
    with pytest.raises(UserError, match=r"folds\.json is broken: run `imputune folds synthetic`"):
        read_folds(path, cohort, "abc", 5, 3)
