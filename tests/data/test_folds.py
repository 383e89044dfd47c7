import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imputune.data.cohort import Cohort
from imputune.data.folds import draw_folds, read_folds, write_folds
from imputune.errors import UserError
from imputune.settings.fold_sections import Folds

MakeCohort = Callable[..., Cohort]
SPLITS = ("train", "validation", "test")
SIZES = [(40, 5, 5), (103, 17, 5), (333, 41, 5), (50, 45, 5), (31, 9, 3), (10, 5, 5)]


@pytest.mark.parametrize(("stays", "deaths", "count"), SIZES)
def test_every_stay_is_in_one_split_of_each_fold(make_cohort: MakeCohort, stays: int, deaths: int, count: int) -> None:
    """No stay is in two splits of a fold, none is left out, and rows ascend."""
    folds = draw_folds(make_cohort(stays, deaths), count, seed=2012)
    assert [fold.number for fold in folds] == list(range(count))
    for fold in folds:
        rows = [getattr(fold, split) for split in SPLITS]
        assert np.sort(np.concatenate(rows)).tolist() == list(range(stays))
        assert all((np.diff(split) > 0).all() for split in rows)


@pytest.mark.parametrize(("stays", "deaths", "count"), SIZES)
def test_every_stay_is_tested_once(make_cohort: MakeCohort, stays: int, deaths: int, count: int) -> None:
    """Over all folds, each stay is in exactly one test split and in exactly one validation split."""
    folds = draw_folds(make_cohort(stays, deaths), count, seed=2012)
    for split in ("test", "validation"):
        assert np.sort(np.concatenate([getattr(fold, split) for fold in folds])).tolist() == list(range(stays))


def test_validation_is_the_next_folds_test(make_cohort: MakeCohort) -> None:
    """The validation split of fold k is the test split of fold k + 1; for the last fold, that of the first."""
    folds = draw_folds(make_cohort(60, 12), 5, seed=0)
    for fold, following in zip(folds, folds[1:] + folds[:1], strict=True):
        assert fold.validation.tolist() == following.test.tolist()


@pytest.mark.parametrize(("stays", "deaths", "count"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2012])
def test_test_splits_are_stratified(make_cohort: MakeCohort, stays: int, deaths: int, count: int, seed: int) -> None:
    """Each test split has its proportion of stays and of deaths, to within one."""
    cohort = make_cohort(stays, deaths)
    for fold in draw_folds(cohort, count, seed):
        assert abs(len(fold.test) - stays / count) <= 1
        assert abs(int(cohort.outcome_N[fold.test].sum()) - deaths / count) < 1
        assert cohort.outcome_N[fold.test].sum() >= 1


def test_same_seed_same_folds(make_cohort: MakeCohort) -> None:
    """The same seed gives the same folds, another seed others, and folds do not follow the order of stays."""
    cohort = make_cohort(60, 12)
    first, again, other = (draw_folds(cohort, 5, seed)[0].test.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first != list(range(12))


@pytest.mark.parametrize(
    ("stays", "deaths", "what"),
    [(4, 2, "4 stays"), (30, 4, "4 deaths"), (30, 27, "3 survivors"), (30, 0, "0 deaths"), (30, 1, "1 death")],
)
def test_too_few_for_the_folds(make_cohort: MakeCohort, stays: int, deaths: int, what: str) -> None:
    """Fewer stays, deaths or survivors than folds is a one-line error with the count and the remedy."""
    with pytest.raises(UserError) as caught:
        draw_folds(make_cohort(stays, deaths), 5, seed=0)
    assert str(caught.value) == (
        f"cohort synthetic has {what}, too few for 5 folds: extract more records, or lower folds.count in params.yaml"
    )


def test_read_returns_what_was_written(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """Folds read from their file have the same rows; the file has stay ids."""
    cohort, path = make_cohort(40, 9), tmp_path / "artifacts" / "folds.json"
    folds = draw_folds(cohort, 5, seed=3)
    write_folds(folds, cohort, "abc", path)
    read = read_folds(path, cohort, "abc", Folds(count=5), 3)
    assert [fold.number for fold in read] == [0, 1, 2, 3, 4]
    for written, back in zip(folds, read, strict=True):
        for split in SPLITS:
            assert getattr(back, split).tolist() == getattr(written, split).tolist()
    content = json.loads(path.read_text())
    assert content["folds"][0]["test"] == cohort.stay_ids_N[folds[0].test].tolist()


def test_same_folds_same_bytes(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """Drawing and writing twice gives the same bytes."""
    cohort = make_cohort(40, 9)
    for name in ("first", "second"):
        write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_folds_of_other_data_are_refused(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """Folds of other data are a one-line error with the command that draws them again."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    with pytest.raises(UserError, match=r"divides other data than data/synthetic .* run `imputune folds synthetic`"):
        read_folds(path, cohort, "abd", Folds(count=5), 3)


def test_missing_folds_name_the_command(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """A missing file is a one-line error with the command that draws folds."""
    with pytest.raises(UserError, match=r"no folds for synthetic .* is missing\): run `imputune folds synthetic`"):
        read_folds(tmp_path / "folds.json", make_cohort(40, 9), "abc", Folds(count=5), 3)


@pytest.mark.parametrize(("count", "seed"), [(5, 4), (4, 3)])
def test_folds_of_another_seed_or_count_are_refused(
    make_cohort: MakeCohort, tmp_path: Path, count: int, seed: int
) -> None:
    """Folds of another seed or count than in params.yaml are a one-line error with the command to draw them again."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    with pytest.raises(
        UserError, match=r"another seed or folds\.count than params\.yaml .* run `imputune folds synthetic`"
    ):
        read_folds(path, cohort, "abc", Folds(count=count), seed)


def test_one_stay_moved_between_splits_is_refused(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """A file in which a test stay was moved to the training stays is refused."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    content = json.loads(path.read_text())
    fold = content["folds"][0]
    fold["train"] = sorted([*fold["train"], fold["test"].pop()])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was drawn with another seed"):
        read_folds(path, cohort, "abc", Folds(count=5), 3)


def test_folds_are_drawn_again_only_when_something_changed(
    make_cohort: MakeCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found equal is read without drawing; another seed, setting, file or a spoilt note is compared anew."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    first = read_folds(path, cohort, "abc", Folds(count=5), 3)
    drawn: list[int] = []
    monkeypatch.setattr("imputune.data.folds.draw_folds", lambda *given: drawn.append(given[2]) or draw_folds(*given))
    again = read_folds(path, cohort, "abc", Folds(count=5), 3)
    assert drawn == []
    assert [fold.test.tolist() for fold in again] == [fold.test.tolist() for fold in first]
    for seed, count in ((4, 5), (3, 4)):
        with pytest.raises(UserError, match=r"another seed or folds\.count"):
            read_folds(path, cohort, "abc", Folds(count=count), seed)
    (tmp_path / "folds.checked").write_bytes(b"\xff")
    read_folds(path, cohort, "abc", Folds(count=5), 3)
    content = json.loads(path.read_text())
    content["folds"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"another seed or folds\.count"):
        read_folds(path, cohort, "abc", Folds(count=5), 3)
    assert drawn == [4, 3, 3, 3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"cohort_hash": "abc"}',
        '{"dataset": "a", "cohort_hash": "abc"}',
        '{"dataset": "a", "cohort_hash": "abc", "folds": [{"train": [100]}]}',
        "half",
    ],
)
def test_a_broken_folds_file_is_refused(make_cohort: MakeCohort, tmp_path: Path, text: str) -> None:
    """An empty or cut file, and JSON without the keys of the folds, are a one-line error with the command."""
    cohort, path = make_cohort(40, 9), tmp_path / "folds.json"
    write_folds(draw_folds(cohort, 5, seed=3), cohort, "abc", path)
    path.write_text(path.read_text()[: path.stat().st_size // 2] if text == "half" else text)
    with pytest.raises(UserError, match=r"folds\.json is broken: run `imputune folds synthetic`"):
        read_folds(path, cohort, "abc", Folds(count=5), 3)
