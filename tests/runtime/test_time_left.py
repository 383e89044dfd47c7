import pytest

from imputune.protocol.variants import make_variant
from imputune.runtime.time_left import TimeLeft, shown_duration

MLP2 = make_variant("mlp2", "frozen", "hidden", "cyclic")
MLP5 = make_variant("mlp5", "frozen", "hidden", "cyclic")
GRU = make_variant("gru", "frozen", "imputed", "cyclic")
SVM = make_variant("svm", "frozen", "hidden", "none")


def test_the_estimate_comes_from_finished_folds_of_similar_variants():
    """A variant's own folds count first, then those with its mode and schedule; a new kind has no known duration."""
    left = TimeLeft(workers=2)
    for fold in range(3):
        left.add(MLP2, fold)
    left.add(MLP5, 0)
    assert str(left) == "0 of 4 folds done, time left not known yet"
    left.took(GRU, 70.0)
    left.done(MLP2, 0, 10.0)
    assert left.seconds == pytest.approx((10 + 10 + 40) / 2)
    assert str(left) == "1 of 4 folds done, about 30 s left"
    left.add(SVM, 0)
    assert str(left) == "1 of 5 folds done, about 30 s left, and 1 fold of unknown duration"
    left.took(MLP2, 9_990.0)
    assert str(left) == "1 of 5 folds done, about 1 h 51 min left, and 1 fold of unknown duration"


def test_fewer_folds_than_workers_run_at_once():
    """One waiting fold of 90 s takes 90 s, however many workers there are; nothing waiting takes no time."""
    left = TimeLeft(workers=4)
    left.took(MLP2, 90.0)
    left.add(MLP2, 1)
    assert left.seconds == 90
    assert str(left) == "0 of 1 folds done, about 2 min left"
    left.done(MLP2, 1, 80.0)
    assert left.seconds == 0
    assert str(left) == "1 of 1 folds done, about 0 s left"


def test_what_a_fold_has_run_already_counts():
    """A fold that began 50 s ago and should take 90 s needs 40 s more; one that takes longer than expected, nothing."""
    now = [0.0]
    left = TimeLeft(workers=1, clock=lambda: now[0])
    left.took(MLP2, 90.0)
    left.add(MLP2, 1)
    left.start(MLP2, 1)
    now[0] = 50
    assert left.seconds == 40
    now[0] = 100
    assert str(left) == "0 of 1 folds done, about 0 s left"


def test_another_input_of_the_same_head_counts_before_other_heads():
    """A gru on raw series is expected to take as long as a gru on imputed series, not as an mlp2."""
    left = TimeLeft(workers=1)
    left.took(GRU, 70.0)
    left.took(MLP2, 10.0)
    left.add(make_variant("gru", "frozen", "raw", "cyclic"), 0)
    assert left.seconds == 70


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (75, "75 s"), (89.4, "89 s"), (100, "2 min"), (3600, "1 h 0 min"), (4800, "1 h 20 min")],
)
def test_short_durations_are_in_seconds(seconds, text):
    """Below 90 seconds, minutes would be too coarse: 31 and 89 seconds would look alike."""
    assert shown_duration(seconds) == text
