"""Environment variables for a while."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables inside the block, or remove those with None; afterwards they are as before."""
    before = {name: os.environ.get(name) for name in settings}
    _apply(settings)
    try:
        yield
    finally:
        _apply(before)


def _apply(settings: Mapping[str, str | None]) -> None:
    for name, text in settings.items():
        if text is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = text
