"""One command of a tiny project: running it to its end, or stopping it and noting what went wrong.

Signals are SIGKILL (to the command, its process group, or a worker), SIGTERM, SIGINT and SIGHUP (to the command or its
group), and two of them one after the other. A stop must end the command and its workers within ten seconds, without a
traceback; a stop other than SIGKILL gives one line and exit code 130, marks the run, and leaves no unfinished file.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.stopped_project import ROOT, running, temporary_files
from imputune.errors import UserError
from imputune.signals import LINE, LINE_AT_ONCE

LIMIT_SECONDS = 10.0
SECOND_SIGNAL_SECONDS = 1.5
WORST_SECONDS = 120.0
LAST_LINES = 6  # of what was printed, shown where something unwanted is among it
UNWANTED = ("Traceback", "Exception", "Warning", "leaked", "resource_tracker")


@dataclass(frozen=True)
class Command:
    """A command, how often a round stops it, and what it leaves: a second run would train anew what is there."""

    words: tuple[str, ...]
    share: int
    output: str = ""
    unfinished: str = ""

    def is_done(self, project: Path) -> bool:
        """Whether an earlier try did all its work, and was stopped after it."""
        folder = project / "artifacts/synthetic/unfinished" / self.unfinished
        return bool(self.output) and (project / self.output / "result.json").is_file() and not folder.exists()


@dataclass(kw_only=True)
class Stop:
    """A stop: what was stopped when and how, how long it took to end, and what was wrong."""

    command: str
    signal: str
    target: str
    moment: float
    seconds: float = 0.0
    exit_code: int | None = None
    before_start: bool = False
    done: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The signal and its target."""
        return f"{self.signal} to the {self.target}"


class Running:
    """A command that runs in a process group of its own."""

    def __init__(self, project: Path, words: Sequence[str]) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
        kept = {key: text for key, text in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
        self.project = project
        self.log = project.parent / f"{project.name}.stderr"
        self.started = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "imputune.cli", *words],
                cwd=project,
                env=kept | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                preexec_fn=_as_in_a_terminal,
            )

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self.process.poll() is not None

    @property
    def heeds_signals(self) -> bool:
        """Whether the command has taken over its signals; before that, Python is starting."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def group(self) -> dict[int, tuple[int, str]]:
        """Return the living processes of the group by id, each with its parent's id and its command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, parent, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    found[int(folder.name)] = int(parent), (folder / "cmdline").read_text()
            except (OSError, ValueError):
                continue  # it has just ended
        return found

    def workers(self) -> list[int]:
        """Return the processes that were forked to train."""
        group = self.group()
        servers = {pid for pid, (parent, line) in group.items() if "forkserver" in line and parent == self.process.pid}
        return [pid for pid, (parent, _) in group.items() if parent in servers]

    def wait(self, seconds: float) -> bool:
        """Wait until the command and all its processes have ended; False after so many seconds."""
        until = time.monotonic() + seconds
        while not self.ended or self.group():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def end(self) -> None:
        """Leave no process behind."""
        for pid in [*self.group(), *([] if self.ended else [self.process.pid])]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def problems(self) -> list[str]:
        """Return what standard error has that no command may print."""
        lines = self.log.read_text(errors="replace").splitlines()
        found = [f"printed {line!r}" for line in lines if any(word in line for word in UNWANTED)]
        return [*found, f"its last lines: {lines[-LAST_LINES:]}"] if found else []


def _as_in_a_terminal() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def finish(project: Path, command: Command) -> float:
    """Run a command to its end; return its seconds. UserError when it fails."""
    started = Running(project, command.words)
    try:
        ended = started.wait(WORST_SECONDS)
    finally:
        started.end()
    if not ended or started.process.returncode or started.problems():
        what = f"ended with exit code {started.process.returncode}" if ended else "does not end"
        raise UserError(f"{' '.join(command.words)} in {project} {what}: {started.log} has what it printed")
    return time.monotonic() - started.started


def stop(project: Path, command: Command, kind: tuple[str, str], moment: float) -> Stop | None:
    """Start a command and stop it after `moment` seconds; None when it ended before."""
    name, target = kind
    record = Stop(command=command.words[0], signal=name, target=target, moment=round(moment, 3))
    temporary, marked = temporary_files(project), running(project)
    started = Running(project, command.words)
    try:
        while time.monotonic() - started.started < moment and not started.ended:
            time.sleep(0.002)
        victims = started.workers() if target == "worker" else []
        while target == "worker" and not victims and not started.ended:
            time.sleep(0.005)
            victims = started.workers()
        if started.ended:
            record.exit_code = started.process.returncode
            record.problems = [f"exit code {record.exit_code} without a stop"] if record.exit_code else []
            return record if record.problems else None
        record.before_start = not started.heeds_signals
        _send(started, name, target, victims)
        sent = time.monotonic()
        on_time = started.wait(LIMIT_SECONDS)
        record.seconds = round(time.monotonic() - sent, 3)
        if not on_time:
            what = "it" if not started.ended else "a process that it started"
            record.problems.append(f"{what} had not ended after {LIMIT_SECONDS:.0f} s")
            started.wait(WORST_SECONDS)
    finally:
        started.end()
    record.exit_code = started.process.returncode
    record.done = record.exit_code == 0 or command.is_done(project)
    record.problems += _problems(started, record)
    if record.exit_code in (0, 130) and not record.signal.endswith("twice"):
        # What a command that was killed left, this one may not have come to.
        if (left := running(project)) > marked:
            record.problems.append(f"{left - marked} runs are left RUNNING")
        record.problems += [f"{path} is left over" for path in sorted(temporary_files(project) - temporary)]
    return record


def _send(started: Running, name: str, target: str, victims: list[int]) -> None:
    number = signal.Signals[name.split()[0]]
    try:
        if target == "group":
            os.killpg(started.process.pid, number)
        elif target == "worker":
            os.kill(victims[0], number)
        else:
            started.process.send_signal(number)
            if name.endswith("twice"):
                time.sleep(SECOND_SIGNAL_SECONDS)
                started.process.send_signal(number)
    except ProcessLookupError:
        return


def _problems(started: Running, record: Stop) -> list[str]:
    """Return what is wrong with a stopped command's exit code and lines."""
    if record.before_start and record.exit_code != 0:
        return []  # Python itself was starting
    found = started.problems()
    lines = started.log.read_text(errors="replace").splitlines()
    code = record.exit_code
    if record.signal == "SIGKILL":
        wanted = {"worker": (0, 2)}.get(record.target, (0, -signal.SIGKILL))
        if code == 2 and [line for line in lines if line.startswith("error: ")] != lines[-1:]:
            found.append("not one line of error, at the end")
    else:
        wanted = (0, 130)
        told = [line for line in lines if line in (LINE, LINE_AT_ONCE)]
        if code == 130 and told != lines[-1:]:
            found.append(f"not one line that it was interrupted, at the end, but {lines[-3:]}")
    if code not in wanted:
        found.append(f"exit code {code}, wanted one of {wanted}")
    return found
