"""The command line: parses, calls pipeline/, prints."""

import signal
from types import FrameType

from imputune.cli import compare, data, models, training
from imputune.cli.app import app

__all__ = ["app", "compare", "data", "main", "models", "training"]


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; SIGTERM ends a command as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminate)
    app()
