"""Folds side by side, a process each, one thread each; results do not depend on how many run at once."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Lock
from typing import Any, Generic, Protocol, TypeVar

from imputune.errors import UserError
from imputune.runtime.recorder import Recorder, Trial

POLL_SECONDS = 0.2
PRELOADED = ["imputune.training.non_neural", "imputune.training.pretrain"]


class Finished(Protocol):
    """What a fold's work returns: at least its number and its final metrics."""

    @property
    def fold(self) -> int:
        """The fold's number."""

    @property
    def final_metrics(self) -> dict[str, float]:
        """Its final metrics."""


Job = TypeVar("Job")
Result = TypeVar("Result", bound=Finished)


@dataclass(frozen=True)
class Task(Generic[Result]):
    """One fold's work: `work(job, recorder)` in a worker, its reports to `recorder` and its result to `done` in here.

    `work` must be a module-level function.
    """

    work: Callable[[Any, Recorder], Result]
    job: Any
    recorder: Recorder
    done: Callable[[Result], None]


class _Forwarder:
    """A worker's recorder: sends what it hears to the parent process, which owns the real recorders.

    What was sent is in the pipe before the fold's result is, so that a result comes after all of its reports.
    """

    def __init__(self, events: Connection, lock: Lock) -> None:
        self.events, self.lock = events, lock
        self.task = -1

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self._send("epoch", fold, epoch, dict(metrics))

    def trial_finished(self, fold: int, trial: Trial) -> None:
        self._send("trial_finished", fold, trial)

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("a fold's work returns its final scores; the parent records them")

    def _send(self, method: str, *arguments: Any) -> None:
        with self.lock:
            self.events.send((self.task, method, arguments))


_forwarder: _Forwarder


def settle() -> None:
    """Make PyTorch work in this process as in a worker: on one thread, and with numbers under 1e-38 taken for 0.

    Weights that nothing pulls at decay to such numbers, and operations on them take many times longer.
    """
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _start_worker(events: Connection, lock: Lock) -> None:
    global _forwarder
    _forwarder = _Forwarder(events, lock)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settle()


def _end_with_parent() -> None:
    """End this process when the command's has ended, however it did: nobody is there for the result."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_in_worker(task: int, work: Callable[[Any, Recorder], Result], pickled_job: bytes) -> Result:
    """Load the job here, where an error is the fold's own; in the pool's queue it would break the worker."""
    _forwarder.task = task
    return work(pickle.loads(pickled_job), _forwarder)  # noqa: S301 (what this command's own process has written)


def start_preloading() -> None:
    """Begin to load what workers need, in the process that they come from, while this one loads its own."""
    # Once for all workers, and for later commands of one process.
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # which lets Ctrl-C through again, so before it is held back
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, [signal.SIGINT]
    )  # Ctrl-C is this process's, not of what it starts
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_tasks(tasks: Iterator[Task[Result] | None], workers: int) -> None:
    """Do tasks, at most `workers` at a time, in the order in which the iterator gives them.

    The iterator is asked when a worker is free; None means that the next task has to wait for one that runs. The
    tasks' recorders hear all reports, and each fold's final scores before `done` gets its result, in this process. An
    interrupt (Ctrl-C) or an error in one fold ends the others at once and is raised again.

    Raises UserError when the system kills a worker.
    """
    context = multiprocessing.get_context("forkserver")
    start_preloading()
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (writer, context.Lock()))
    pending: dict[int, tuple[Task[Result], Future[Result]]] = {}
    number, exhausted = 0, False
    try:
        while pending or not exhausted:
            while len(pending) < workers and not exhausted:
                try:
                    task = next(tasks)
                except StopIteration:
                    exhausted = True
                    break
                if task is None:
                    break
                # Plain pickles hold the tensors' numbers; those of multiprocessing hold two open files for each tensor.
                future = pool.submit(_work_in_worker, number, task.work, pickle.dumps(task.job))
                pending[number] = task, future
                number += 1
            _forward(reader, pending, POLL_SECONDS)
            for place in [place for place, (_, future) in pending.items() if future.done()]:
                task, future = pending[place]
                result = future.result()
                _forward(reader, pending, 0.0)
                del pending[place]
                task.recorder.fold_finished(result.fold, result.final_metrics)
                task.done(result)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, most often for lack of memory: lower workers in params.yaml"
        ) from None
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(cancel_futures=True)


def run_folds(
    work: Callable[[Job, Recorder], Result],
    jobs: Sequence[Job],
    recorder: Recorder,
    workers: int,
    heard: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Do `work` for every job and return the results in the jobs' order; see `run_tasks`.

    `heard` is given each result as soon as it is there.
    """
    results: dict[int, Result] = {}

    def done(place: int, result: Result) -> None:
        if heard is not None:
            heard(result)
        results[place] = result

    def tasks() -> Iterator[Task[Result] | None]:
        for place, job in enumerate(jobs):
            yield Task(work, job, recorder, partial(done, place))

    if jobs:
        run_tasks(tasks(), min(workers, len(jobs)))
    return [results[place] for place in range(len(jobs))]


def _forward(reader: Connection, pending: Mapping[int, tuple[Task[Result], Future[Result]]], seconds: float) -> None:
    """Pass on the reports that have come in, waiting so long for the first."""
    while reader.poll(seconds):
        number, method, arguments = reader.recv()
        getattr(pending[number][0].recorder, method)(*arguments)
        seconds = 0.0
