"""How many fold tasks a second a command, the tracking store and a tracking server bear.

    python -m benchmarks.many_tasks [--tasks 1000] [--tracked 200] [--workers 2] [--nodes N] [--database URI] [--json]

The tasks train nothing: each reports 20 epochs at once and returns weights, curves and predictions of the size that a
fold of a frozen mlp2 has on PhysioNet 2012. So what is measured is the work around training, which bounds how many
folds can be trained at a time. Every round does this more than the first:

    messages       nothing: the reports and results of `--tasks` tasks come back to the command
    checkpoints    the command keeps every finished fold on disk, as it does in training
    SQLite         `--tracked` tasks; every five folds are a tracked run with five runs in it, in a store of its own
    server         the same, on an MLflow server that is started here, over SQLite
    database       the same, on a server over the database that `--database` names, such as postgresql://USER@HOST/NAME

Without `--nodes`, the tasks go to the pool of this machine. With it, they go to a Ray cluster that is simulated here,
of so many nodes with one core each, whatever this machine has; a node takes about half a GiB. It needs the extra `ray`.
A variant's figures and its registered model are not measured.
"""

import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import Parser, Result, report, run
from benchmarks.short_tasks import ShortJob, made_from, short_task
from benchmarks.small_cluster import small_cluster
from benchmarks.tracking_server import TrackingServer
from imputune.artifacts.checkpoints import Checkpoints
from imputune.artifacts.stage_output import TrainedFold
from imputune.errors import UserError
from imputune.runtime.console import print_table
from imputune.runtime.environment import environment
from imputune.runtime.recorder import Recorder, SilentRecorder
from imputune.runtime.workers import Engine, Task, chosen_engine
from imputune.settings.file import find_root, read_params
from imputune.tracking.runs import tracked_run

FOLDS = 5  # of a variant
Keep = Callable[[TrainedFold], None]


class Round(Result):
    """Some tasks done as fast as the command can; what `kind` means stands above.

    cpu_ms_of_command: processor time of the command's own process for a task. cpu_ms_of_server: the same of the
    tracking server's processes, its start included; 0 without one.
    """

    kind: str
    tasks: int
    seconds: float
    cpu_ms_of_command: float
    cpu_ms_of_server: float = 0.0

    @property
    def per_second(self) -> float:
        """Tasks a second."""
        return self.tasks / self.seconds


class Rounds(Result):
    """All rounds; nodes is 0 for the pool of this machine."""

    engine: str
    at_once: int
    seconds_until_ready: float
    rounds: list[Round]


class _Runs:
    """Gives tasks their recorder: a tracked run for every five of them, which ends with the last."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self.stack = root, stack
        self.open: list[tuple[Recorder, ExitStack, set[int]]] = []

    def recorder(self, fold: int) -> tuple[Recorder, Keep]:
        """Return the recorder of a task, and what to do when it is done."""
        if fold == 0:
            inner = self.stack.enter_context(ExitStack())
            variant = tracked_run(
                self.root,
                experiment="many tasks",
                command="finetune",
                params={f"setting_{number}": number for number in range(60)},
                tags={"imputune.dataset": "short-tasks"},
                folds=range(FOLDS),
            )
            self.open.append((inner.enter_context(variant), inner, set(range(FOLDS))))
        recorder, inner, left = self.open[-1]

        def done(result: TrainedFold) -> None:
            left.discard(result.fold)
            if not left:
                inner.close()

        return recorder, done


def measure(tasks: int, tracked: int, workers: int, nodes: int, database: str | None) -> Rounds:
    """Do all rounds on one engine.

    Raises UserError if Ray is not installed, or a server does not start.
    """
    params = read_params(find_root(Path.cwd()) / "params.yaml")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        started = time.perf_counter()
        if nodes:
            stack.enter_context(small_cluster(nodes, [Path(__file__).parents[1]], with_token=True))
            engine = stack.enter_context(chosen_engine(params, "ray"))
        else:
            engine = stack.enter_context(chosen_engine(params, "local", workers))
        _untracked(engine, engine.at_once, lambda fold: None)  # every worker loads its modules
        ready = time.perf_counter() - started
        checkpoints = Checkpoints(folder / "checkpoints", made_from())
        checkpoints.begin()
        rounds = [
            _round("messages", tasks, partial(_untracked, engine, tasks, lambda fold: None)),
            _round("checkpoints", tasks, partial(_untracked, engine, tasks, checkpoints.save)),
            _round("SQLite", tracked, partial(_tracked, engine, tracked, folder / "own", None)),
        ]
        backends = {"server": f"sqlite:///{folder / 'server.db'}"} | ({"database": database} if database else {})
        for kind, uri in backends.items():
            before = _seconds_of_children()
            with _server(uri, folder) as address:
                measured = _round(kind, tracked, partial(_tracked, engine, tracked, folder / kind, address))
            served = 1000 * (_seconds_of_children() - before) / tracked
            rounds.append(measured.model_copy(update={"cpu_ms_of_server": served}))
        return Rounds(
            engine=f"{nodes} simulated nodes of Ray" if nodes else "pool of this machine",
            at_once=engine.at_once,
            seconds_until_ready=ready,
            rounds=rounds,
        )


def _round(kind: str, tasks: int, work: Callable[[], None]) -> Round:
    started, processor = time.perf_counter(), time.process_time()
    work()
    measured = Round(
        kind=kind,
        tasks=tasks,
        seconds=time.perf_counter() - started,
        cpu_ms_of_command=1000 * (time.process_time() - processor) / tasks,
    )
    print(f"{kind}: {measured.per_second:.1f} tasks/s, {measured.cpu_ms_of_command:.1f} ms a task", file=sys.stderr)
    return measured


def _seconds_of_children() -> float:
    """Return the processor time of all processes that this one has started and that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _untracked(engine: Engine, tasks: int, done: Keep) -> None:
    silent = SilentRecorder()
    engine.run(Task(work=short_task, job=ShortJob(fold), recorder=silent, done=done) for fold in range(tasks))


def _tracked(engine: Engine, tasks: int, root: Path, address: str | None) -> None:
    root.mkdir()
    with environment({"MLFLOW_TRACKING_URI": address} if address else {}), ExitStack() as stack:
        engine.run(_tracked_tasks(tasks, _Runs(root, stack)))


def _tracked_tasks(tasks: int, runs: _Runs) -> Iterator[Task[TrainedFold]]:
    for number in range(tasks):
        recorder, done = runs.recorder(number % FOLDS)
        yield Task(work=short_task, job=ShortJob(number % FOLDS), recorder=recorder, done=done)


@contextmanager
def _server(database: str, folder: Path) -> Iterator[str]:
    """Run `mlflow server` over a database and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = TrackingServer(folder / "tracking-server", port, database=database, workers=2)
    try:
        try:
            server.start()
        except TimeoutError as error:
            raise UserError(str(error)) from None
        yield server.url
    finally:
        server.stop()


def show(measured: Rounds) -> None:
    """Print a row for each round."""
    rows = [
        (
            each.kind,
            f"{each.tasks:,}",
            f"{each.seconds:.1f}",
            f"{each.per_second:.1f}",
            f"{each.cpu_ms_of_command:.1f}",
            f"{each.cpu_ms_of_server:.1f}",
        )
        for each in measured.rounds
    ]
    title = f"{measured.engine}, {measured.at_once} tasks at once, ready after {measured.seconds_until_ready:.0f} s"
    columns = ("with", "tasks", "seconds", "tasks/s", "ms of processor time a task", "and of the server")
    print_table(title, columns, rows)


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.many_tasks", (__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000, help="of each round without runs (%(default)s)")
    parser.add_argument("--tracked", type=int, default=200, help="tasks of each round with runs (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of the pool of this machine (%(default)s)")
    parser.add_argument("--nodes", type=int, default=0, help="simulated nodes of Ray; 0 is the pool (%(default)s)")
    parser.add_argument("--database", help="of one more server, as MLflow's --backend-store-uri")
    given = parser.parse_args()
    if min(given.tasks, given.workers) < 1 or given.nodes < 0 or given.tracked < FOLDS or given.tracked % FOLDS:
        raise UserError(
            f"--tasks and --workers must be 1 or more, --nodes 0 or more, --tracked a multiple of {FOLDS} above 0"
        )
    report(measure(given.tasks, given.tracked, given.workers, given.nodes, given.database), show, given.json)


if __name__ == "__main__":
    run(main)
