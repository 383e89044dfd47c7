"""The memory of another process, and of work in a process of its own."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from imputune.errors import UserError

SAMPLED_EVERY = 0.02  # seconds
Given = TypeVar("Given")


def memory_of(process: int) -> tuple[int, int]:
    """Return the bytes that a process has of its own, and of mapped files; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = dict(line.split(":", 1) for line in lines)
    own, file = (1024 * int(sizes.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssFile"))
    return own, file


def in_new_process(work: Callable[..., Given], *arguments: object) -> tuple[Given, int]:
    """Return what the work gives in a new process, and the most bytes of its own that the process had meanwhile.

    Raises UserError if the process ends without a result.
    """
    context = multiprocessing.get_context("spawn")
    results, writer = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(work, arguments, writer))
    process.start()
    writer.close()
    assert process.pid is not None
    most = 0
    while not results.poll(SAMPLED_EVERY):
        most = max(most, memory_of(process.pid)[0])
    try:
        result = results.recv()
    except EOFError:
        raise UserError(f"the process of {work.__name__} ended too early: see the lines above") from None
    process.join()
    return result, most


def _send(work: Callable[..., object], arguments: tuple[object, ...], writer: Connection) -> None:
    writer.send(work(*arguments))
