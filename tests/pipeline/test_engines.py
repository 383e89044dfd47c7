"""The local pool and Ray come to the same, with every command that trains, and after stops."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")

from benchmarks.small_cluster import small_cluster
from benchmarks.stopped_command import Running
from benchmarks.stopped_project import differences, make_project
from imputune.runtime.own_ray import FOLDER
from imputune.signals import LINE
from projects import run_all, set_params

pytestmark = pytest.mark.cluster
GRID = ["grid", "--head", "mlp2,xgboost", "--mode", "frozen,unfrozen", "--input", "hidden", "--schedule", "optuna,none"]
COMMANDS = [
    ["pretrain"],
    GRID,
    ["assess", "--imputer", "csai"],
    ["overfit", "--epochs", "2", "--fold", "0"],
]
WAIT_SECONDS = 120.0


@pytest.fixture(scope="module")
def divided(tmp_path_factory) -> Path:
    """A tiny project with folds, in which nothing is trained."""
    project = tmp_path_factory.mktemp("engines") / "divided"
    make_project(project)
    few = {"trials": 3, "startup_trials": 1, "reduction_factor": 3}
    changes = {f"schedules.optuna.{name}": value for name, value in few.items()} | {"assess.rates": [0.1]}
    set_params(project, changes | {"non_neural.xgboost.trees": 20}, must_change=False)
    imputune(project, [["extract", "synthetic"], ["folds"]])
    return project


@pytest.fixture(scope="module")
def local(divided) -> Path:
    """What the local pool comes to."""
    return trained(divided, "local")


def imputune(project: Path, commands: list[list[str]], **environment: str) -> None:
    """Run commands that succeed, one after the other in one process."""
    done = run_all(project, [["imputune", *words] for words in commands], **environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def trained(divided: Path, name: str, **environment: str) -> Path:
    """Train in a copy of a project, with that engine; return the copy."""
    project = divided.with_name(name)
    shutil.copytree(divided, project)
    set_params(project, {"engine": name}, must_change=False)
    imputune(project, COMMANDS, **environment)
    set_params(project, {"engine": "local"}, must_change=False)
    return project


def files(project: Path) -> dict[str, bytes]:
    """Return the weights, boosters and predictions of all that was trained, without early stopping too."""
    kinds = (".safetensors", ".csv")
    found = [path for path in (project / "artifacts").rglob("*") if path.suffix in kinds]
    return {str(path.relative_to(project)): path.read_bytes() for path in found}


def test_ray_comes_to_the_same_as_the_local_pool(divided, local):
    """Two nodes and two local workers write the same bytes, and runs have the same curves."""
    with small_cluster(2) as cluster:
        on_ray = trained(divided, "ray", RAY_ADDRESS=cluster.address)
    ours, theirs = files(on_ray), files(local)
    assert len(ours) > 15
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert differences(on_ray, local) == []


def processes_of(session: int) -> list[str]:
    """Return the living processes of a session, which all of a command's belong to."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its) == session and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):
            continue  # it has just ended
    return found


def left_of(running: Running, agents: bool) -> list[str]:
    """Wait until a command and its processes have ended; return those that run after twelve seconds.

    agents: whether Ray's two agents of a node count: after kill -9 of the command, Ray itself ends them later.
    """
    until = time.monotonic() + 12
    while True:
        left = [each for each in processes_of(running.process.pid) if agents or "Agent" not in each]
        if time.monotonic() > until or not (left or running.process.poll() is None):
            return left
        time.sleep(0.05)


def stop_after_folds(project: Path, number: signal.Signals, folds: int) -> Running:
    """Run the grid on a Ray of its own, and send a signal to it, or to its group, after so many folds."""
    running = Running(project, [*GRID, "--engine", "ray"])
    until = time.monotonic() + WAIT_SECONDS
    while running.log.read_text().count(": AUC validation") < folds:
        assert not running.ended, running.log.read_text()
        assert time.monotonic() < until, running.log.read_text()
        time.sleep(0.02)
    send = os.kill if number == signal.SIGKILL else os.killpg
    send(running.process.pid, number)
    assert left_of(running, agents=number != signal.SIGKILL) == []
    return running


def private_folders() -> set[str]:
    """Return the names of the folders in which Rays that commands started keep what they write."""
    return {path.name for parent in ("/tmp", tempfile.gettempdir()) for path in Path(parent).glob(f"{FOLDER}*")}


def test_a_grid_on_ray_goes_on_after_kill_9_and_after_a_stop(divided, local, tmp_path):
    """No process is left by either, no folder by the stop; no fold is trained twice, none is lost."""
    project = tmp_path / "stopped"
    shutil.copytree(divided, project)
    imputune(project, [["pretrain"]])
    before = private_folders()
    stop_after_folds(project, signal.SIGKILL, 2)
    stopped = stop_after_folds(project, signal.SIGTERM, 2)
    assert stopped.process.returncode == 130
    assert stopped.problems() == []
    assert stopped.log.read_text().splitlines()[-1] == LINE
    assert "2 folds of unfinished variants" in stopped.log.read_text()
    imputune(project, [GRID])
    assert private_folders() <= before
    differing = [each for each in differences(project, local) if "assess" not in each and "overfit" not in each]
    assert differing == []
