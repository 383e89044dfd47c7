"""The engine of one machine: worker processes, forked from one that has loaded their modules."""

import logging
import math
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Lock
from typing import Any

from imputune import signals
from imputune.errors import UserError
from imputune.runtime.environment import environment
from imputune.runtime.forkserver import COMMAND
from imputune.runtime.recorder import Recorder, Trial
from imputune.runtime.tasks import Result, Task, in_turn
from imputune.runtime.threads import environment_of_workers, use_one_thread
from imputune.settings.names import DeviceName

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.2
DEAD_SECONDS = 2.0  # how long a worker may be dead before its pool is taken for broken
LONGEST_FOLDER = 75  # bytes: the path of a socket has at most 107, and Python adds 32
QUIET = "ignore:resource_tracker"  # no warning when it removes what a command that ended at once left behind
PRELOADED = ["imputune.runtime.forkserver", "imputune.training.non_neural", "imputune.training.pretrain"]

_Pending = dict[int, tuple[Task[Any], Future[Any]]]
"""The tasks that workers are doing, by number."""


class _Forwarder:
    """A worker's recorder: sends every report to the parent process, which has the real recorders.

    A worker sends its reports before its result, so the parent can pass on all of them before it takes the result.
    """

    def __init__(self, events: Connection, lock: Lock) -> None:
        self.events, self.lock = events, lock
        self.task = -1

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self._send("epoch", fold, epoch, dict(metrics))

    def trial_finished(self, fold: int, trial: Trial) -> None:
        self._send("trial_finished", fold, trial)

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("a worker returns a fold's final metrics; the parent process records them")

    def _send(self, method: str, *arguments: Any) -> None:
        with self.lock:
            self.events.send((self.task, method, arguments))


_forwarder: _Forwarder


def _start_worker(events: Connection, lock: Lock) -> None:
    global _forwarder
    _forwarder = _Forwarder(events, lock)
    for number in signals.STOPS:
        signal.signal(number, signal.SIG_IGN)  # the worker ends with its command
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()


def _end_with_parent() -> None:
    """End this process when the parent process has ended, for whatever reason: nobody would take the result."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_in_worker(task: int, work: Callable[[Any, Recorder], Result], pickled_job: bytes) -> Result:
    """Unpickle the job here, so that an error in it is an error of the fold; in the pool it would break the worker."""
    _forwarder.task = task
    return work(pickle.loads(pickled_job), _forwarder)  # noqa: S301 (this command's own process wrote it)


def start_preloading() -> None:
    """Start the process that workers are forked from; it imports their modules while this process imports its own.

    Workers of later commands in this process come from it too. Raises UserError for a folder of temporary files whose
    path is too long for the socket between the processes.
    """
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        raise UserError(
            f"the folder of temporary files, {tempfile.gettempdir()}, has a path of over {LONGEST_FOLDER} bytes: set "
            "TMPDIR to a shorter one"
        )
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPS)  # new processes inherit what is blocked
    try:
        with environment({"PYTHONWARNINGS": QUIET}):
            resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPS)  # the line before unblocks two of them
        with environment_of_workers(), environment({COMMAND: str(os.getpid())}):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LocalPool:
    """Worker processes of this machine, `at_once` of them; see `Engine`."""

    def __init__(self, workers: int) -> None:
        self.at_once = workers

    def device(self, name: DeviceName) -> DeviceName:
        """Return the device of this machine; see `Engine.device`."""
        from imputune.runtime.device import choose_device  # PyTorch takes long to load

        return "cuda" if choose_device(name).type == "cuda" else "cpu"

    def run(self, tasks: Iterator[Task[Any] | None]) -> None:
        """Do tasks; see `Engine.run`."""
        context = multiprocessing.get_context("forkserver")
        start_preloading()
        reader, writer = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(self.at_once, context, _start_worker, (writer, context.Lock()))
        pending: _Pending = {}
        started, dead_since = 0, math.inf
        try:
            for task in in_turn(tasks, pending, lambda: self.at_once):
                if task is not None:
                    logger.debug("task %d starts: %s, %d at a time", started, task.work.__name__, self.at_once)
                    pending[started] = task, _submit(pool, started, task)
                    started += 1
                    continue
                _pass_on_reports(reader, pending, POLL_SECONDS)
                _take_results(reader, pending)
                dead_since = _break_if_dead(pool, dead_since)
                signals.check()
        except BrokenProcessPool:
            raise UserError(
                "the system killed a worker process, most often for lack of memory: lower workers in params.yaml"
            ) from None
        finally:
            for process in multiprocessing.active_children():
                process.kill()  # they do not hear SIGTERM
            _drop_unread_tasks(pool)
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, number: int, task: Task[Result]) -> Future[Result]:
    # A plain pickle holds a tensor's numbers; a pickle of multiprocessing would hold two open files for each tensor.
    return pool.submit(_work_in_worker, number, task.work, pickle.dumps(task.job))


def _break_if_dead(pool: ProcessPoolExecutor, dead_since: float) -> float:
    """Break a pool that has had a dead worker for two seconds without noticing; return since when it has one.

    A worker that dies while it writes a result leaves the pool waiting for the rest of it, because this process holds
    the writing end of the pipe too. The pool notices once all writing ends are closed.
    """
    processes = list((pool._processes or {}).values())
    if all(process.is_alive() for process in processes):
        return math.inf
    dead_since = min(dead_since, time.monotonic())
    if time.monotonic() - dead_since >= DEAD_SECONDS:
        for process in processes:
            process.kill()
        pool._result_queue._writer.close()  # type: ignore[attr-defined]  # the library has no public way
    return dead_since


def _drop_unread_tasks(pool: ProcessPoolExecutor) -> None:
    """Close the reading end of the pipe of tasks, so that a task that no worker read does not hold up the pool's end.

    The pool's thread waits until a task is written, and a task is larger than the pipe. It waits for ever if the worker
    was killed before it read the task, because this process holds the reading end too. Python 3.11.7 closes it itself
    where a worker died, 3.11.2 does not (github.com/python/cpython/issues/94777).
    """
    pool._call_queue._reader.close()  # type: ignore[attr-defined]  # the library has no public way


def _pass_on_reports(reader: Connection, pending: _Pending, seconds: float) -> None:
    """Pass on the workers' reports to the recorders of their tasks, waiting this long for the first."""
    while reader.poll(seconds):
        number, method, arguments = reader.recv()
        getattr(pending[number][0].recorder, method)(*arguments)
        seconds = 0.0


def _take_results(reader: Connection, pending: _Pending) -> None:
    """Take the results of the tasks that have ended, each after the last of its reports."""
    for number in [number for number, (_, future) in pending.items() if future.done()]:
        task, future = pending[number]
        result = future.result()
        _pass_on_reports(reader, pending, 0.0)
        del pending[number]
        logger.debug("task %d is done: fold %d", number, result.fold)
        task.finish(result)
