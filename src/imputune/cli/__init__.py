"""The command line: parses, calls pipeline/, prints. The commands are loaded by `main`, once signals are taken over."""

import gc
import io
import sys
from contextlib import suppress
from pathlib import Path

import imputune
from imputune import signals
from imputune.runtime.experiments import use_code_of_copy


def main() -> None:
    """Run the command line; a signal that stops it gives one line and exit code 130.

    An experiment of DVC in a copy of the project runs the copy's code; see `use_code_of_copy`.
    A character that the terminal's or file's encoding does not have is printed as a question mark.
    """
    use_code_of_copy(Path(imputune.__file__).parent)
    try:
        signals.install()
        code = _run()
        signals.over(code)
    except KeyboardInterrupt:
        code = signals.INTERRUPTED
        signals.over(code)
    if code == signals.INTERRUPTED:
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write(f"{signals.LINE}\n")
            sys.stderr.flush()
    gc.freeze()  # the end of the process takes seconds if it collects what PyTorch and MLflow imported
    sys.exit(code)


def _run() -> int:
    """Load the commands and run the one that was called; return its exit code, whatever error a stop led to."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        from imputune.cli.commands import app

        signals.loaded()
        app()
    except SystemExit as ended:
        if ended.code and signals.asked():
            return signals.INTERRUPTED
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        sys.stderr.write(f"{ended.code}\n")  # as Python does when a library ends the process with a message
        return 1
    except Exception:
        if not signals.asked():
            raise
        return signals.INTERRUPTED
    return 0
