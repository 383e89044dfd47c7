import numpy as np
import pytest

from imputune.artifacts.checkpoints import Checkpoints
from imputune.artifacts.stage_output import TrainedFold

ABOUT = {"cohort_hash": "a", "params": {"finetune": {"dropout": 0.3}}}


def fold(number: int) -> TrainedFold:
    """Return a fold with a weight of its own."""
    return TrainedFold(
        number, {"head.bias": np.full(2, number, np.float32)}, {"test_auc": 0.5}, 1, 2.0, [{"loss": 1.0}]
    )


def test_saved_folds_are_there_for_the_next_try(tmp_path) -> None:
    """What one try saved, the next one on the same data and settings loads, and the run it was tracked by."""
    first = Checkpoints(tmp_path / "cell", ABOUT)
    assert (first.begin(), first.run_id) == ({}, None)
    first.save(fold(2))
    first.save(fold(0))
    first.run_id = "run7"
    second = Checkpoints(tmp_path / "cell", dict(ABOUT))
    assert second.run_id == "run7"
    loaded = second.begin()
    assert sorted(loaded) == [0, 2]
    assert loaded[2].weights["head.bias"].tolist() == [2, 2]
    assert loaded[2].history == [{"loss": 1.0}]


def begun(folder, about=ABOUT) -> Checkpoints:
    """Return checkpoints that were begun."""
    checkpoints = Checkpoints(folder, about)
    checkpoints.begin()
    return checkpoints


@pytest.mark.parametrize("other", [{"cohort_hash": "b"}, {"params": {"finetune": {"dropout": 0.2}}}])
def test_folds_of_other_data_or_settings_are_thrown_away(tmp_path, other) -> None:
    """A try on other data or settings starts with nothing; looking at them throws nothing away."""
    begun(tmp_path / "cell").save(fold(0))
    assert not Checkpoints(tmp_path / "cell", ABOUT | other).is_ours
    assert sorted(Checkpoints(tmp_path / "cell", ABOUT).begin()) == [0]
    assert Checkpoints(tmp_path / "cell", ABOUT | other).begin() == {}
    assert Checkpoints(tmp_path / "cell", ABOUT).begin() == {}


@pytest.mark.parametrize("broken", ["result.json", "fold-0.safetensors"])
def test_a_broken_fold_counts_as_missing(tmp_path, broken) -> None:
    """A fold whose file was cut in half is thrown away, the others stay; so is what a killed writer left."""
    checkpoints = begun(tmp_path / "cell")
    checkpoints.save(fold(0))
    checkpoints.save(fold(1))
    (tmp_path / "cell" / ".fold-2.abc.new").mkdir()
    path = tmp_path / "cell" / "fold-0" / broken
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert sorted(Checkpoints(tmp_path / "cell", ABOUT).begin()) == [1]
    assert sorted(path.name for path in (tmp_path / "cell").iterdir()) == ["about.json", "fold-1"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}'])
def test_an_unreadable_note_of_the_run_is_none(tmp_path, text) -> None:
    """A note cut short by a kill, or something else in its place, names no run and is no error."""
    checkpoints = begun(tmp_path / "cell")
    checkpoints.run_id = "run7"
    assert checkpoints.run_id == "run7"
    (tmp_path / "cell" / "run.json").write_text(text)
    assert checkpoints.run_id is None


def test_removed_checkpoints_leave_nothing(tmp_path) -> None:
    """A complete cell's folder is gone."""
    checkpoints = begun(tmp_path / "cell")
    checkpoints.save(fold(0))
    checkpoints.remove()
    assert list(tmp_path.iterdir()) == []
