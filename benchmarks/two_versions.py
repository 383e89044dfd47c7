"""Commands of this version beside those of another one: seconds, processor seconds and memory, in turn.

    python -m benchmarks.two_versions [--json] [--repetitions N] [--project DIR] OTHER_SRC -- COMMAND ...

OTHER_SRC is the folder src of another version, for instance of a git worktree. A command is one word for the shell:

    python -m benchmarks.two_versions ../before/src -- --help "predict --records stay.txt"

Both versions run with the same Python and libraries, one after the other, so that other work on the machine slows both.
They run in the present folder, so choose commands that read, and that both versions know. If the other version cannot
read this project's params.yaml, --project is a folder with a params.yaml, cohorts and a store of its own.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import imputune
from benchmarks import Parser, Result, Spread, report, run
from benchmarks.measured_extraction import cpu_of_children, peak_memory
from imputune.errors import UserError
from imputune.runtime.console import print_table

LOOKED_EVERY = 0.05  # seconds
OWN_SRC = Path(imputune.__file__).parents[1]


class Usage(Result):
    """What one version's runs of a command took: seconds by the clock, of all threads, and the highest memory in MB."""

    seconds: Spread
    cpu_seconds: Spread
    peak_memory_mb: float


class Command(Result):
    """A command in both versions; the ratios are of the medians, this version's over the other's."""

    command: str
    this: Usage
    other: Usage
    ratio_seconds: float
    ratio_cpu_seconds: float


class Comparison(Result):
    """All commands; load: processes that ran or waited to run, on average over the minute before."""

    commands: tuple[Command, ...]
    load: float
    cores: int


def run_once(source: Path, project: Path, words: list[str]) -> tuple[float, float, float]:
    """Run a command of the package in `source` on a project; return its seconds, CPU seconds and peak memory in MB.

    Raises UserError, with the command's last line, if it fails.
    """
    before, started, memory = cpu_of_children(), time.perf_counter(), 0
    child = subprocess.Popen(
        [sys.executable, "-m", "imputune.cli", *words],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(source)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while True:
        memory = max(memory, peak_memory(child.pid))
        try:
            _, told = child.communicate(timeout=LOOKED_EVERY)
            break
        except subprocess.TimeoutExpired:
            continue
    seconds = time.perf_counter() - started
    if child.returncode:
        lines = told.strip().splitlines() or [f"it ended with code {child.returncode}"]
        raise UserError(f"imputune {shlex.join(words)}, of {source}: {lines[-1].removeprefix('error: ')}")
    return seconds, cpu_of_children() - before, memory / 1e6


def compare(other: Path, project: Path, command: str, repetitions: int) -> Command:
    """Run a command of both versions in turn, after one run of each that is not counted."""
    words = shlex.split(command)
    runs = [(run_once(OWN_SRC, Path.cwd(), words), run_once(other, project, words)) for _ in range(repetitions + 1)][1:]
    ours, theirs = (_usage(list(each)) for each in zip(*runs, strict=True))
    return Command(
        command=command,
        this=ours,
        other=theirs,
        ratio_seconds=ours.seconds.median / theirs.seconds.median,
        ratio_cpu_seconds=ours.cpu_seconds.median / theirs.cpu_seconds.median,
    )


def _usage(runs: list[tuple[float, float, float]]) -> Usage:
    seconds, cpu_seconds, memory = zip(*runs, strict=True)
    return Usage(seconds=Spread.of(seconds), cpu_seconds=Spread.of(cpu_seconds), peak_memory_mb=max(memory))


def show(comparison: Comparison) -> None:
    """Print the measurements as a table."""
    print_table(
        f"Both versions in turn, {comparison.cores} cores, load {comparison.load:.1f} at the start",
        ("command", "version", "seconds", "lowest", "highest", "CPU seconds", "MB", "ratio", "of CPU"),
        [
            (
                name,
                version,
                *usage.seconds.as_text(),
                f"{usage.cpu_seconds.median:.2f}",
                f"{usage.peak_memory_mb:.0f}",
                *ratios,
            )
            for each in comparison.commands
            for name, version, usage, ratios in (
                (each.command, "this", each.this, (f"{each.ratio_seconds:.2f}", f"{each.ratio_cpu_seconds:.2f}")),
                ("", "other", each.other, ("", "")),
            )
        ],
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.two_versions", (__doc__ or "").splitlines()[0])
    parser.add_other_version()
    parser.add_argument("commands", nargs="+", metavar="COMMAND", help="words after imputune, in quotes")
    parser.add_argument("--repetitions", type=int, default=3, help="of each command (%(default)s)")
    parser.add_argument("--project", type=Path, default=Path(), help="folder for the other version (this one)")
    given = parser.parse_args()
    if not given.project.is_dir():
        raise UserError(f"--project {given.project} is no folder")
    if given.repetitions < 1:
        raise UserError(f"--repetitions must be 1 or more, got {given.repetitions}")
    load, other = os.getloadavg()[0], given.other
    commands = tuple(compare(other, given.project.resolve(), each, given.repetitions) for each in given.commands)
    report(Comparison(commands=commands, load=load, cores=len(os.sched_getaffinity(0))), show, given.json)


if __name__ == "__main__":
    run(main)
