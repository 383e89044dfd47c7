"""An extraction run in a project of its own, with its time, memory and temporary files."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from imputune.errors import UserError
from imputune.settings.file import find_root

GIB = 2**30
LOOKED_EVERY = 0.1  # seconds


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """One extraction: seconds of the whole command, its peak resident memory, and the peak of its temporary files.

    cpu_seconds: of all its threads. load: how many processes ran or waited to run when it began, on average over a
    minute. stays, cohort_bytes: of the cohort. told: what it printed on standard error. Sizes are in bytes.
    """

    seconds: float
    cpu_seconds: float
    load: float
    peak_memory: int
    peak_disk: int
    cohort_bytes: int
    stays: int
    told: str


def measure_extraction(words: Sequence[str], scratch: str, cohort: str) -> Extraction:
    """Run `imputune extract` with these words in a temporary project of this project's settings.

    scratch, cohort: the names of its temporary folder and of its cohort in data/. Raises UserError, with the command's
    last line, if it fails.
    """
    with TemporaryDirectory() as home:
        project = Path(home)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(find_root(Path.cwd()) / name, project)
        load, started, used = os.getloadavg()[0], time.perf_counter(), cpu_of_children()
        command = [sys.executable, "-m", "imputune.cli", "extract", *words]
        child = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        disk = memory = 0
        while child.poll() is None:
            disk = max(disk, size_of(project / "data" / scratch))
            memory = max(memory, peak_memory(child.pid))
            time.sleep(LOOKED_EVERY)
        seconds, used = time.perf_counter() - started, cpu_of_children() - used
        assert child.stderr is not None
        told = child.stderr.read()
        if child.returncode:
            lines = told.strip().splitlines() or [f"the extraction ended with code {child.returncode}"]
            raise UserError(lines[-1].removeprefix("error: "))
        folder = project / "data" / cohort
        return Extraction(
            seconds=seconds,
            cpu_seconds=used,
            load=load,
            peak_memory=memory,
            peak_disk=disk,
            cohort_bytes=size_of(folder),
            stays=sum(1 for _ in (folder / "stays.csv").open()) - 1,
            told=told,
        )


def cpu_of_children() -> float:
    """Return the processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
