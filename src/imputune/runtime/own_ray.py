"""A Ray of this machine for one command: its options, its token, and the folders that only this user can read."""

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

from filelock import FileLock, Timeout

from imputune.runtime.environment import environment

FOLDER, LOCK = "imputune-ray-", "lock"
ENDING_SECONDS = 5.0  # until a killed process is gone
SURELY_LOCKED_SECONDS = 5.0  # after its folder was made, a lock that can be taken has no owner


@contextmanager
def options_of_own(cores: int, retries: int) -> Iterator[dict[str, object]]:
    """Yield the options of a cluster of this machine, inside its environment; its folders are removed afterwards.

    Sockets have short paths only in /tmp, where Ray puts them by default too.
    """
    own = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_AUTH_MODE": None,  # without it, a cluster that is started asks for a token
    }
    with (
        private_folder(Path("/tmp")) as session,
        private_folder(Path(tempfile.gettempdir())) as spilled,
        environment(own),
    ):
        options: dict[str, object] = {
            "address": "local",
            "num_cpus": cores,
            "include_dashboard": False,
            "_temp_dir": str(session / "ray"),  # Ray lets everybody write to its own folder, hence one in ours
            "object_spilling_directory": str(spilled),
            "_node_ip_address": "127.0.0.1",
            # Ray's default priority, 15, would let all else on this machine go first; the local pool has 0 too.
            "_system_config": {"task_oom_retries": retries, "worker_niceness": 0},
        }
        try:
            yield options
        finally:
            # Where its start fails, Ray forgets what it has started, and that would make the folder again.
            end_processes(session / "ray")


@contextmanager
def private_files() -> Iterator[None]:
    """Inside the block, let only this user read new files, also those of processes that are started there."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def end_processes(folder: Path) -> None:
    """Kill the processes whose command line names a folder, and what they have started; wait until they are gone."""
    named = [number for number, _, words in _processes() if str(folder) in words]
    for number in named:
        _send(number, signal.SIGSTOP)  # so that it starts no other meanwhile
    ending = set(named)
    found = _processes()
    while further := {number for number, parent, _ in found if parent in ending} - ending:
        ending |= further
    for number in ending:
        _send(number, signal.SIGKILL)
    until = time.monotonic() + ENDING_SECONDS
    while ending & {number for number, _, _ in _processes()} and time.monotonic() < until:
        time.sleep(0.02)


def _processes() -> list[tuple[int, int, str]]:
    """Return the living processes other than this one: number, parent's number, command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX" and int(entry.name) != os.getpid():
                found.append((int(entry.name), int(parent), (entry / "cmdline").read_text(errors="replace")))
    return found


def _send(number: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(number, what)


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder that only this user can read; remove it afterwards, and those that killed commands left."""
    for left in parent.glob(f"{FOLDER}*"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))
    lock = FileLock(folder / LOCK)
    lock.acquire(timeout=0)
    try:
        yield folder
    finally:
        with suppress(OSError):
            _remove(folder)
        lock.release()


def _remove_if_left(folder: Path) -> None:
    """Remove the folder of a command that has ended: its lock is free, or gone. Others' folders stay."""
    with suppress(OSError, Timeout):
        facts = folder.lstat()  # of a link itself: in /tmp, others may make one to a folder of this user
        if not S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            return
        path = folder / LOCK
        changed = path.stat().st_mtime if path.exists() else facts.st_mtime
        if time.time() - changed > SURELY_LOCKED_SECONDS:
            with FileLock(path).acquire(timeout=0):
                _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: until then, the next command sees whether somebody still removes it."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
