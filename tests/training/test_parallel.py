import multiprocessing
import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from imputune.data.cohort import DESCRIPTORS, Cohort, Variable, read_cohort, write_cohort
from imputune.errors import UserError
from imputune.training.parallel import run_folds
from imputune.training.recorder import Recorder


@dataclass(frozen=True)
class Done:
    """A fold's result."""

    fold: int
    final_metrics: dict[str, float]


def two_epochs(fold: int, recorder: Recorder) -> Done:
    """Report two epochs and finish."""
    for epoch in range(2):
        recorder.epoch(fold, epoch, {"loss": fold + epoch / 10})
    return Done(fold, {"auc": fold / 10})


def fail_in_fold_1(fold: int, recorder: Recorder) -> Done:
    """Fail in one fold while the other would take a minute."""
    if fold == 1:
        raise ValueError("fold 1 broke")
    time.sleep(60)
    return Done(fold, {})


def killed_by_the_system(fold: int, recorder: Recorder) -> Done:
    """End as a process that ran out of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)
    return Done(fold, {})


def count_stays(cohort: Cohort, recorder: Recorder) -> Done:
    """Read the cohort."""
    return Done(0, {"stays": len(cohort.values_NTD)})


def multiply_small_numbers(exponent: int, recorder: Recorder) -> Done:
    """Multiply two numbers whose product single precision holds as a denormal alone."""
    product = torch.full((64,), 10.0**exponent) * 1e-9
    return Done(0, {"largest": product.max().item(), "threads": torch.get_num_threads()})


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_every_event_is_heard(heard, workers):
    """All epochs and final scores reach the recorder, whatever the number of workers."""
    results = run_folds(two_epochs, [0, 1, 2], heard, workers)
    assert [result.fold for result in results] == [0, 1, 2]
    expected = [(fold, epoch, {"loss": fold + epoch / 10}) for fold in range(3) for epoch in range(2)]
    assert sorted(heard.epochs, key=lambda event: event[:2]) == expected
    assert sorted(heard.finished, key=lambda event: event[0]) == [(fold, {"auc": fold / 10}) for fold in range(3)]


def test_error_in_one_fold_ends_the_others(heard):
    """The fold's own error is raised, within seconds, and no worker stays."""
    started = time.monotonic()
    with pytest.raises(ValueError, match="fold 1 broke"):
        run_folds(fail_in_fold_1, [0, 1], heard, 2)
    assert time.monotonic() - started < 30
    assert not multiprocessing.active_children()
    assert not heard.finished


def test_killed_worker_is_a_clear_error(heard):
    """A worker that the system kills is one line with the usual remedy, not a hang."""
    with pytest.raises(UserError, match=r"lower workers in params\.yaml"):
        run_folds(killed_by_the_system, [0], heard, 1)


def test_workers_are_settled(heard):
    """A worker has one thread, and takes a product under 1e-38 for 0, one above it for what it is."""
    for exponent, largest in ((-30, 0.0), (-20, 1e-29)):
        [done] = run_folds(multiply_small_numbers, [exponent], heard, 1)
        assert done.final_metrics == {"largest": pytest.approx(largest, rel=1e-5, abs=0), "threads": 1}


def test_values_changed_since_reading_are_named(heard, tmp_path):
    """A worker whose cohort's file is another than the command read stops with that as its error."""
    values_NTD = np.zeros((2, 48, 1), dtype=np.float32)
    descriptors = pd.DataFrame(np.zeros((2, len(DESCRIPTORS))), columns=DESCRIPTORS)
    variables, source = (Variable("HR", "beats/min"),), {"exclusions": {}}
    died_N = np.zeros(2, dtype=np.int8)
    write_cohort(
        Cohort("synthetic", np.arange(2), died_N, values_NTD, variables, descriptors, source), tmp_path / "out"
    )
    read = read_cohort(tmp_path / "out")
    [done] = run_folds(count_stays, [read], heard, 1)
    assert done.final_metrics == {"stays": 2}
    os.utime(tmp_path / "out" / "values.npy", ns=(0, 0))
    with pytest.raises(UserError, match=r"values\.npy has changed since the command began: start the command again"):
        run_folds(count_stays, [read], heard, 1)
