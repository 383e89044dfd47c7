"""The command line: parses, calls pipeline/, prints."""

import io
import signal
import sys
from types import FrameType

from imputune.cli import compare, data, models, training
from imputune.cli.app import app

__all__ = ["app", "compare", "data", "main", "models", "training"]


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; SIGTERM ends a command as Ctrl-C does.

    A character that the terminal's or file's encoding does not have is printed as a question mark.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _terminate)
    app()
