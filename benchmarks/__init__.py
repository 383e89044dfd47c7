"""Programs that measure imputune, run from the project's folder and no part of the package; here, what they share."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from types import FrameType
from typing import Any, NoReturn

import torch

from imputune.errors import UserError

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """A program's parser, with --json; its complaints are UserErrors, one line each."""

    def __init__(self, module: str, description: str) -> None:
        super().__init__(prog=f"python -m {module}", description=description)
        self.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; --help lists the options")


def run(main: Callable[[], None]) -> None:
    """Run a program: a UserError ends it with one line on standard error and exit code 2, Ctrl-C without a traceback.

    Ctrl-C raises SystemExit, because PyPOTS takes a KeyboardInterrupt for the wish to end its training alone.
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
    """Return the seconds that a piece of work takes, with what it leaves a GPU to do."""
    _wait_for_gpu()
    started = time.perf_counter()
    work()
    _wait_for_gpu()
    return time.perf_counter() - started


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def spread(numbers: Sequence[float]) -> dict[str, float]:
    """Return the median and the extremes of a quantity measured several times."""
    return {"median": median(numbers), "lowest": min(numbers), "highest": max(numbers)}


def report(found: dict[str, Any], show: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    """Print what was found, as JSON or by `show`."""
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
