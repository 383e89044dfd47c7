"""How many threads libraries use, and that denormal numbers are rounded to 0.

This is the one place for commands, workers, servers and Python programs. Everything but DuckDB computes on one
thread, unless OMP_NUM_THREADS asks for more; compiled code always does. PyTorch's second thread saves little on two
idle cores. Beside other work it makes `predict` many times slower, because OpenMP's threads wait for each other in
busy loops and so take the cores from the threads they wait for. Instead, the batches of a large prediction are
computed side by side; see `side_by_side`. Worker processes have one thread whatever OMP_NUM_THREADS says: training
gives the same on every machine.

Denormal numbers, those below 1e-38, are rounded to 0. Operations on them are many times slower, and weight decay
shrinks weights without gradient to such numbers.

A command sets environment variables before it loads the libraries, because they read them once. Other Python programs
and servers have their own settings, which a bundle replaces by ours while it computes. Nothing here starts PyTorch's
inter-op threads. DuckDB is given its own number of threads.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import TypeVar

from imputune.runtime.environment import environment
from imputune.runtime.freed_memory import keep_freed_memory

THREADS = "OMP_NUM_THREADS"  # of PyTorch, scikit-learn and XGBoost, and of the BLAS of NumPy and SciPy
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}  # a thread that waits for others sleeps
Item = TypeVar("Item")
Result = TypeVar("Result")
_user_chose = THREADS in os.environ  # before `prepare_command` sets it
ONE_THREAD = {THREADS: "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def prepare_command() -> None:
    """Set this process's environment, before NumPy or PyTorch is loaded; what the user has set stays.

    Freed memory is kept; see `keep_freed_memory`.
    """
    keep_freed_memory()
    for name, text in ({THREADS: "1"} | WAITING).items():
        os.environ.setdefault(name, text)


def environment_of_workers() -> AbstractContextManager[None]:
    """Set the environment that a worker process inherits inside the block: one thread, whatever the user has set."""
    return environment(ONE_THREAD | WAITING)


def use_one_thread() -> None:
    """Make PyTorch compute in this process as in a worker: on one thread, without denormal numbers, in kept memory."""
    import torch

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@contextmanager
def computing() -> Iterator[None]:
    """Make PyTorch compute as decided here inside the block, in this thread; what was set before returns afterwards.

    Several threads may compute at once, as a server's do. The number of threads then returns with the last of them; a
    thread that left its block earlier may keep ours.
    """
    import torch

    flushed = _flushes_denormals()
    _blocks.enter()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        _blocks.leave()


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Do `work` for every item and return the results in order; each item is computed as `computing` says.

    Items share the cores that this process may use, unless the user has set OMP_NUM_THREADS. Such threads do not wait
    for one another in busy loops, as PyTorch's own do: beside other work, they take their share of the cores.
    """
    count = min(len(items), 1 if _user_chose else len(os.sched_getaffinity(0)))

    def compute(item: Item) -> Result:
        with computing():
            return work(item)

    if count < 2:
        return [compute(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(compute, items))


def wanted_threads() -> int:
    """Return the number of threads that OMP_NUM_THREADS asks for (the first, if it lists several), else 1."""
    text = os.environ.get(THREADS, "").partition(",")[0].strip()
    return max(1, int(text)) if text.isdecimal() else 1


class _Blocks:
    """Counts the blocks of `computing` that this process is in.

    PyTorch keeps one number of threads for a process and, for OpenMP, one for each of its threads.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.before = Lock(), 0, 1

    def enter(self) -> None:
        import torch

        with self.lock:
            if self.inside == 0:
                self.before = torch.get_num_threads()
            self.inside += 1
            torch.set_num_threads(wanted_threads())

    def leave(self) -> None:
        import torch

        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                torch.set_num_threads(self.before)


_blocks = _Blocks()


def _flushes_denormals() -> bool:
    """Say whether this thread rounds denormal numbers to 0; PyTorch can set this and has no function to read it."""
    import torch

    return (torch.full((1,), 1e-30) * 1e-9).item() == 0.0
