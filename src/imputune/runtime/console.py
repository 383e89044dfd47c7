"""What commands print on the terminal: progress bars, lines and tables."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

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
from imputune.runtime.recorder import Recorder, Trial

PIPE_WIDTH = 200
screen = Console(stderr=True)
output = Console()
if not output.is_terminal:
    output.width = PIPE_WIDTH


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


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, which gets an s unless the number is 1: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


@contextmanager
def show_epochs(recorder: Recorder, epochs: int) -> Iterator[Recorder]:
    """Give a recorder that shows a bar of `epochs` for each fold; it shows nothing if standard error is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        yield _BarRecorder(recorder, progress, epochs)


@contextmanager
def show_files() -> Iterator[FileProgress]:
    """Give a function that shows a bar for each file; it shows nothing if standard error is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def show(name: str, received: int, size: int | None) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=size)
            progress.update(bars[name], completed=received)

        yield show


def say(text: str) -> None:
    """Print a line on standard error; a long line is not wrapped, and brackets in it are no markup."""
    screen.print(text, soft_wrap=True, highlight=False, markup=False)


def print_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output."""
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*line)
    output.print(table)
