from collections.abc import Callable

import pytest

from imputune.runtime.epoch_lines import EpochLines, LineRecorder, TrainingPlan
from imputune.runtime.recorder import SilentRecorder, Trial


class Clock:
    """A clock that stands until it is set forward."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A fresh clock."""
    return Clock()


@pytest.fixture
def said() -> list[str]:
    """The lines that were said."""
    return []


@pytest.fixture
def make(clock: Clock, said: list[str]) -> Callable[..., LineRecorder]:
    """Make a recorder of a plan whose lines go to `said`."""

    def make(seconds: float = 10.0, beyond: Callable[[], str] | None = None, **plan: object) -> LineRecorder:
        lines = EpochLines(said.append, seconds, clock)
        return LineRecorder(SilentRecorder(), lines, TrainingPlan(**{"label": "csai", **plan}), beyond=beyond)

    return make


def test_a_line_has_fold_epoch_loss_auc_and_time_left(make, clock, said):
    """Twelve seconds an epoch: 58 epochs at most of this fold are 11.6 minutes."""
    recorder = make(epochs=60, may_stop_early=True, beyond=lambda: "3 of 15 folds done, about 2 min left")
    for epoch in range(2):
        clock.now += 12
        recorder.epoch(2, epoch, {"train_loss": 0.5, "train_auc": 0.7, "validation_loss": 0.6, "validation_auc": 0.812})
    assert said == [
        "csai fold 2: epoch 1 of at most 60, training loss 0.5000, validation AUC 0.8120, time left not known yet | "
        "3 of 15 folds done, about 2 min left",
        "csai fold 2: epoch 2 of at most 60, training loss 0.5000, validation AUC 0.8120, at most 12 min left of this "
        "fold | 3 of 15 folds done, about 2 min left",
    ]


def test_a_line_is_said_every_ten_seconds_at_most(make, clock, said):
    """Epochs of 3 seconds: those that end 12, 24 and 36 seconds after the start have a line."""
    recorder = make(epochs=20)
    for epoch in range(13):
        clock.now += 3
        recorder.epoch(0, epoch, {"train_loss": 1.0})
    assert [line.split(",")[0] for line in said] == [f"csai fold 0: epoch {epoch} of 20" for epoch in (4, 8, 12)]


def test_a_short_command_says_nothing_of_its_epochs(make, clock, said):
    """The first line comes after ten seconds."""
    recorder = make(epochs=3)
    for epoch in range(3):
        clock.now += 3
        recorder.epoch(0, epoch, {"train_loss": 1.0})
    assert said == []


def test_folds_side_by_side_take_turns(make, clock, said):
    """The fold that always reports second would never have a line if the report after ten seconds alone counted."""
    recorder = make(epochs=20, folds=2, workers=2)
    for epoch in range(4):
        clock.now += 11
        for fold in (0, 1):
            recorder.epoch(fold, epoch, {"train_loss": 1.0})
    assert [line.partition(":")[0] for line in said] == [f"csai fold {fold}" for fold in (0, 1, 0, 1)]


def test_a_verbose_command_has_a_line_for_every_epoch(make, said):
    """Without a second between them, each of two folds' epochs has its line."""
    recorder = make(seconds=0, epochs=2, folds=2)
    for epoch in range(2):
        for fold in (0, 1):
            recorder.epoch(fold, epoch, {"train_loss": 1.0})
    assert len(said) == 4


def test_the_time_left_is_that_of_all_folds(make, clock, said):
    """Two workers take 85 seconds for 34 of 40 epochs of 5 seconds each; when one fold is left, one worker is idle."""
    recorder = make(epochs=10, folds=4, workers=2)
    for epoch in range(3):
        clock.now += 5
        for fold in (0, 1):
            recorder.epoch(fold, epoch, {"train_loss": 1.0, "validation_mae": 0.25})
    assert recorder.seconds_left == 85
    assert said[-1].endswith("epoch 2 of 10, training loss 1.0000, validation MAE 0.2500, about 2 min left")
    recorder.fold_finished(0, {})
    assert recorder.seconds_left == (40 - 10 - 3) * 5 / 2
    for fold in (1, 2):
        recorder.fold_finished(fold, {})
    assert recorder.seconds_left == 10 * 5


def test_a_finished_fold_has_no_line_any_more(make, clock, said):
    """Its last epoch waited for its turn when it ended."""
    recorder = make(epochs=5, folds=2, workers=2)
    recorder.epoch(0, 4, {"train_loss": 1.0})
    recorder.fold_finished(0, {})
    clock.now += 11
    recorder.epoch(1, 0, {"train_loss": 1.0})
    assert [line.partition(":")[0] for line in said] == ["csai fold 1"]


def test_a_search_has_lines_of_its_trials(make, clock, said):
    """Number, learning rate, loss, and how the trial ended."""
    recorder = make(epochs=5)
    clock.now += 11
    recorder.trial_finished(
        0, Trial(number=3, learning_rate=0.00123, state="pruned", validation_loss=0.41235, curve=[])
    )
    assert said == ["csai fold 0: trial 4, learning rate 0.0012, validation loss 0.4123, pruned"]


def test_every_report_is_passed_on(recorder, clock):
    """What is said takes nothing away from the recorder of the run."""
    lines = LineRecorder(recorder, EpochLines(lambda line: None, 10, clock), TrainingPlan(label="csai", epochs=2))
    trial = Trial(number=0, learning_rate=0.1, state="complete", validation_loss=0.5, curve=[])
    lines.trial_finished(1, trial)
    lines.epoch(1, 0, {"train_loss": 1.0})
    lines.fold_finished(1, {"test_auc": 0.8})
    assert (recorder.trials, recorder.epochs) == ([(1, trial)], [(1, 0, {"train_loss": 1.0})])
    assert recorder.finished == [(1, {"test_auc": 0.8})]
