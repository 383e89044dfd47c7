import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from imputune.data.cohort import (
    DESCRIPTORS,
    Cohort,
    Variable,
    read_cohort,
    write_cohort,
)
from imputune.errors import UserError
from imputune.runtime.recorder import Recorder, Trial
from imputune.runtime.workers import Task, run_folds, run_tasks


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


def many_reports(fold: int, recorder: Recorder) -> Done:
    """Report much, the last of it right before the end."""
    for epoch in range(500):
        recorder.epoch(fold, epoch, {"loss": 0.5})
    recorder.trial_finished(fold, Trial(0, 1e-4, "pruned", 0.4, [{"validation_loss": 0.4}]))
    return Done(fold, {})


def test_tasks_that_wait_for_others_run_after_them_and_each_is_heard_by_its_own(heard):
    """A task given out when another is done comes after it; reports reach the recorder of their own task."""
    order, recorders = [], [heard, type(heard)()]

    def tasks():
        yield Task(two_epochs, 0, recorders[0], lambda result: order.append(("done", result.fold)))
        while ("done", 0) not in order:
            yield None
        order.append("second")
        yield Task(two_epochs, 1, recorders[1], lambda result: order.append(("done", result.fold)))

    run_tasks(tasks(), 2)
    assert order == [("done", 0), "second", ("done", 1)]
    for fold, recorder in enumerate(recorders):
        assert {event[0] for event in recorder.epochs} == {fold}
        assert len(recorder.epochs) == 2
        assert recorder.finished == [(fold, {"auc": fold / 10})]


def test_every_report_comes_before_its_result(heard):
    """However many reports a worker makes, all of them are heard before the fold is finished."""

    class Strict(type(heard)):
        def fold_finished(self, fold, metrics):
            assert len(self.epochs) == 500
            assert [trial.number for _, trial in self.trials] == [0]
            super().fold_finished(fold, metrics)

    recorder = Strict()
    run_folds(many_reports, [0], recorder, 1)
    assert len(recorder.finished) == 1


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from test_parallel import sleep_long
from imputune.runtime.workers import run_folds
from imputune.runtime.recorder import Unheard

class Telling(Unheard):
    def epoch(self, fold, epoch, metrics):
        print(int(metrics["pid"]), flush=True)

if __name__ == "__main__":
    run_folds(sleep_long, [0, 1], Telling(), 2)
"""


def sleep_long(fold: int, recorder: Recorder) -> Done:
    """Tell the process and sleep."""
    recorder.epoch(fold, 0, {"pid": os.getpid()})
    time.sleep(120)
    return Done(fold, {})


def alive(pid: int) -> bool:
    """Say whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_with_a_command_that_is_killed(tmp_path):
    """After kill -9 of the command no worker trains on: nobody would take its result."""
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    assert all(map(alive, workers))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


INTERRUPTED_AT_ONCE = """
import os, signal, time
from imputune.runtime.workers import start_preloading
signal.signal(signal.SIGINT, lambda number, frame: None)
start_preloading()
time.sleep(0.5)  # by when its Python runs
for _ in range(10):
    os.killpg(0, signal.SIGINT)
    time.sleep(0.1)
"""


def test_ctrl_c_while_workers_modules_load_leaves_no_traceback():
    """Ctrl-C goes to all processes of a terminal: the one that is loading for workers does not take it."""
    words = [sys.executable, "-c", INTERRUPTED_AT_ONCE]
    done = subprocess.run(words, capture_output=True, text=True, start_new_session=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
