import json

import pytest

from imputune.artifacts.checkpoints import Checkpoints, TrialKeeper, read_run_id
from imputune.runtime.recorder import Trial


@pytest.fixture
def begin(tmp_path, made_from):
    """Return checkpoints that were begun, for a description or the usual one."""

    def begun(description=made_from) -> Checkpoints:
        checkpoints = Checkpoints(tmp_path / "unfinished", description)
        checkpoints.begin()
        return checkpoints

    return begun


def test_saved_folds_are_there_for_the_next_command(tmp_path, made_from, make_fold) -> None:
    """A later command with the same data and settings loads the saved folds and the id of the run."""
    first = Checkpoints(tmp_path / "unfinished", made_from)
    assert (first.begin(), first.run_id) == ({}, None)
    first.save(make_fold(2, history=[{"loss": 1.0}]))
    first.save(make_fold(0))
    first.run_id = "run7"
    second = Checkpoints(tmp_path / "unfinished", made_from.model_copy())
    assert second.run_id == "run7"
    loaded = second.begin()
    assert sorted(loaded) == [0, 2]
    assert loaded[2].weights["imputer.bias"].tolist() == [2, 2]
    assert loaded[2].history == [{"loss": 1.0}]
    assert loaded[0].record == make_fold(0).record


@pytest.mark.parametrize("other", [{"cohort_hash": "data2"}, {"settings": {"csai": {"hidden_size": 9}, "seed": 7}}])
def test_folds_of_other_data_or_settings_are_removed(tmp_path, begin, made_from, make_fold, other) -> None:
    """Beginning with other data or settings removes the folds; a mere look at them does not."""
    begin().save(make_fold(0))
    changed = made_from.model_copy(update=other)
    assert not Checkpoints(tmp_path / "unfinished", changed).is_ours
    assert sorted(Checkpoints(tmp_path / "unfinished", made_from).begin()) == [0]
    assert Checkpoints(tmp_path / "unfinished", changed).begin() == {}
    assert Checkpoints(tmp_path / "unfinished", made_from).begin() == {}


def test_folds_of_an_earlier_version_are_kept(tmp_path, begin, made_from, make_fold) -> None:
    """A description without the keys that came later, or in another order, is the same one; a broken one is not."""
    begin().save(make_fold(0))
    path = tmp_path / "unfinished/made_from.json"
    content = json.loads(path.read_text())
    for key in ("members", "also", "imputer_run_id"):
        del content[key]
    path.write_text(json.dumps(dict(reversed(content.items())), indent=1))
    assert sorted(Checkpoints(tmp_path / "unfinished", made_from).begin()) == [0]
    path.write_text("{")
    assert Checkpoints(tmp_path / "unfinished", made_from).begin() == {}


@pytest.mark.parametrize("broken", ["result.json", "fold-0.safetensors"])
def test_a_broken_fold_counts_as_missing(tmp_path, begin, made_from, make_fold, broken) -> None:
    """A fold with a truncated file is removed, and so is the leftover of a killed command; other folds stay."""
    checkpoints = begin()
    checkpoints.save(make_fold(0))
    checkpoints.save(make_fold(1))
    folder = tmp_path / "unfinished"
    (folder / ".fold-2.abc.new").mkdir()
    path = folder / "fold-0" / broken
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert sorted(Checkpoints(folder, made_from).begin()) == [1]
    assert sorted(path.name for path in folder.iterdir()) == ["fold-1", "made_from.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}'])
def test_an_unreadable_run_id_is_none(tmp_path, begin, text) -> None:
    """A truncated file, or one with other content, names no run and is no error."""
    checkpoints = begin()
    checkpoints.run_id = "run7"
    assert checkpoints.run_id == "run7"
    (tmp_path / "unfinished" / "run.json").write_text(text)
    assert checkpoints.run_id is None
    assert read_run_id(tmp_path / "missing.json") is None


def test_removed_checkpoints_leave_nothing(tmp_path, begin, make_fold) -> None:
    """After `remove` the folder is gone."""
    checkpoints = begin()
    checkpoints.save(make_fold(0))
    checkpoints.remove()
    assert list(tmp_path.iterdir()) == []


def test_kept_trials_are_there_for_the_next_command(tmp_path, begin, recorder) -> None:
    """Trials are kept by fold, bit for bit, once each, and passed on; a broken line ends them."""
    curve = [{"validation_loss": 0.1 + 0.2, "validation_auc": float("nan")}]
    lost = Trial(number=1, learning_rate=1e-3, state="pruned", validation_loss=float("inf"), curve=[])
    trials = [Trial(number=0, learning_rate=1 / 3e4, state="complete", validation_loss=0.1 + 0.2, curve=curve), lost]
    keeper = TrialKeeper(recorder, begin())
    for trial in (*trials, *trials):
        keeper.trial_finished(2, trial)
    assert len(recorder.trials) == 4
    assert repr(begin().trials(2)) == repr(tuple(trials))
    assert begin().trials(0) == ()
    path = next((tmp_path / "unfinished").glob("trials-*"))
    path.write_text(path.read_text()[:-20])
    assert repr(begin().trials(2)) == repr(tuple(trials[:1]))
    keeper.trial_finished(2, lost)
    assert repr(begin().trials(2)) == repr(tuple(trials))
