"""Time and memory of `imputune extract mimic3` on generated tables, at several shares of the full database.

    python -m benchmarks.mimic3_size --factors 0.01,0.03,0.1

Tables go to --tables and stay there for the next time; 10 % takes 0.7 GB and 3 minutes to make.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import Parser, report, run
from benchmarks.mimic3_tables import ROWS, write_tables
from imputune.errors import UserError
from imputune.runtime.console import print_table
from imputune.settings.file import find_root

GIB = 2**30
EVENTS = ("chartevents", "labevents", "outputevents", "inputevents_cv", "inputevents_mv")


def measure(tables: Path, factor: float) -> dict[str, Any]:
    """Extract once from tables of this size, made before if they are not there; return what it took.

    Seconds are of the whole command, memory is its resident peak, disk that of its temporary files.
    """
    folder = tables / f"{factor:g}"
    if not (folder / "INPUTEVENTS_MV.csv.gz").is_file():
        write_tables(folder, factor)
    with TemporaryDirectory() as home:
        place = Path(home)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(find_root(Path.cwd()) / name, place)
        started = time.perf_counter()
        command = [sys.executable, "-m", "imputune.cli", "extract", "mimic3", "--raw", str(folder.resolve())]
        child = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        disk = memory = 0
        while child.poll() is None:
            disk = max(disk, _size(place / "data/.mimic3.scratch"))
            memory = max(memory, _peak_memory(child.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        if child.returncode:
            assert child.stderr is not None
            raise UserError(child.stderr.read().decode().strip().removeprefix("error: "))
        cohort = _size(place / "data/mimic3")
    charted = round(ROWS["chartevents"] * factor)
    return {
        "factor": factor,
        "chartevents": charted,
        "event_rows": sum(round(ROWS[name] * factor) for name in EVENTS),
        "packed_gib": _size(folder) / GIB,
        "seconds": seconds,
        "chartevents_per_second": charted / seconds,
        "peak_memory_gib": memory / GIB,
        "peak_disk_gib": disk / GIB,
        "cohort_gib": cohort / GIB,
    }


def _peak_memory(pid: int) -> int:
    """Return the bytes that a process has held at most; 0 where it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # wait4 would tell of the parent's memory, which a child has until it begins its own program.
    return 1024 * sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def _size(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue  # a temporary file, removed just now
    return sum(sizes)


def show(found: dict[str, Any]) -> None:
    """Print a row for each size."""
    header = ("share", "CHARTEVENTS rows", "packed", "seconds", "CHARTEVENTS rows/s", "memory", "temporary files")
    lines = [
        (
            f"{row['factor']:.0%}",
            f"{row['chartevents']:,}",
            f"{row['packed_gib']:.2f} GiB",
            f"{row['seconds']:.1f}",
            f"{row['chartevents_per_second']:,.0f}",
            f"{row['peak_memory_gib']:.2f} GiB",
            f"{row['peak_disk_gib']:.2f} GiB",
        )
        for row in found["sizes"]
    ]
    print_table("imputune extract mimic3", header, lines)


def main() -> None:
    """Measure the sizes that the command line asks for."""
    parser = Parser("benchmarks.mimic3_size", __doc__ or "")
    parser.add_argument("--factors", default="0.01,0.03,0.1", help="of the full database's row counts, by commas")
    parser.add_argument("--tables", type=Path, default=Path("build/mimic3"), help="where generated tables are kept")
    chosen = parser.parse_args()
    try:
        factors = [float(word) for word in chosen.factors.split(",")]
    except ValueError:
        raise UserError(f"--factors {chosen.factors!r} are no numbers by commas; for instance 0.01,0.1") from None
    report({"sizes": [measure(chosen.tables, factor) for factor in factors]}, show, chosen.json)


if __name__ == "__main__":
    run(main)
