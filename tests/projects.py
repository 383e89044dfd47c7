"""Copies of the project for tests that run its commands."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from imputune.cli.commands import app
from imputune.tracking.moved import follow_move

ROOT = Path(__file__).parent.parent
STAYS, FOLDS = 60, 3
OUTER = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "DVC_STAGE")
COMMAND = [sys.executable, "-m", "imputune.cli"]
SHARED = ".shared"  # the file that marks a project that tests may read only
LOCKS = {".mlflow-store.lock"}  # reading a store takes this lock
ONE_AFTER_THE_OTHER = """
import gc
gc.disable()
import json, sys
from dvc.cli import main
from imputune.cli.commands import app
from imputune.runtime import local_pool
local_pool.POLL_SECONDS = 0.02
local_pool.PRELOADED.append("torch._dynamo")
local_pool.start_preloading()
for name, *words in json.loads(sys.argv[1]):
    code = main(words) if name == "dvc" else app(words, standalone_mode=False)
    if code:
        break
gc.freeze()
sys.exit(code)
"""  # with as little time as may be spent on imports and on the end
TINY: dict[str, Any] = {
    **{
        f"budget.{dataset}": {"pretrain_epochs": 2, "frozen_epochs": 3, "unfrozen_epochs": 2}
        for dataset in ("synthetic", "physionet2012", "mimic3")
    },
    "synthetic.stays": STAYS,
    "folds.count": FOLDS,
    "csai": {"hidden_size": 8, "channels": 8, "attention_heads": 2, "feedforward": 8},
    "heads.mlp_width": 8,
    "schedules.optuna.trials": 6,
    "schedules.optuna.startup_trials": 2,
    **{f"rivals.{name}": value for name, value in {"epochs": 2, "rates": [0.01, 0.001], "rate_epochs": 1}.items()},
    "rivals.seft": {"width": 8, "layers": 2, "heads": 2, "time_channels": 4, "dropout": 0.1},
    "rivals.mtan": {"hidden_size": 8, "heads": 1, "time_channels": 4, "reference_points": 4},
    "non_neural.xgboost.trees": 20,
    "non_neural.svm.costs": [1.0],
    "assess.rates": [0.1],
    "promote.resamples": 30,
    "evaluate.resamples": 30,
}
"""Sizes of params.yaml with which a command takes a second or two."""


def run(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command inside a project folder, free of any outer tracking or dvc."""
    _refuse_shared(project)
    return subprocess.run(
        words, cwd=project, env=clean_environment() | environment, capture_output=True, text=True, timeout=900
    )


def run_all(project: Path, commands: Sequence[Sequence[str]], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run imputune's and dvc's commands, each as a list of words, one after the other in one new process.

    Their output, and that of their workers, is read as a whole.
    """
    return run(project, sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(commands), **environment)


def started(project: Path, *words: str) -> subprocess.Popen[str]:
    """Start an imputune command in a process of its own, which Ctrl-C reaches as in a terminal."""
    _refuse_shared(project)
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=project,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )


def hear_interrupts() -> None:
    """Let a new process hear Ctrl-C, also where the tests were started in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without mlflow's and dvc's variables, this interpreter first on PATH."""
    outer = ("MLFLOW_", "DVC_", "PYTHONDONTWRITEBYTECODE")  # without the last, modules are compiled once, not each time
    kept = {key: text for key, text in os.environ.items() if not key.startswith(outer)}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def invoke(
    project: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str] | None = None
) -> Result:
    """Run an imputune command inside a project folder, in this process."""
    _refuse_shared(project)
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


def _refuse_shared(project: Path) -> None:
    if (project / SHARED).exists():
        raise AssertionError(f"{project} is shared by all tests: run commands in a copy of it")


def fingerprint(project: Path) -> dict[str, tuple[int, int]]:
    """Return the size and time of every file of a project, by its path; a lock that readers take does not count."""
    files = {}
    for folder, _, names in os.walk(project):
        for name in names:
            if name not in LOCKS:
                path = os.path.join(folder, name)  # noqa: PTH118 (a Path for each file would take four times as long)
                status = os.stat(path)  # noqa: PTH116
                files[os.path.relpath(path, project)] = status.st_size, status.st_mtime_ns
    return files


def copy_of(project: Path, folder: Path, without: tuple[str, ...] = (), *, with_mlruns: bool = False) -> Path:
    """Copy the project; new runs of `imputune` go into the copy.

    What was logged before stays readable, in the project's mlruns/ if it is not copied.
    """
    copy = folder / "copy"
    left_out = without if with_mlruns else (*without, "mlruns")
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(SHARED, ".dvc", *left_out))
    if (copy / "mlflow.db").exists():
        follow_move(copy / "mlflow.db")
    return copy


def new_project(folder: Path, **changes: Any) -> Path:
    """Make a project of tiny sizes without data; the source stands in it too. `changes`: see `set_params`."""
    folder.mkdir(exist_ok=True)
    for name in ("dvc.yaml", "data.dvc", "MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "params.yaml", folder)
    set_params(folder, TINY | changes, must_change=False)
    return folder


def set_params(project: Path, changes: Mapping[str, Any], must_change: bool = True) -> None:
    """Change keys of params.yaml by their dotted names; each must be there."""
    editor, path = YAML(), project / "params.yaml"
    content = editor.load(path)
    for name, value in changes.items():
        *above, key = name.split(".")
        section = content
        for each in above:
            section = section[each]
        assert key in section, name
        assert section[key] != value or not must_change, name
        section[key] = value
    editor.dump(content, path)


def grid_of(**blocks: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return all blocks of params.yaml's grid: these as given, the others without an imputer."""
    grid = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")["grid"]
    return {f"grid.{name}": blocks.get(name, {**block, "imputer": []}) for name, block in grid.items()}


def edit(copy: Path, pattern: str, text: str) -> None:
    """Change params.yaml where a pattern matches."""
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


def client_of(project: Path) -> MlflowClient:
    """Return a client of the project's store."""
    return MlflowClient(f"sqlite:///{project}/mlflow.db")


def store_text(project: Path) -> str:
    """Return all that the project's store holds, as SQL: runs, their parameters, tags, descriptions and cohorts."""
    with closing(sqlite3.connect(project / "mlflow.db")) as store:
        return "\n".join(store.iterdump())


def heads_folder(project: Path, imputer: str = "csai") -> Path:
    """Return the folder of an imputer's fine-tuned variants."""
    return project / "artifacts/synthetic/heads/in_hospital_death" / imputer


def imputer_folder(project: Path, imputer: str = "csai") -> Path:
    """Return the folder of a pretrained imputer."""
    return project / "artifacts/synthetic/imputers" / imputer
