"""Programs that measure imputune, run from the project's folder; not part of the package. Here is what they share."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
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

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; --help lists the options")


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
