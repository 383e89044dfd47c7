"""How much longer `predict` and `explain` take beside other work: idle, and beside processes that keep every core busy.

    python -m benchmarks.busy_machine [--json] [--dataset NAME] [--model WORD] [--stays N] [--repetitions N] [--loops N]
        [--commands WORDS]

It runs the commands as a user does, on the registered model and generated records, idle and busy in turn.
OMP_NUM_THREADS is respected: `OMP_NUM_THREADS=2 python -m benchmarks.busy_machine` measures two threads.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import Parser, Result, Spread, report, run
from imputune.data.raw.synthetic import write_synthetic_records
from imputune.errors import UserError
from imputune.pipeline.project import Project
from imputune.registry.names import classifier_name
from imputune.registry.versions import Registry
from imputune.runtime.console import print_table
from imputune.runtime.threads import wanted_threads
from imputune.settings.file import find_root

LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # it ends with this process
MOST = 2.2  # times the idle time, asked of every command


class Command(Result):
    """The seconds of a command, start and imports included; ratio: of the medians."""

    command: str
    idle_seconds: Spread
    busy_seconds: Spread
    ratio: float


class Busy(Result):
    """What was measured beside how many busy loops."""

    model: str
    stays: int
    loops: int
    cores: int
    threads: int
    most: float
    commands: list[Command]


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.busy_machine", "predict and explain, idle and beside busy loops.")
    parser.add_argument("--dataset", default=None, help="dataset of the model; without it, that of params.yaml")
    parser.add_argument("--model", default="champion", help="alias or version number")
    parser.add_argument("--stays", type=int, default=2000, help="stays that predict reads; explain reads one")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each command, idle and busy each")
    parser.add_argument("--commands", default="predict,explain", help="which of the two to measure")
    parser.add_argument("--loops", type=int, default=2, help="processes that compute without a pause")
    arguments = parser.parse_args()
    if unknown := set(arguments.commands.split(",")) - {"predict", "explain"}:
        parser.error(f"--commands takes predict and explain, separated by a comma: got {', '.join(sorted(unknown))}")
    if min(arguments.stays, arguments.repetitions, arguments.loops) < 1:
        parser.error("--stays, --repetitions and --loops must be at least 1")
    project = Project.open(find_root(Path.cwd()), arguments.dataset)
    version = Registry(project.root, classifier_name(project.dataset)).find(arguments.model)
    with TemporaryDirectory() as folder:
        write_synthetic_records(Path(folder), arguments.stays, 1)
        records = Path(folder) / "set-s"
        first = min(records.glob("*.txt"))
        given = [project.dataset, "--model", str(version.number), "--records"]
        commands = {
            "predict": ["predict", *given, str(records), "--out", str(Path(folder) / "risks.csv")],
            "explain": ["explain", *given, str(first)],
        }
        measured = [
            _measure(name, words, arguments.repetitions, arguments.loops)
            for name, words in commands.items()
            if name in arguments.commands.split(",")
        ]
    busy = Busy(
        model=f"{version.name} version {version.number}",
        stays=arguments.stays,
        loops=arguments.loops,
        cores=len(os.sched_getaffinity(0)),
        threads=wanted_threads(),
        most=MOST,
        commands=measured,
    )
    report(busy, _show, arguments.json)


def _measure(name: str, words: list[str], repetitions: int, loops: int) -> Command:
    """Run a command idle and busy in turn."""
    idle, busy = [], []
    for _ in range(repetitions):
        idle.append(_seconds(words))
        with busy_loops(loops):
            busy.append(_seconds(words))
    idle_seconds, busy_seconds = Spread.of(idle), Spread.of(busy)
    ratio = busy_seconds.median / idle_seconds.median
    return Command(command=name, idle_seconds=idle_seconds, busy_seconds=busy_seconds, ratio=ratio)


def _seconds(words: list[str]) -> float:
    """Run a command in a process of its own; return its seconds, UserError with its last line if it fails."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "imputune.cli", *words], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"imputune {words[0]} failed: {' '.join(done.stderr.split())[-300:]}")
    return seconds


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep so many processes busy inside the block."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _show(busy: Busy) -> None:
    lines = [
        (each.command, *each.idle_seconds.as_text(), *each.busy_seconds.as_text(), f"{each.ratio:.2f}")
        for each in busy.commands
    ]
    title = f"{busy.model}, {busy.stays:,} stays, beside {busy.loops} busy loops on {busy.cores} cores; "
    title += f"OMP_NUM_THREADS {busy.threads}"
    header = ("command", "idle s", "lowest", "highest", "busy s", "lowest", "highest", f"busy / idle, at most {MOST}")
    print_table(title, header, lines)


if __name__ == "__main__":
    run(main)
