"""Programs that measure imputune, run from the project's folder; not part of the package. Here is what they share."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import FrameType
from typing import NoReturn, TypeVar

import torch
from pydantic import BaseModel, ConfigDict

from imputune.errors import UserError
from imputune.signals import INTERRUPTED


class Result(BaseModel):
    """The measurements of a program, or one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(Result):
    """The median and the extremes of a quantity that was measured several times."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread":
        """Summarise one or more numbers."""
        return cls(median=median(numbers), lowest=min(numbers), highest=max(numbers))

    def as_text(self) -> tuple[str, str, str]:
        """Return the three numbers for a row of a table."""
        return f"{self.median:.2f}", f"{self.lowest:.2f}", f"{self.highest:.2f}"


Measured = TypeVar("Measured", bound=Result)


class Parser(argparse.ArgumentParser):
    """A program's parser with the option --json; bad input is a UserError with one line."""

    def __init__(self, module: str, description: str) -> None:
        super().__init__(prog=f"python -m {module}", description=description)
        self.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def add_timed_epochs(self, default: int) -> None:
        """Add --epochs: how many epochs each program trains; at least 2, because the first is not timed."""
        text = "of each; the first is not timed (%(default)s)"
        self.add_argument("--epochs", type=_timed_epochs, default=default, help=text)

    def add_other_version(self) -> None:
        """Add OTHER_SRC, the folder src of another version of imputune."""
        self.add_argument("other", type=_source_folder, metavar="OTHER_SRC", help="folder src of the other version")

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; --help lists the options")


def _timed_epochs(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"--epochs must be a whole number from 2 on: the first is not timed; got {text}")
    return int(text)


def _source_folder(text: str) -> Path:
    folder = Path(text)
    if not (folder / "imputune" / "cli").is_dir():
        raise UserError(f"OTHER_SRC {folder} has no imputune/cli: give the folder src of another version")
    return folder.resolve()


def run(main: Callable[[], None]) -> None:
    """Run a program: a UserError ends it with one line on standard error and exit code 2, Ctrl-C without a traceback.

    Ctrl-C raises SystemExit, because PyPOTS catches KeyboardInterrupt and only ends its training.
    """
    signal.signal(signal.SIGINT, _interrupt)
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(INTERRUPTED)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a piece of work takes, its work on a GPU included."""
    _wait_for_gpu()
    started = time.perf_counter()
    work()
    _wait_for_gpu()
    return time.perf_counter() - started


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def report(measured: Measured, show: Callable[[Measured], None], as_json: bool) -> None:
    """Print the measurements, as JSON or with `show`."""
    if as_json:
        print(measured.model_dump_json(indent=1))
    else:
        show(measured)
