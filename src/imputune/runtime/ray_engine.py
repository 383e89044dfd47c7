"""The engine of a Ray cluster: sends tasks to its nodes, and begins those again that a lost node or worker was doing.

Ray itself begins a lost task again, `RETRIES` times. A repeated task reports the same again, so the command passes on
each report of a task once, by its number.
"""

import io
import logging
import pickle
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import ObjectStoreFullError, RayActorError, RayError, RayTaskError

from imputune import signals
from imputune.errors import UserError, one_line
from imputune.runtime.ray_cluster import RETRIES, Cluster
from imputune.runtime.ray_node import Event, work_on_node
from imputune.runtime.tasks import Shared, Task, in_turn
from imputune.settings.names import DeviceName

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.2
COUNT_SECONDS = 5.0  # between two looks at how many cores the cluster has


class _Running:
    """A task on a node, and how many of its reports were passed on."""

    def __init__(self, task: Task[Any]) -> None:
        self.task, self.passed = task, 0

    def pass_on(self, first: int, events: Sequence[Event]) -> None:
        """Pass on what follows the last report passed on; drop what is repeated, and what came too early."""
        for number, (method, arguments) in enumerate(events, first):
            if number == self.passed:
                getattr(self.task.recorder, method)(*arguments)
                self.passed += 1


class RayEngine:
    """The nodes of a Ray cluster; see `Engine`.

    limit: how many tasks are sent at a time at most; without it, one for each core that the cluster has at the time.
    """

    def __init__(self, cluster: Cluster, limit: int | None = None) -> None:
        self.cluster, self.limit = cluster, limit
        self._shared: dict[int, tuple[object, Any]] = {}
        self._shared_bytes = 0
        self._started = 0
        self._counted = (time.monotonic(), cluster.cores())
        self._work = self.work_with(RETRIES)
        self._reports = cluster.mailbox.take.remote()

    def work_with(self, retries: int) -> Any:
        """Return the work on a fold as Ray's function: on one core, begun again so many times where it is lost."""
        options = {"num_cpus": 1, "num_gpus": self.cluster.gpus_of_task, "max_retries": retries}
        return ray.remote(retry_exceptions=False, **options)(work_on_node)

    @property
    def at_once(self) -> int:
        """How many tasks are sent at a time."""
        if self.limit is not None:
            return self.limit
        when, cores = self._counted
        if time.monotonic() - when > COUNT_SECONDS:
            cores = self.cluster.cores()
            self._counted = time.monotonic(), cores
        return max(1, cores)

    def device(self, name: DeviceName) -> DeviceName:
        """Return the device of the nodes, chosen when the cluster was connected; see `Engine.device`."""
        return "cuda" if self.cluster.gpus_of_task else "cpu"

    def run(self, tasks: Iterator[Task[Any] | None]) -> None:
        """Do tasks; see `Engine.run`.

        Raises UserError also when the nodes' object stores are too small for the cohorts of the tasks.
        """
        pending: dict[Any, int] = {}
        running: dict[int, _Running] = {}
        try:
            for task in in_turn(tasks, pending, lambda: self.at_once):
                if task is not None:
                    self._started += 1
                    running[self._started] = _Running(task)
                    pending[self._submit(self._started, task)] = self._started
                    continue
                for reference in _ready([self._reports, *pending]):
                    if reference == self._reports:
                        self._deliver(running)
                    else:
                        number = pending.pop(reference)
                        _finish(reference, running.pop(number))
                signals.check()
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            self._shared.clear()
            self._shared_bytes = 0

    def _submit(self, number: int, task: Task[Any]) -> Any:
        writer = _JobWriter((task.work, task.job))
        references = [self._reference(key, each) for key, each in writer.shared.items()]
        logger.debug("task %d starts on Ray: %s", number, task.work.__name__)
        keys = list(writer.shared)
        return self._work.remote(number, writer.job, keys, self.cluster.mailbox, self.cluster.expected, *references)

    def _reference(self, key: int, shared: Shared) -> Any:
        """Return the reference to what tasks share; it goes to the object store once in a run."""
        if key not in self._shared:
            self._shared[key] = shared, self._put(shared.in_memory())
        return self._shared[key][1]

    def _put(self, content: object) -> Any:
        buffers: list[pickle.PickleBuffer] = []
        pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
        self._shared_bytes += sum(buffer.raw().nbytes for buffer in buffers)
        self.cluster.check_room(self._shared_bytes)
        try:
            return ray.put(content)
        except ObjectStoreFullError as error:
            raise UserError(f"Ray's object store is full: {one_line(error)}; {self.cluster.more_room}") from None

    def _deliver(self, running: dict[int, _Running]) -> None:
        try:
            reports = ray.get(self._reports)
        except RayActorError:  # Ray starts the mailbox again; what was in it comes with the results
            reports = []
        self._reports = self.cluster.mailbox.take.remote()
        for number, first, events in reports:
            if number in running:
                running[number].pass_on(first, events)


class _JobWriter(pickle.Pickler):
    """Pickles a job without what it shares with other jobs; `shared` has that, by key."""

    def __init__(self, content: object) -> None:
        file = io.BytesIO()
        super().__init__(file)
        self.shared: dict[int, Any] = {}
        self.dump(content)
        self.job = file.getvalue()

    def persistent_id(self, each: Any) -> int | None:
        if not hasattr(type(each), "in_memory"):  # as `Shared` has it; isinstance is many times slower
            return None
        self.shared[id(each)] = each
        return id(each)


def _ready(references: list[Any]) -> list[Any]:
    """Return all that is there, after waiting for the first of them for a while."""
    if not ray.wait(references, timeout=POLL_SECONDS)[0]:
        return []
    return ray.wait(references, num_returns=len(references), timeout=0)[0]


def _finish(reference: Any, running: _Running) -> None:
    """Take the result of a task: what it still has to report, then its result; raise what its work raised."""
    try:
        result, events = pickle.loads(ray.get(reference))  # noqa: S301 (this command's own worker wrote it)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise UserError(
            f"Ray lost the work on a fold too often ({type(error).__name__}), most often for lack of memory: give its "
            "nodes more memory, or fewer cores"
        ) from error
    running.pass_on(0, events)
    running.task.finish(result)
