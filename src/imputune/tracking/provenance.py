"""Which code, versions and parameters a run comes from, as text for the tracking store."""

import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from imputune.models.compiled.library import name_of_code
from imputune.runtime.experiments import experiment_of

DVC_EXPERIMENT = "dvc_experiment"
DVC_EXPERIMENT_TAG = f"imputune.{DVC_EXPERIMENT}"
"""The tag of what an experiment of DVC made in a copy of the project: the experiment's name."""
LIBRARIES = ("torch", "numpy")
GIT_SECONDS = 10


def source_tags(root: Path) -> dict[str, str]:
    """Return the run tags that name the code's commit and the versions of Python, torch and numpy.

    `imputune.compiled` names the compiled code that this process uses.
    `imputune.git_dirty` is "true" when a tracked file differs from the commit. Where `root` is in no git repository
    or git is not installed, this tag and `mlflow.source.git.commit` are missing. In the copy of the project in which
    an experiment of DVC runs, `imputune.dvc_experiment` has the experiment's name.
    """
    tags = {"imputune.python": platform.python_version()}
    tags |= {f"imputune.{library}": version(library) for library in LIBRARIES}
    tags["imputune.compiled"] = name_of_code()
    if experiment := experiment_of(root):
        tags[DVC_EXPERIMENT_TAG] = experiment
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is not None and changes is not None:
        tags["mlflow.source.git.commit"] = commit
        tags["imputune.git_dirty"] = "true" if changes else "false"
    return tags


def flattened(params: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return nested parameters as text under dotted keys.

    >>> flattened({"csai": {"hidden_size": 108}, "masking": {"rate": 0.1}, "seed": 7})
    {'csai.hidden_size': '108', 'masking.rate': '0.1', 'seed': '7'}
    """
    return dict(_leaves("", params))


def _leaves(prefix: str, params: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        if isinstance(value, dict) and value:
            yield from _leaves(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", str(value)


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout.strip()
