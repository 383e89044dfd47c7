"""Copies of the project for tests that run its commands."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from imputune.cli import app

ROOT = Path(__file__).parent.parent
STAYS = 60
OUTER = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "DVC_STAGE")
COMMAND = [sys.executable, "-m", "imputune.cli"]


def run(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command inside a project folder, free of any outer tracking or dvc."""
    return subprocess.run(
        words, cwd=project, env=clean_environment() | environment, capture_output=True, text=True, timeout=900
    )


def clean_environment() -> dict[str, str]:
    """Return this process's environment without mlflow's and dvc's variables, this interpreter first on PATH."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def invoke(project: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str] | None = None):
    """Run an imputune command inside a project folder, in this process."""
    monkeypatch.chdir(project)
    for name, text in (environment or {}).items():
        monkeypatch.setenv(name, text)
    return CliRunner().invoke(app, words)


def finished(project: Path, words: list[str]) -> Result:
    """Run an imputune command in this process as a fixture of many tests does, free of any outer tracking or dvc."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in OUTER:
            monkeypatch.setenv(name, "")  # so that what the command sets is undone
            monkeypatch.delenv(name)
        done = invoke(project, words, monkeypatch)
    assert done.exit_code == 0, done.output
    return done


def copy_of(project: Path, folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Copy the project with a store of its own: new runs of `imputune` go there, the old ones stay readable."""
    copy = folder / "copy"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".dvc", "mlruns", *without))
    if (copy / "mlflow.db").exists():
        with closing(sqlite3.connect(copy / "mlflow.db")) as store, store:
            store.execute(
                "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)", (str(project), str(copy))
            )
    return copy


def edit(copy: Path, pattern: str, text: str) -> None:
    """Change params.yaml."""
    before = (copy / "params.yaml").read_text()
    after = re.sub(pattern, text, before)
    assert after != before
    (copy / "params.yaml").write_text(after)


def refused(result: Result) -> str:
    """Return the one line of a command that was refused."""
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
