"""Measure Ray beside the local pool: two nodes of one core each against two worker processes, on the same folds.

The two engines take turns. Starting them is measured apart. At the end, one of two nodes is killed in the middle.
"""

import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Timer

from benchmarks import Parser, Result, Spread, report, run
from benchmarks.noted_folds import NotedJob, jobs_of, train
from benchmarks.small_cluster import small_cluster
from benchmarks.training import PARAMS
from imputune.data.cohort import read_cohort, write_cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.errors import UserError
from imputune.runtime.console import print_table
from imputune.runtime.recorder import SilentRecorder
from imputune.runtime.workers import Engine, chosen_engine, run_fold_jobs
from imputune.settings.file import read_params

WORKERS = 2
LEAST_RATIO, MOST_DRIVER_MS = 0.90, 20.0


class KilledNode(Result):
    """What a killed node costs: folds that are trained again, and seconds until they start again."""

    folds: int
    trained_again: int
    seconds_until_again: float


class Throughput(Result):
    """Both engines on the same folds, in turns; ratios are local seconds by Ray's seconds, so over 1 Ray is faster."""

    folds: int
    stays: int
    seconds_local: Spread
    seconds_ray: Spread
    ratio: float
    ratios: tuple[float, ...]
    start_seconds_local: float
    start_seconds_ray: float
    driver_ms_a_fold_local: float
    driver_ms_a_fold_ray: float
    all_threads_ms_a_fold_ray: float
    killed_node: KilledNode


def measured(engine: Engine, jobs: list[NotedJob]) -> tuple[float, float, float]:
    """Return the seconds that an engine takes for the jobs, and what each costs this process, in milliseconds.

    First the command's own work, in the main thread, then that of all threads: Ray has some of its own.
    """
    started, own, whole = time.perf_counter(), time.thread_time(), time.process_time()
    run_fold_jobs(train, jobs, SilentRecorder(), engine)
    own, whole = time.thread_time() - own, time.process_time() - whole
    return time.perf_counter() - started, 1000 * own / len(jobs), 1000 * whole / len(jobs)


def measure(stays: int, repetitions: int) -> Throughput:
    """Measure everything."""
    params = read_params(PARAMS)
    with TemporaryDirectory() as folder:
        write_cohort(extract_synthetic(stays, params.synthetic.seed), Path(folder) / "cohort")
        cohort = read_cohort(Path(folder) / "cohort")
        jobs = jobs_of(cohort, Path(folder) / "notes")
        with small_cluster(WORKERS, [Path(__file__).parents[1]]):
            before = time.perf_counter()
            with chosen_engine(params, "ray") as ray_engine:
                run_fold_jobs(train, jobs[:WORKERS], SilentRecorder(), ray_engine)
                start_ray = time.perf_counter() - before - measured(ray_engine, jobs[:WORKERS])[0]
                before = time.perf_counter()
                with chosen_engine(params, "local", WORKERS) as local_engine:
                    run_fold_jobs(train, jobs[:WORKERS], SilentRecorder(), local_engine)
                    start_local = time.perf_counter() - before - measured(local_engine, jobs[:WORKERS])[0]
                    turns = [(measured(local_engine, jobs), measured(ray_engine, jobs)) for _ in range(repetitions)]
        killed = killed_node(jobs, Path(folder) / "notes")
    local, on_ray = zip(*turns, strict=True)
    ratios = tuple(one[0] / other[0] for one, other in turns)
    return Throughput(
        folds=len(jobs),
        stays=stays,
        seconds_local=Spread.of([each[0] for each in local]),
        seconds_ray=Spread.of([each[0] for each in on_ray]),
        ratio=median(ratios),
        ratios=ratios,
        start_seconds_local=start_local,
        start_seconds_ray=start_ray,
        driver_ms_a_fold_local=median(own for _, own, _ in local),
        driver_ms_a_fold_ray=median(own for _, own, _ in on_ray),
        all_threads_ms_a_fold_ray=median(whole for _, _, whole in on_ray),
        killed_node=killed,
    )


def killed_node(jobs: list[NotedJob], notes: Path) -> KilledNode:
    """Kill one of two nodes while it trains; say what is trained again, and when."""
    with small_cluster(1, [Path(__file__).parents[1]]) as cluster:
        node = cluster.add()
        with chosen_engine(read_params(PARAMS), "ray") as engine:
            run_fold_jobs(train, jobs[:WORKERS], SilentRecorder(), engine)
            notes.unlink()
            killed = []

            def kill() -> None:
                killed.append(time.time())
                cluster.kill(node)

            timer = Timer(2.0, kill)
            timer.start()
            results = run_fold_jobs(train, jobs, SilentRecorder(), engine)
            timer.join()
    starts: dict[str, list[float]] = {}
    for line in notes.read_text().splitlines():
        name, when = line.split()
        starts.setdefault(name, []).append(float(when))
    again = [times for times in starts.values() if len(times) > 1]
    return KilledNode(
        folds=len(results),
        trained_again=sum(len(times) - 1 for times in again),
        seconds_until_again=max((times[-1] - killed[0] for times in again), default=0.0),
    )


def _show(throughput: Throughput) -> None:
    lines = [
        ("local", *throughput.seconds_local.as_text(), f"{throughput.start_seconds_local:.1f}"),
        ("ray", *throughput.seconds_ray.as_text(), f"{throughput.start_seconds_ray:.1f}"),
    ]
    title = f"{throughput.folds} folds, {throughput.stays} stays, two workers"
    print_table(title, ("engine", "seconds", "lowest", "highest", "start-up, s"), lines)
    print(f"throughput of Ray by that of the local pool: {throughput.ratio:.2f} (at least {LEAST_RATIO:.2f})")
    print(
        f"the command's own work: {throughput.driver_ms_a_fold_ray:.1f} ms a fold (at most {MOST_DRIVER_MS:.0f}; "
        f"local {throughput.driver_ms_a_fold_local:.1f}); with Ray's threads {throughput.all_threads_ms_a_fold_ray:.1f}"
    )
    killed = throughput.killed_node
    print(
        f"a node killed: {killed.folds} folds done, {killed.trained_again} trained again, after "
        f"{killed.seconds_until_again:.1f} s"
    )


def main() -> None:
    """Read the options and measure."""
    parser = Parser("benchmarks.ray_throughput", "Measure Ray on two nodes of one core beside the local pool.")
    parser.add_argument("--stays", type=int, default=1000, help="of the synthetic cohort (default: 1000)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each engine (default: 3)")
    options = parser.parse_args()
    if min(options.stays - 99, options.repetitions) < 1:
        raise UserError("--stays must be 100 or more and --repetitions 1 or more; --help lists the options")
    if find_spec("ray") is None:
        raise UserError("Ray is not installed: install it with pip install -e '.[ray]'")
    report(measure(options.stays, options.repetitions), _show, options.json)


if __name__ == "__main__":
    run(main)
