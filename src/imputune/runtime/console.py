"""What commands print on the terminal: progress bars, lines and tables, and how much of it."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import cache

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from imputune.files import FileProgress
from imputune.runtime.epoch_lines import SECONDS_BETWEEN, EpochLines, LineRecorder, Say, TrainingPlan
from imputune.runtime.recorder import Recorder, Trial

PIPE_WIDTH = 200
STDERR = 2
screen = Console(stderr=True)
output = Console()
if not output.is_terminal:
    output.width = PIPE_WIDTH


class Verbosity(Enum):
    """How much of its work a command shows.

    QUIET: results, warnings and errors alone. NORMAL: also notes and progress. VERBOSE: every epoch, and the debug
    lines of the package's loggers.
    """

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


class _ScreenHandler(logging.Handler):
    """Prints log records as `say` prints lines, above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        screen.print(self.format(record), soft_wrap=True, highlight=False, markup=False)


_verbosity = Verbosity.NORMAL
_log = _ScreenHandler()
_log.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))


def set_verbosity(verbosity: Verbosity) -> None:
    """Set how much this process shows from now on."""
    global _verbosity
    _verbosity = verbosity
    logger, verbose = logging.getLogger("imputune"), verbosity is Verbosity.VERBOSE
    logger.setLevel(logging.DEBUG if verbose else logging.NOTSET)
    (logger.addHandler if verbose else logger.removeHandler)(_log)


def verbosity() -> Verbosity:
    """Return how much this process shows."""
    return _verbosity


class _BarRecorder:
    """A recorder that shows a progress bar for each fold and passes every report on."""

    def __init__(self, inner: Recorder, progress: Progress, epochs: int) -> None:
        self.inner, self.progress, self.epochs = inner, progress, epochs
        self.bars: dict[int, TaskID] = {}

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self.inner.epoch(fold, epoch, metrics)
        if fold not in self.bars:
            self.bars[fold] = self.progress.add_task(f"fold {fold}", total=self.epochs)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if "validation" in name)
        self.progress.update(self.bars[fold], completed=epoch + 1, description=f"fold {fold}  {shown}")

    def trial_finished(self, fold: int, trial: Trial) -> None:
        self.inner.trial_finished(fold, trial)

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        self.inner.fold_finished(fold, metrics)
        if (bar := self.bars.get(fold)) is not None:  # some imputers train no epoch
            self.progress.update(bar, total=self.progress.tasks[bar].completed)


def counted_each(counts: Mapping[str, int]) -> str:
    """Return numbers with what they count, such as "3 without an outcome, 1 empty"; what counts 0 is left out."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, which gets an s unless the number is 1: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


@contextmanager
def show_epochs(recorder: Recorder, plan: TrainingPlan) -> Iterator[Recorder]:
    """Give a recorder that shows a bar for each fold, and lines where `epoch_lines` has some."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    lines = epoch_lines(say)
    with Progress(*columns, console=screen, disable=not _shows_bars()) as progress:
        bars = _BarRecorder(recorder, progress, plan.epochs)
        yield LineRecorder(bars, lines, plan) if lines else bars


def epoch_lines(tell: Say) -> EpochLines | None:
    """Return what tells of epochs in lines; None where standard error is a terminal, unless the command is verbose.

    Every epoch of a verbose command has a line; none if the command is quiet.
    """
    if _verbosity is Verbosity.VERBOSE:
        return EpochLines(tell, seconds=0)
    return None if _verbosity is Verbosity.QUIET or screen.is_terminal else EpochLines(tell, SECONDS_BETWEEN)


@contextmanager
def show_files() -> Iterator[FileProgress]:
    """Give a function that shows a bar for each file; it shows nothing if standard error is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not _shows_bars()) as progress:
        bars: dict[str, TaskID] = {}

        def show(name: str, received: int, size: int | None) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=size)
            progress.update(bars[name], completed=received)

        yield show


def say(text: str) -> None:
    """Print a line on standard error unless the command is quiet; it is not wrapped, and brackets are no markup."""
    if _verbosity is not Verbosity.QUIET:
        warn(text)


@cache
def say_once(text: str) -> None:
    """Print a line as `say` does, the first time that this process asks for it."""
    say(text)


def warn(text: str) -> None:
    """Print a line as `say` does, also if the command is quiet: it limits what a result means, or was not done."""
    screen.print(text, soft_wrap=True, highlight=False, markup=False)


def _shows_bars() -> bool:
    return screen.is_terminal and _verbosity is not Verbosity.QUIET


def print_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output."""
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*line)
    output.print(table)


@contextmanager
def without_lines(unwanted: re.Pattern[bytes]) -> Iterator[None]:
    """Inside the block, keep what this process writes to stderr, also compiled code; write the wanted lines at its end.

    unwanted: lines in which it is found are left out.
    """
    sys.stderr.flush()
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, STDERR)
            os.close(kept)
            written.seek(0)
            for line in written:
                if not unwanted.search(line):
                    os.write(STDERR, line)
