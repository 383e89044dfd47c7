"""Folds side by side, each in a worker process on one thread; results do not depend on the number of workers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

from imputune.errors import UserError
from imputune.runtime.local_pool import LocalPool, start_preloading
from imputune.runtime.recorder import Recorder
from imputune.runtime.tasks import Engine, Job, Result, Task
from imputune.settings.names import EngineName
from imputune.settings.schema import Params

__all__ = ["Engine", "LocalPool", "Task", "chosen_engine", "run_fold_jobs", "start_preloading"]


@contextmanager
def chosen_engine(params: Params, name: EngineName | None = None, workers: int | None = None) -> Iterator[Engine]:
    """Yield the engine of a command: the one in params.yaml, unless it is named here; ready to work, ended afterwards.

    workers: how many tasks it does at a time at most. Without it, the pool of this machine and a Ray that is started
    here take `workers` of params.yaml, and an existing Ray cluster has one task on each core.

    Raises UserError when Ray is not installed, its cluster cannot be used, or the folder of temporary files has too
    long a path; see `ray_cluster.connected`.
    """
    if (name or params.engine) == "local":
        start_preloading()
        yield LocalPool(workers or params.workers)
        return
    if find_spec("ray") is None:
        raise UserError(
            "engine ray needs Ray, which is not installed: run `pip install -e '.[ray]'` in the project's folder"
        )
    from imputune.runtime.ray_cluster import connected
    from imputune.runtime.ray_engine import RayEngine

    with connected(workers or params.workers, params.device) as cluster:
        yield RayEngine(cluster, workers)


def run_fold_jobs(
    work: Callable[[Job, Recorder], Result],
    jobs: Sequence[Job],
    recorder: Recorder,
    engine: Engine,
    done: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Do `work` for every job and return the results in the order of the jobs; see `Engine.run`.

    `done` is called with each result as soon as it is there.
    """
    results: dict[int, Result] = {}

    def keep(place: int, result: Result) -> None:
        if done is not None:
            done(result)
        results[place] = result

    def tasks() -> Iterator[Task[Result] | None]:
        for place, job in enumerate(jobs):
            yield Task(work=work, job=job, recorder=recorder, done=partial(keep, place))

    if jobs:
        engine.run(tasks())
    return [results[place] for place in range(len(jobs))]
