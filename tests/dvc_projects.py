"""Commands of git and DVC in projects that tests hand over to DVC, and what its caches and remotes have."""

import re
import subprocess
from hashlib import md5
from pathlib import Path

from projects import run_all


def git(folder: Path, *words: str) -> str:
    """Run git in a folder; return what it printed."""
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def dvc(folder: Path, *commands: str) -> str:
    """Run commands of DVC in a folder, one after the other; return what they printed."""
    done = run_all(folder, [["dvc", *words.split()] for words in commands])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ran(printed: str) -> list[str]:
    """Return the stages that DVC ran."""
    return re.findall("Running stage '(.*)'", printed)


def hashes(folder: Path) -> set[str]:
    """Return the hashes under which DVC knows the files of a folder."""
    return {md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in folder.rglob("*") if path.is_file()}


def objects(store: Path) -> set[str]:
    """Return the hashes of what a cache or a remote has."""
    return {path.parent.name + path.name for path in store.glob("files/md5/*/*")}
