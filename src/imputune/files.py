"""Writing files and folders in one step, so that nobody reads half of one."""

import errno
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from uuid import uuid4

from imputune import signals
from imputune.errors import UserError

FileProgress = Callable[[str, int, int | None], None]
"""Takes a file's name, its bytes read so far, and its size if that is known."""


def no_progress(name: str, done: int, size: int | None) -> None:
    """Ignore a report of progress."""


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty folder to fill; it replaces `folder` when the block ends without an error.

    If the block fails, `folder` stays as it was and the new one is removed. A link to a folder keeps its place.
    Raises UserError when the system refuses to write (a full disk, no permission).
    """
    target = folder.resolve()
    fresh = _temporary(target)
    earlier = fresh.with_suffix(".old")
    with signals.held():
        try:
            fresh.mkdir(parents=True)
            with signals.released():
                yield fresh
            if target.exists():
                target.rename(earlier)
            fresh.rename(target)
            _remove_of_ended(target)
        except OSError as error:
            raise _refused(folder, error) from error
        finally:
            if earlier.exists() and not target.exists():
                earlier.rename(target)
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(earlier, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder that nobody writes to."""
    for path in [*folder.glob(".*.new"), *folder.glob(".*.old")]:
        _remove(path)


def replace_text(path: Path, text: str) -> None:
    """Write a text file in one step, as UTF-8; see `replace_bytes`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step, its folder made if need be; raises UserError when the system refuses."""
    temporary = _temporary(path)
    with signals.held():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(content)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            _remove_of_ended(path)
        except OSError as error:
            raise _refused(path, error) from error


def host_name() -> str:
    """Return the name of this machine or container, in letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]", "-", socket.gethostname()) or "-"


def _temporary(path: Path) -> Path:
    """Return a new name beside a path, which says which process on which machine uses it."""
    return path.with_name(f".{path.name}.{host_name()}.{os.getpid()}.{uuid4().hex}.new")


def _remove_of_ended(path: Path) -> None:
    """Remove the temporary files for a path that a killed process of this machine left."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.{host_name()}\.([1-9][0-9]{{0,8}})\.[0-9a-f]{{32}}\.(?:new|old)")
    for left in path.parent.glob(f".{escape(path.name)}.*"):
        found = ours.fullmatch(left.name)
        if found and _has_ended(int(found[1])):
            _remove(left)


def _has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # another user's
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> UserError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.ENOTEMPTY:
        return UserError(f"cannot write {path}: another command wrote it at the same time; run this one again")
    return UserError(f"cannot write {path}: {reason}; free the disk or choose another folder")
