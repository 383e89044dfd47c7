"""A project that DVC has taken over."""

import shutil
from pathlib import Path

import pytest

from dvc_projects import dvc, git
from imputune.tracking.moved import follow_move
from projects import ROOT, copy_of


@pytest.fixture(scope="session")
def handed_over(_shared_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose outputs imputune's commands made, in git, and handed to DVC; to be read only."""
    folder = copy_of(_shared_project, tmp_path_factory.mktemp("dvc"))
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    git(folder, "init", "--quiet")
    dvc(folder, "commit --force")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "results")
    return folder


@pytest.fixture
def owner(handed_over: Path, tmp_path: Path) -> Path:
    """A copy of that project, with a store of its own."""
    copy = tmp_path / "owner"
    shutil.copytree(handed_over, copy, ignore=shutil.ignore_patterns("tmp"))
    follow_move(copy / "mlflow.db")
    return copy
