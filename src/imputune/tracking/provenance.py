"""Where a run comes from: the commit of the code, the versions it ran on, its parameters as flat text."""

import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "numpy")
GIT_SECONDS = 10


def source_tags(root: Path) -> dict[str, str]:
    """Return the run tags that say which code ran on which versions.

    `mlflow.source.git.commit` and `imputune.git_dirty` ("true" when a tracked file differs from the commit)
    are missing where `root` is in no git repository or git is not installed.
    """
    tags = {"imputune.python": platform.python_version()}
    tags |= {f"imputune.{library}": version(library) for library in LIBRARIES}
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is not None and changes is not None:
        tags["mlflow.source.git.commit"] = commit
        tags["imputune.git_dirty"] = "true" if changes else "false"
    return tags


def flattened(params: Mapping[str, Any]) -> dict[str, str]:
    """Return nested parameters as text under dotted keys.

    >>> flattened({"csai": {"hidden": 108, "masking": {"share": 0.1}}, "seed": 7})
    {'csai.hidden': '108', 'csai.masking.share': '0.1', 'seed': '7'}
    """
    return dict(_leaves("", params))


def _leaves(prefix: str, params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", str(value)


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
