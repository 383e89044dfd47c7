"""What every fuzzed case works with: a server, its bundle, params.yaml, an empty folder; and what counts as refused."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.fuzz_inputs import FuzzError
from benchmarks.fuzz_server import Server
from imputune.errors import UserError
from imputune.registry.bundle import Bundle

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the cases need: a server, its bundle, the bundle's folder and checksum, params.yaml, an empty folder."""

    server: Server
    bundle: Bundle
    checksum: str
    models: Path
    params: Path
    templates: Path
    case: Path


def attempt(work: Callable[[], T]) -> T | str:
    """Return what work returns, or the line of its UserError; FuzzError for every other exception, or several lines."""
    try:
        return work()
    except UserError as error:
        line = str(error)
    except Exception as error:
        raise FuzzError(f"{type(error).__name__}: {error}") from error
    if not line or len(line.splitlines()) != 1 or not line.isprintable():
        raise FuzzError(f"an error that is not one line: {line!r}")
    return line
