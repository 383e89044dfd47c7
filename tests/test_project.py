import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from typer.testing import CliRunner

from imputune.cli import app

ROOT = Path(__file__).parent.parent


def parses(command: str) -> bool:
    """Say whether the command line accepts these words, without running the command."""
    return CliRunner().invoke(app, [*shlex.split(command), "--help"]).exit_code == 0


def mlproject() -> dict:
    """Return MLproject as a dictionary."""
    return yaml.safe_load((ROOT / "MLproject").read_text())


def entry_point_commands() -> list[tuple[str, str]]:
    """Return each entry point's name and its command line after `imputune`, filled with the defaults."""
    filled = []
    for name, entry in mlproject()["entry_points"].items():
        defaults = {key: shlex.quote(str(value.get("default", "x"))) if isinstance(value, dict) else "x"
                    for key, value in entry["parameters"].items()}  # fmt: skip
        command = entry["command"].format(**defaults)
        prefix = "PYTHONPATH=src python -m imputune.cli "
        assert command.startswith(prefix)
        filled.append((name, command.removeprefix(prefix)))
    return filled


@pytest.mark.parametrize(("name", "command"), entry_point_commands())
def test_every_mlproject_command_parses(name, command):
    """Each entry point, filled with its defaults, is a command line imputune accepts."""
    assert parses(command)


def test_mlproject_has_an_entry_point_for_every_command():
    """A command that mlflow run cannot reach would be missed here."""
    listed = {command.name for command in app.registered_commands}
    assert listed <= set(mlproject()["entry_points"])


def test_parsing_can_fail():
    """The check above refuses an unknown option."""
    assert not parses("finetune --haed mlp2")


def test_every_dvc_command_parses():
    """Each stage of dvc.yaml, its matrix filled in by dvc, is a command line imputune accepts."""
    with Repo(str(ROOT)) as repo:
        commands = [stage.cmd for stage in repo.index.stages if getattr(stage, "cmd", None)]
    assert len(commands) == 5
    for command in commands:
        assert command.startswith("imputune ")
        assert parses(command.removeprefix("imputune "))


def test_conda_environment_repeats_the_pinned_dependencies():
    """conda.yaml and pyproject.toml name the same packages at the same versions, none unpinned."""
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    [from_pip] = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert sorted(from_pip) == sorted(pinned)
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in pinned)


def test_committed_files_hold_no_record_and_no_pickle():
    """data/ is ignored by git and owned by data.dvc; nothing under it is tracked."""
    assert "/data/" in (ROOT / ".gitignore").read_text().splitlines()
    assert yaml.safe_load((ROOT / "data.dvc").read_text())["outs"][0]["path"] == "data"


def readme_commands() -> list[str]:
    """Return the imputune command lines that README.md shows, in blocks and in tables."""
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"^\$ imputune (.*?)(?: {2,}#.*)?$", text, re.MULTILINE)
    return shown + re.findall(r"\| `imputune ([^`]+)` \|", text)


@pytest.mark.parametrize("command", readme_commands())
def test_every_readme_command_parses(command):
    """What README.md tells a user to type is a command line imputune accepts."""
    assert parses(command)


def test_readme_shows_commands_and_make_targets_that_exist():
    """README.md stays under 200 lines, runs by line 30, and names only targets that the Makefile has."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(readme_commands()) >= 6
    assert len(lines) < 200
    assert "$ make demo" in "\n".join(lines[:30])
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^\$ make ([a-z]+)", "\n".join(lines), re.MULTILINE)) <= targets


def test_readme_results_are_those_of_compare():
    """The tables in README.md are, line by line, those that compare wrote to results/physionet2012."""
    tables = [
        line for line in (ROOT / "results/physionet2012/comparison.md").read_text().splitlines() if line.startswith("|")
    ]
    assert len(tables) >= 8
    readme = (ROOT / "README.md").read_text().splitlines()
    assert not [line for line in tables if line not in readme]
