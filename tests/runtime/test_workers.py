import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from imputune.cli.options import TrainingOptions
from imputune.data.cohort import (
    Cohort,
    Variable,
    read_cohort,
    write_cohort,
)
from imputune.errors import UserError
from imputune.runtime import workers
from imputune.runtime.recorder import Recorder, Trial
from imputune.runtime.workers import LocalPool, Task, run_fold_jobs, start_preloading


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


def fail_in_fold_1(job: tuple[int, Path], recorder: Recorder) -> Done:
    """Fail in one fold while the other takes a minute and then leaves a file."""
    fold, ended = job
    if fold == 1:
        raise ValueError("fold 1 broke")
    time.sleep(60)
    ended.touch()
    return Done(fold, {})


def killed_by_the_system(fold: int, recorder: Recorder) -> Done:
    """End as a process that ran out of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)
    return Done(fold, {})


def killed_while_it_writes_fold_0(fold: int, recorder: Recorder) -> Done:
    """Send the beginning of a long result and die; the other fold takes a minute."""
    if fold == 1:
        time.sleep(60)

    def send_the_beginning(self: Connection, content: bytes) -> None:
        os.write(self.fileno(), bytes(content)[:1000])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = send_the_beginning
    return Done(fold, {str(number): 0.0 for number in range(10_000)})


def count_stays(cohort: Cohort, recorder: Recorder) -> Done:
    """Read the cohort."""
    return Done(0, {"stays": len(cohort.values_NTD)})


def multiply_small_numbers(exponent: int, recorder: Recorder) -> Done:
    """Multiply two numbers whose product is a denormal number in single precision."""
    product = torch.full((64,), 10.0**exponent) * 1e-9
    return Done(0, {"largest": product.max().item(), "threads": torch.get_num_threads()})


def die_at_start(*started_with: object) -> None:
    """Die as a process that the system kills, before any task is read."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_every_event_is_recorded(recorder, workers):
    """All epochs and final scores reach the recorder, whatever the number of workers."""
    results = run_fold_jobs(two_epochs, [0, 1, 2], recorder, LocalPool(workers))
    assert [result.fold for result in results] == [0, 1, 2]
    expected = [(fold, epoch, {"loss": fold + epoch / 10}) for fold in range(3) for epoch in range(2)]
    assert sorted(recorder.epochs, key=lambda event: event[:2]) == expected
    assert sorted(recorder.finished, key=lambda event: event[0]) == [(fold, {"auc": fold / 10}) for fold in range(3)]


def test_error_in_one_fold_ends_the_others(recorder, tmp_path):
    """The fold's own error is raised, and no worker is left or was waited for."""
    ended = tmp_path / "ended"
    with pytest.raises(ValueError, match="fold 1 broke"):
        run_fold_jobs(fail_in_fold_1, [(0, ended), (1, ended)], recorder, LocalPool(2))
    assert not multiprocessing.active_children()
    assert not ended.exists()
    assert not recorder.finished


def test_a_worker_that_dies_while_it_writes_a_result_is_the_same_error(recorder):
    """The command does not wait for the rest of the result."""
    start = time.monotonic()
    with pytest.raises(UserError, match="the system killed a worker process"):
        run_fold_jobs(killed_while_it_writes_fold_0, [0, 1], recorder, LocalPool(2))
    assert time.monotonic() - start < 30


def test_a_worker_that_dies_before_it_reads_its_task_is_the_same_error(recorder, monkeypatch):
    """The command does not wait until a task that is larger than the pipe is read."""
    monkeypatch.setattr("imputune.runtime.local_pool._start_worker", die_at_start)
    with pytest.raises(UserError, match="the system killed a worker process"):
        run_fold_jobs(two_epochs, [np.zeros(1_000_000)], recorder, LocalPool(1))


def test_killed_worker_is_a_clear_error(recorder):
    """If the system kills a worker, the command ends with one line and the usual remedy."""
    with pytest.raises(UserError, match=r"lower workers in params\.yaml"):
        run_fold_jobs(killed_by_the_system, [0], recorder, LocalPool(1))


def test_workers_have_one_thread_and_no_denormal_numbers(recorder):
    """A worker has one thread; it rounds a product below 1e-38 to 0, and leaves a larger one as it is."""
    for exponent, largest in ((-30, 0.0), (-20, 1e-29)):
        [done] = run_fold_jobs(multiply_small_numbers, [exponent], recorder, LocalPool(1))
        assert done.final_metrics == {"largest": pytest.approx(largest, rel=1e-5, abs=0), "threads": 1}


def test_values_changed_since_reading_are_named(recorder, tmp_path):
    """If values.npy changes after the command read it, the worker stops with that error."""
    cohort = Cohort(
        dataset="synthetic",
        stay_ids_N=np.arange(2),
        outcome_N=np.zeros(2, dtype=np.int8),
        values_NTD=np.zeros((2, 48, 1), dtype=np.float32),
        variables=(Variable("HR", "beats/min"),),
        static=pd.DataFrame(index=range(2)),
        source={"exclusions": {}},
    )
    write_cohort(cohort, tmp_path / "out")
    read = read_cohort(tmp_path / "out")
    [done] = run_fold_jobs(count_stays, [read], recorder, LocalPool(1))
    assert done.final_metrics == {"stays": 2}
    os.utime(tmp_path / "out" / "values.npy", ns=(0, 0))
    with pytest.raises(UserError, match=r"values\.npy has changed since the command began: start the command again"):
        run_fold_jobs(count_stays, [read], recorder, LocalPool(1))


def many_reports(fold: int, recorder: Recorder) -> Done:
    """Report much, the last of it right before the end."""
    for epoch in range(500):
        recorder.epoch(fold, epoch, {"loss": 0.5})
    curve = [{"validation_loss": 0.4}]
    trial = Trial(number=0, learning_rate=1e-4, state="pruned", validation_loss=0.4, curve=curve)
    recorder.trial_finished(fold, trial)
    return Done(fold, {})


def test_tasks_that_wait_for_others_run_after_them_and_report_to_their_own_recorder(recorder):
    """A task that the iterator gives after another is done runs after it; each recorder gets its own task's reports."""
    order, recorders = [], [recorder, type(recorder)()]

    def task(fold):
        return Task(
            work=two_epochs,
            job=fold,
            recorder=recorders[fold],
            done=lambda result: order.append(("done", result.fold)),
        )

    def tasks():
        yield task(0)
        while ("done", 0) not in order:
            yield None
        order.append("second")
        yield task(1)

    LocalPool(2).run(tasks())
    assert order == [("done", 0), "second", ("done", 1)]
    for fold, own in enumerate(recorders):
        assert {event[0] for event in own.epochs} == {fold}
        assert len(own.epochs) == 2
        assert own.finished == [(fold, {"auc": fold / 10})]


def test_every_report_comes_before_its_result(recorder):
    """However many reports a worker sends, the recorder gets all of them before the fold is finished."""

    class Strict(type(recorder)):
        def fold_finished(self, fold, metrics):
            assert len(self.epochs) == 500
            assert [trial.number for _, trial in self.trials] == [0]
            super().fold_finished(fold, metrics)

    strict = Strict()
    run_fold_jobs(many_reports, [0], strict, LocalPool(1))
    assert len(strict.finished) == 1


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from test_workers import sleep_long
from imputune.runtime.workers import LocalPool, run_fold_jobs
from imputune.runtime.recorder import SilentRecorder

class PrintingRecorder(SilentRecorder):
    def epoch(self, fold, epoch, metrics):
        print(int(metrics["pid"]), flush=True)

if __name__ == "__main__":
    run_fold_jobs(sleep_long, [sys.argv[2] + "/0", sys.argv[2] + "/1"], PrintingRecorder(), LocalPool(2))
"""


def sleep_long(ended: str, recorder: Recorder) -> Done:
    """Report the process, sleep for a minute, and leave a file."""
    recorder.epoch(0, 0, {"pid": os.getpid()})
    time.sleep(60)
    Path(ended).touch()
    return Done(0, {})


def alive(pid: int) -> bool:
    """Say whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_workers_end_with_a_command_that_is_killed(tmp_path):
    """After kill -9 of the command no worker goes on with its work: nobody would take its result."""
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    assert all(map(alive, workers))
    process.kill()
    process.wait()
    while any(map(alive, workers)):
        time.sleep(0.1)
    assert not (tmp_path / "0").exists()
    assert not (tmp_path / "1").exists()


INTERRUPTED_AT_ONCE = """
import os, signal, time
from imputune.runtime.workers import start_preloading
stops = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
for number in stops:
    signal.signal(number, lambda number, frame: None)
start_preloading()
time.sleep(0.5)  # until the new process runs Python
for _ in range(10):
    for number in stops:
        os.killpg(0, number)
    time.sleep(0.1)
start_preloading()  # says so if a process has ended
"""


@pytest.mark.slow
def test_a_stop_while_workers_modules_load_leaves_no_traceback():
    """Ctrl-C goes to all processes of a terminal; the process that loads the workers' modules ignores every stop."""
    words = [sys.executable, "-c", INTERRUPTED_AT_ONCE]
    done = subprocess.run(words, capture_output=True, text=True, start_new_session=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def hear_signals(fold: int, recorder: Recorder) -> Done:
    """Send every stop to this worker."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    return Done(fold, {})


def test_workers_do_not_hear_stops(recorder):
    """A signal to the process group stops the command, which ends its workers itself."""
    assert run_fold_jobs(hear_signals, [0], recorder, LocalPool(1)) == [Done(0, {})]


def test_ray_that_is_not_installed_is_one_line(make_params, monkeypatch):
    """The error names the command that installs it."""
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    message = (
        r"^engine ray needs Ray, which is not installed: run `pip install -e '\.\[ray\]'` in the project's folder$"
    )
    with pytest.raises(UserError, match=message), workers.chosen_engine(make_params(), "ray"):
        pass


def test_an_unknown_engine_is_named(make_params):
    """The error has the near miss."""
    with pytest.raises(UserError) as raised, TrainingOptions(engine="rya").chosen_engine(make_params()):
        pass
    assert str(raised.value) == "unknown engine 'rya' (did you mean 'ray'?): choose from local, ray"


def test_the_number_of_workers_may_be_chosen_for_a_command(make_params):
    """It is that of params.yaml, unless the command names another."""
    params = make_params().model_copy(update={"workers": 3})
    for wanted, expected in ((None, 3), (1, 1)):
        with TrainingOptions(workers=wanted).chosen_engine(params) as engine:
            assert (type(engine), engine.at_once) == (LocalPool, expected)


def test_a_long_path_of_temporary_files_is_named(monkeypatch):
    """Its sockets could not be made; the error says what to set."""
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 80 * "x")
    with pytest.raises(UserError, match=r"^the folder of temporary files, /tmp/x+, .*: set TMPDIR to a shorter one$"):
        start_preloading()
