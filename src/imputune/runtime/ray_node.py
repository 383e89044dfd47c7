"""What runs on the nodes of a Ray cluster: a fold's work, its reports, and a look at what is installed there."""

import asyncio
import io
import math
import pickle
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import imputune
from imputune.errors import UserError
from imputune.runtime.recorder import Recorder, Trial
from imputune.runtime.threads import use_one_thread

REPORT_SECONDS = 0.2
COMPARED = {
    **{
        name: (name,)
        for name in ("numpy", "optuna", "pandas", "pydantic", "safetensors", "scikit-learn", "scipy", "torch")
    },
    "xgboost": ("xgboost-cpu", "xgboost"),
    "pypots": ("pypots",),
}
"""The packages that decide a result, and by what names they are installed."""
Event = tuple[str, tuple[Any, ...]]
"""A method of `Recorder` and its arguments."""


class Mailbox:
    """Takes the reports of all tasks of a command, and gives them to the command. It runs on the command's own node.

    Reports are numbered within their task. They only show progress early: all of them come again with the result.
    """

    def __init__(self) -> None:
        self.reports: list[tuple[int, int, list[Event]]] = []
        self.arrived = asyncio.Event()

    async def put(self, task: int, first: int, events: list[Event]) -> None:
        """Keep a task's reports; `first` is the number of the first."""
        self.reports.append((task, first, events))
        self.arrived.set()

    async def take(self) -> list[tuple[int, int, list[Event]]]:
        """Wait until there are reports; return each as task, number of its first report, reports."""
        await self.arrived.wait()
        reports, self.reports = self.reports, []
        self.arrived.clear()
        return reports


class _Reporter:
    """A worker's recorder: sends reports to the mailbox, several at a time, and keeps all of them for the result."""

    def __init__(self, task: int, mailbox: Any) -> None:
        self.task, self.mailbox = task, mailbox
        self.events: list[Event] = []
        self.sent, self.last = 0, -math.inf

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self.events.append(("epoch", (fold, epoch, dict(metrics))))
        if time.monotonic() - self.last >= REPORT_SECONDS:
            self._send()

    def trial_finished(self, fold: int, trial: Trial) -> None:
        self.events.append(("trial_finished", (fold, trial)))
        self._send()  # at once, because the command keeps it: an interrupted search goes on after it

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("a worker returns a fold's final metrics; the command's process records them")

    def _send(self) -> None:
        self.mailbox.put.remote(self.task, self.sent, self.events[self.sent :])
        self.sent, self.last = len(self.events), time.monotonic()


class _JobReader(pickle.Unpickler):
    def __init__(self, job: bytes, shared: Mapping[int, object]) -> None:
        super().__init__(io.BytesIO(job))
        self.shared = shared

    def persistent_load(self, key: int) -> object:
        return self.shared[key]


def work_on_node(
    task: int, job: bytes, keys: Sequence[int], mailbox: Any, expected: Mapping[str, str], *shared: object
) -> bytes:
    """Do the work on a fold; return the pickle of its result and all its reports.

    job: the pickle of the work's function and its job, without what tasks share; `shared` has that, by `keys`.
    expected: see `check_node`. Raises what the work raises.
    """
    check_node(expected)
    use_one_thread()
    work: Callable[[Any, Recorder], Any]
    work, content = _JobReader(job, dict(zip(keys, shared, strict=True))).load()
    reporter = _Reporter(task, mailbox)
    result = work(content, reporter)
    return pickle.dumps((result, reporter.events))


@cache
def installed() -> Mapping[str, str]:
    """Return the versions here of what decides a result: Python, this package, and the packages that it trains with."""
    found = {"Python": platform.python_version(), "imputune": imputune.__version__}
    for package, names in COMPARED.items():
        for name in names:
            with suppress(PackageNotFoundError):
                found.setdefault(package, version(name))
    return found


def check_node(expected: Mapping[str, str]) -> None:
    """Raise UserError, naming the node, if it lacks a package that the command's machine has, or has another version.

    A build's own suffix, as in 2.13.0+cpu, does not count.
    """
    here = installed()
    for name, wanted in expected.items():
        found = here.get(name)
        if found is None or found.partition("+")[0] != wanted.partition("+")[0]:
            what = f"has {name} {found}" if found else f"has no {name}"
            raise UserError(
                f"Ray's node {platform.node()} {what}, this machine has {wanted}: install the same versions on every "
                "node"
            )


def prepare_node(expected: Mapping[str, str], modules: Sequence[str]) -> str:
    """Check a node and load these modules in a worker of it; return the folder that its package is in."""
    check_node(expected)
    for name in modules:
        import_module(name)
    return str(Path(imputune.__file__).parent)
