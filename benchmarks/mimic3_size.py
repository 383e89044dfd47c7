"""Time and memory of `imputune extract mimic3` on generated tables, at several fractions of the full database.

    python -m benchmarks.mimic3_size --factors 0.01,0.03,0.1

Generated tables are kept in --tables for the next time; a fraction of 10 % takes 0.7 GB and 3 minutes to generate.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import Parser, Result, report, run
from benchmarks.mimic3_tables import ROWS, write_tables
from imputune.errors import UserError
from imputune.runtime.console import print_table
from imputune.settings.file import find_root

GIB = 2**30
EVENTS = ("chartevents", "labevents", "outputevents", "inputevents_cv", "inputevents_mv")


class Size(Result):
    """One extraction: seconds of the whole command, its peak resident memory, and the peak of its temporary files."""

    factor: float
    chartevents: int
    event_rows: int
    packed_gib: float
    seconds: float
    chartevents_per_second: float
    peak_memory_gib: float
    peak_disk_gib: float
    cohort_gib: float


class Sizes(Result):
    """All extractions."""

    sizes: list[Size]


def measure(tables: Path, factor: float) -> Size:
    """Extract once from tables of this size; generate the tables first if they are not there."""
    folder = tables / f"{factor:g}"
    if not (folder / "INPUTEVENTS_MV.csv.gz").is_file():
        write_tables(folder, factor)
    with TemporaryDirectory() as home:
        project = Path(home)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(find_root(Path.cwd()) / name, project)
        started = time.perf_counter()
        command = [sys.executable, "-m", "imputune.cli", "extract", "mimic3", "--raw", str(folder.resolve())]
        child = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        disk = memory = 0
        while child.poll() is None:
            disk = max(disk, size_of(project / "data/.mimic3.scratch"))
            memory = max(memory, peak_memory(child.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        if child.returncode:
            assert child.stderr is not None
            raise UserError(child.stderr.read().decode().strip().removeprefix("error: "))
        cohort = size_of(project / "data/mimic3")
    charted = round(ROWS["chartevents"] * factor)
    return Size(
        factor=factor,
        chartevents=charted,
        event_rows=sum(round(ROWS[name] * factor) for name in EVENTS),
        packed_gib=size_of(folder) / GIB,
        seconds=seconds,
        chartevents_per_second=charted / seconds,
        peak_memory_gib=memory / GIB,
        peak_disk_gib=disk / GIB,
        cohort_gib=cohort / GIB,
    )


def peak_memory(pid: int) -> int:
    """Return the peak resident memory of a process in bytes; 0 if it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # Not wait4: it would include the parent's memory, which a child has until it starts its own program.
    return 1024 * sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder, some of which may be removed meanwhile."""
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue  # a temporary file that was just removed
    return sum(sizes)


def show(measured: Sizes) -> None:
    """Print a row for each size."""
    header = ("fraction", "CHARTEVENTS rows", "packed", "seconds", "CHARTEVENTS rows/s", "memory", "temporary files")
    lines = [
        (
            f"{size.factor:.0%}",
            f"{size.chartevents:,}",
            f"{size.packed_gib:.2f} GiB",
            f"{size.seconds:.1f}",
            f"{size.chartevents_per_second:,.0f}",
            f"{size.peak_memory_gib:.2f} GiB",
            f"{size.peak_disk_gib:.2f} GiB",
        )
        for size in measured.sizes
    ]
    print_table("imputune extract mimic3", header, lines)


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.mimic3_size", __doc__ or "")
    parser.add_argument("--factors", default="0.01,0.03,0.1", help="fractions of the full database, by commas")
    parser.add_argument("--tables", type=Path, default=Path("build/mimic3"), help="folder for the generated tables")
    chosen = parser.parse_args()
    try:
        factors = [float(word) for word in chosen.factors.split(",")]
    except ValueError:
        raise UserError(
            f"--factors {chosen.factors!r} must be numbers separated by commas; for instance 0.01,0.1"
        ) from None
    report(Sizes(sizes=[measure(chosen.tables, factor) for factor in factors]), show, chosen.json)


if __name__ == "__main__":
    run(main)
