"""Folds side by side, a process each, one thread each; results do not depend on how many run at once."""

import multiprocessing
import pickle
import queue
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from typing import Protocol, TypeVar

import torch

from imputune.errors import UserError
from imputune.training.recorder import Recorder

POLL_SECONDS = 0.2


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
Event = tuple[int, int, dict[str, float]]


class _Forwarder:
    """A worker's recorder: sends epoch events to the parent process, which owns the real recorder."""

    def __init__(self, events: "Queue[Event]") -> None:
        self.events = events

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self.events.put((fold, epoch, dict(metrics)))

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("a fold's work returns its final scores; the parent records them")


_forwarder: _Forwarder


def settle() -> None:
    """Make PyTorch work in this process as in a worker: on one thread, and with numbers under 1e-38 taken for 0.

    Weights that nothing pulls at decay to such numbers, and operations on them take many times longer.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _start_worker(events: "Queue[Event]") -> None:
    global _forwarder
    _forwarder = _Forwarder(events)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle()


def _work_in_worker(work: Callable[[Job, Recorder], Result], pickled_job: bytes) -> Result:
    """Load the job here, where an error is the fold's own; in the pool's queue it would break the worker."""
    return work(pickle.loads(pickled_job), _forwarder)  # noqa: S301 (what this command's own process has written)


def run_folds(
    work: Callable[[Job, Recorder], Result], jobs: Sequence[Job], recorder: Recorder, workers: int
) -> list[Result]:
    """Do `work` for every job, at most `workers` at a time, and return the results in the jobs' order.

    `work` must be a module-level function, and reports its epochs through the recorder it is given; `recorder` hears
    them in this process, and each fold's final scores when it is done. An interrupt (Ctrl-C) or an error in one fold
    ends the others at once and is raised again.

    Raises UserError when the system kills a worker.
    """
    context = multiprocessing.get_context("spawn")
    events: Queue[Event] = context.Queue()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (events,))
    try:
        # Plain pickles hold the tensors' numbers; those of multiprocessing hold two open files for each tensor.
        futures = [pool.submit(_work_in_worker, work, pickle.dumps(job)) for job in jobs]
        pending: set[Future[Result]] = set(futures)
        while pending:
            _forward(events, recorder)
            done, pending = wait(pending, timeout=0)
            for future in done:
                result = future.result()
                _forward(events, recorder)
                recorder.fold_finished(result.fold, result.final_metrics)
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, most often for lack of memory: lower workers in params.yaml"
        ) from None
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _forward(events: "Queue[Event]", recorder: Recorder) -> None:
    """Pass on the events that have come in, waiting shortly for the first."""
    timeout = POLL_SECONDS
    while True:
        try:
            fold, epoch, metrics = events.get(timeout=timeout)
        except queue.Empty:
            return
        recorder.epoch(fold, epoch, metrics)
        timeout = 0.0
