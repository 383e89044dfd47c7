"""Train on a cohort that is larger than the memory a process may use, and measure its memory by step.

    python -m benchmarks.large_cohort [--stays 200000] [--steps 3] [--limit-gib 4] [--parts read,pretrain] [--json]

The cohort has 48 hours and 89 variables, a fifth of its cells observed, and is written to a temporary folder: 17 KB a
stay. One process then does what commands do with it, by `--parts`:

    read        read and hash the cohort, compare its records with another cohort's, draw the folds
    pretrain    fit the scaler, count, draw masks, some steps of pretraining CSAI, validation, errors on masked cells
    finetune    summarise every stay; represent some stays for a frozen mlp2, train it for two epochs and score it; some
                steps of an unfrozen mlp2

A whole training repeats these steps and uses the same memory again.

The system refuses the process more than `--limit-gib` of memory of its own (RLIMIT_DATA). Pages of the cohort's file
do not count: the system keeps them as long as nobody needs their memory, and reads them again otherwise.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory, gettempdir
from typing import get_args

from benchmarks import Parser, Result, report, run
from benchmarks.large_training import Part, Steps, train
from benchmarks.own_memory import SAMPLED_EVERY, in_new_process, memory_of
from benchmarks.training import write_random_cohort
from imputune.errors import UserError
from imputune.runtime.console import print_table
from imputune.runtime.threads import use_one_thread

HOURS, VARIABLES = 48, 89
PARTS: tuple[Part, ...] = get_args(Part)
FEWEST_STAYS = 100  # so that folds can be drawn
GIB = 2**30


class Step(Result):
    """A step of the work: its seconds, and the most memory during it.

    own_gib: the process's own memory. file_gib: pages of files that it had mapped, the cohort's among them.
    """

    name: str
    seconds: float
    own_gib: float
    file_gib: float


class Memory(Result):
    """All steps; own_gib_at_start is what a process uses that has only loaded the libraries."""

    stays: int
    values_gib: float
    limit_gib: float
    own_gib_at_start: float
    steps: list[Step]

    @property
    def peak_gib(self) -> float:
        """The most memory of its own that the process had."""
        return max(step.own_gib for step in self.steps)


def measure(stays: int, steps: int, limit_gib: float, parts: Sequence[Part] = PARTS) -> Memory:
    """Write the cohort, train on it in a new process, and return its memory by step.

    Raises UserError if the disk has too little room, or the work needs more memory than the limit.
    """
    values = stays * HOURS * VARIABLES * 4
    if disk_usage(gettempdir()).free < 2.2 * values:
        raise UserError(f"{gettempdir()} needs {2.2 * values / GIB:.1f} GiB of free disk: set TMPDIR, or lower --stays")
    with TemporaryDirectory() as folder:
        in_new_process(write_random_cohort, Path(folder) / "cohort", (stays, HOURS, VARIABLES))
        measured = _watched(Path(folder) / "cohort", steps, limit_gib, parts)
    return Memory(
        stays=stays,
        values_gib=values / GIB,
        limit_gib=limit_gib,
        own_gib_at_start=measured[0].own_gib,
        steps=measured[1:],
    )


def _watched(cohort: Path, steps: int, limit_gib: float, parts: Sequence[Part]) -> list[Step]:
    """Train in a new process and read its memory from outside all the time; return its steps."""
    context = multiprocessing.get_context("spawn")
    names, writer = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(cohort, steps, limit_gib, parts, writer))
    process.start()
    writer.close()
    assert process.pid is not None
    name, started, own, file = "starting", time.perf_counter(), 0.0, 0.0
    measured: list[Step] = []
    while True:
        arrived = names.poll(SAMPLED_EVERY)
        now_own, now_file = memory_of(process.pid)
        own, file = max(own, now_own), max(file, now_file)
        if arrived:
            now = time.perf_counter()
            measured.append(Step(name=name, seconds=now - started, own_gib=own / GIB, file_gib=file / GIB))
            print(f"{name}: {own / GIB:.2f} GiB, {now - started:.0f} s", file=sys.stderr)
            try:
                name, started, own, file = names.recv(), now, 0.0, 0.0
            except EOFError:
                break
    process.join()
    if name != "end":
        raise UserError(
            f"the work stopped while it was to {name}, see above; if memory failed, {limit_gib:g} GiB are too little: "
            "raise --limit-gib"
        )
    return measured[:-1]


def _train(cohort: Path, steps: int, limit_gib: float, parts: Sequence[Part], names: Connection) -> None:
    use_one_thread()
    limit = round(limit_gib * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    train(cohort, Steps(count=steps, begin=names.send), parts)
    names.send("end")


def show(memory: Memory) -> None:
    """Print a row for each step."""
    rows = [
        (step.name, f"{step.seconds:.1f}", f"{step.own_gib:.2f} GiB", f"{step.file_gib:.2f} GiB")
        for step in memory.steps
    ]
    print_table(
        f"{memory.stays:,} stays x {HOURS} hours x {VARIABLES} variables, {memory.values_gib:.2f} GiB of values; at "
        f"most {memory.limit_gib:g} GiB of its own. Peak: {memory.peak_gib:.2f}, of which the libraries need "
        f"{memory.own_gib_at_start:.2f}",
        ("step", "seconds", "own memory", "mapped files"),
        rows,
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.large_cohort", (__doc__ or "").splitlines()[0])
    parser.add_argument("--stays", type=int, default=200_000, help="of the cohort (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="of each training (%(default)s)")
    parser.add_argument("--limit-gib", type=float, default=4.0, help="of the process's own memory (%(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="of the work (%(default)s)")
    given = parser.parse_args()
    if given.stays < FEWEST_STAYS or given.steps < 1 or given.limit_gib <= 0:
        raise UserError(f"--stays must be {FEWEST_STAYS} or more, --steps 1 or more, --limit-gib above 0")
    parts = [part for part in PARTS if part in given.parts.split(",")]
    if len(parts) != len(given.parts.split(",")):
        raise UserError(f"--parts must name some of {', '.join(PARTS)}, separated by commas; got {given.parts!r}")
    report(measure(given.stays, given.steps, given.limit_gib, parts), show, given.json)


if __name__ == "__main__":
    run(main)
