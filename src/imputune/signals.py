"""Stopping a command: what Ctrl-C (SIGINT), SIGTERM and SIGHUP do, at any moment of its life.

The handler only notes the signal and raises KeyboardInterrupt, where that can do no harm:

- In a `held` section, the end of the section raises it. Sections are short: a write to the tracking store, a rename.
- During an import and in `__del__`, Python or a library would lose the exception or answer it with a traceback. There
  it is raised a moment later. While a command loads, nothing is there to undo, and the process ends at once.

It is raised once, so that nothing disturbs what ends the run and removes unfinished files. All signals within a second
are one stop: a terminal and `mlflow run` send several. A later signal ends the process at once. So does a stop that
takes eight seconds. A thread of its own does both, because Python calls handlers only between two steps of the main
thread, which may be waiting for a server. Worker processes end with their command.
"""

import atexit
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
LINE = "interrupted: finished work is kept; run the same command again to continue"
LINE_AT_ONCE = "interrupted: ended at once; run the same command again to continue"
SAME_STOP_SECONDS = 1.0
LONGEST_SECONDS = 8.0
RETRY_SECONDS = 0.02
IMPORTING = "<frozen importlib._bootstrap>"


@dataclass(kw_only=True)
class _State:
    """Where a command stands.

    Whether it is `loaded`; whether a stop was `asked` for and `raised`; how many `held` sections are open; its
    `exit_code` once it is over.
    """

    loaded: bool = False
    asked: bool = False
    raised: bool = False
    held: int = 0
    exit_code: int | None = None


_state = _State()


def install() -> None:
    """Take over the signals for the rest of this process; one that is ignored, as SIGHUP under nohup, stays ignored."""
    global _state
    _state = _State()
    ours = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # the system's handler writes each signal's number there
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    atexit.register(_ignore, ours)  # the first to be registered runs last, and then Python forgets the handlers
    signal.signal(signal.SIGALRM, _retry)
    for number in ours:
        signal.signal(number, _note)


def loaded() -> None:
    """Say that the command is loaded: from now on, a stop lets an import end, and then what was begun is undone."""
    _state.loaded = True


def asked() -> bool:
    """Whether a signal has asked this command to stop."""
    return _state.asked


def over(exit_code: int) -> None:
    """Say that the command is over: from now on, only a second signal does anything."""
    _state.exit_code = exit_code


def check() -> None:
    """Raise KeyboardInterrupt if a stop was asked for; for loops, in case a library swallowed the exception."""
    if _state.asked and not _state.held:
        _state.raised = True
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Let the block finish before a stop; its end raises KeyboardInterrupt if one was asked for meanwhile.

    Outside the main thread it does nothing: no signal arrives there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
        _raise_if_asked()


@contextmanager
def released() -> Iterator[None]:
    """Let a stop interrupt the block, inside a held section that undoes what the block leaves unfinished."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.held -= 1
    try:
        _raise_if_asked()
        yield
    finally:
        _state.held += 1


def _raise_if_asked() -> None:
    if _state.asked and not _state.raised and not _state.held and _state.exit_code is None:
        _state.raised = True
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    _state.asked = True
    _retry(number, frame)


def _retry(number: int, frame: FrameType | None) -> None:
    importing, deleting = _delicate(frame)
    if importing and not _state.loaded and not _state.held and not _state.raised and _state.exit_code is None:
        _end_at_once(LINE)
    if importing or deleting:
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
        return
    _raise_if_asked()


def _delicate(frame: FrameType | None) -> tuple[bool, bool]:
    """Say whether an import and a `__del__` are under way."""
    importing = deleting = False
    while frame is not None:
        importing |= frame.f_code.co_filename == IMPORTING
        deleting |= frame.f_code.co_name == "__del__"
        frame = frame.f_back
    return importing, deleting


def _watch(reader: int) -> None:
    """End the process at a second signal, or when a stop takes too long."""
    stops = {int(number) for number in STOPS}
    first: float | None = None
    while True:
        wait = None if first is None else max(0.0, first + LONGEST_SECONDS - time.monotonic())
        if not select.select([reader], [], [], wait)[0]:
            _end_at_once(LINE_AT_ONCE)
        if stops.isdisjoint(os.read(reader, 1024)):
            continue
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > SAME_STOP_SECONDS:
            _end_at_once(LINE_AT_ONCE)


def _end_at_once(line: str) -> None:
    if _state.exit_code is None:
        with suppress(OSError):  # the terminal may be gone
            os.write(2, f"{line}\n".encode())
    os._exit(INTERRUPTED if _state.exit_code is None else _state.exit_code)


def _ignore(numbers: list[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
