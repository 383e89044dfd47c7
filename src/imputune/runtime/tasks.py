"""What an engine does: tasks, each the work on one fold, in worker processes here or on other machines."""

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from imputune.runtime.recorder import Recorder
from imputune.settings.names import DeviceName


class FoldResult(Protocol):
    """What the work on a fold returns: at least the fold's number and its final metrics."""

    @property
    def fold(self) -> int:
        """The fold's number."""

    @property
    def final_metrics(self) -> dict[str, float]:
        """Its final metrics."""


Job = TypeVar("Job")
Result = TypeVar("Result", bound=FoldResult)


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Result]):
    """The work on one fold.

    work: a function of a module, which a worker calls as `work(job, recorder)`. It gives the same result and the same
    reports whenever it is called, because an engine may begin it again where a worker was lost. recorder: receives the
    worker's reports in this process. done: called with the result in this process, once.
    """

    work: Callable[[Any, Recorder], Result]
    job: Any
    recorder: Recorder
    done: Callable[[Result], None]

    def finish(self, result: Result) -> None:
        """Record the fold's final metrics, then hand the result on; for engines, after the last report."""
        self.recorder.fold_finished(result.fold, result.final_metrics)
        self.done(result)


class Engine(Protocol):
    """Does tasks in worker processes, each on one thread; results do not depend on the engine."""

    @property
    def at_once(self) -> int:
        """How many tasks are done at a time, as far as is known now."""

    def device(self, name: DeviceName) -> DeviceName:
        """Return the device that tasks compute on, cuda or cpu, where params.yaml says `name`.

        Raises UserError for cuda if no GPU is there.
        """

    def run(self, tasks: Iterator[Task[Any] | None]) -> None:
        """Do tasks in the order of the iterator.

        The iterator is asked for a task whenever a worker is free; None means that the next task must wait until a
        running one ends. Recorders and `done` are called in this process: a recorder gets all reports of its task, then
        the fold's final metrics, then `done` gets the result. An interrupt (Ctrl-C) or an error in one fold ends the
        other workers at once and is raised again.

        Raises UserError when the system kills workers.
        """


def in_turn(
    tasks: Iterator[Task[Any] | None], pending: Sized, at_once: Callable[[], int]
) -> Iterator[Task[Any] | None]:
    """Yield a task whenever the engine must start one, and None whenever it must wait; end when all are done.

    pending: the tasks that workers are doing; the engine adds those it starts and removes those that are done. at_once:
    returns how many may be done at a time.
    """
    exhausted = False
    while pending or not exhausted:
        task = None
        if not exhausted and len(pending) < at_once():
            try:
                task = next(tasks)
            except StopIteration:
                exhausted = True
                continue
        yield task


@runtime_checkable
class Shared(Protocol):
    """What the jobs of many tasks have in common and is large: an engine sends it to another machine once."""

    def in_memory(self) -> Self:
        """Return it with all that it has read from files of this machine."""
