import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML
from typer import TyperException
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

import imputune
from imputune import cli, signals
from imputune.cli.commands import app
from imputune.data.cohort import write_cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.errors import UserError
from imputune.protocol.choice import grid_variants
from imputune.settings.file import read_params

ROOT = Path(__file__).parents[2]
# What stands in for a parameter of MLproject that has no default, by its type.
VALUES = {"path": str(ROOT / "tests"), "string": "sepsis"}


def parse(command: str) -> dict[str, Any]:
    """Return what the command line makes of these words, by option; whatever it refuses is raised, nothing is run."""
    name, group, words = "imputune", get_command(app), shlex.split(command)
    context = group.context_class(group, info_name=name)
    while isinstance(group, TyperGroup):
        name, group, words = group.resolve_command(context, words)
        if isinstance(group, TyperGroup):
            context = group.context_class(group, info_name=name, parent=context)
    return group.make_context(name, words, parent=context).params


def mlproject() -> dict:
    """Return MLproject as a dictionary."""
    return YAML(typ="safe").load((ROOT / "MLproject").read_text())


def entry_point_commands() -> list[tuple[str, str]]:
    """Return each entry point's name and its command line after `imputune`, filled with the defaults."""
    filled = []
    for name, entry in mlproject()["entry_points"].items():
        kinds = entry.get("parameters", {})
        values = {key: str(kind["default"]) if isinstance(kind, dict) else VALUES[kind] for key, kind in kinds.items()}
        command = entry["command"].format(**{key: shlex.quote(value) for key, value in values.items()})
        prefix = "PYTHONPATH=src python -m imputune.cli "
        assert command.startswith(prefix)
        filled.append((name, command.removeprefix(prefix)))
    return filled


def test_without_a_command_help_and_version_are_shown():
    """`imputune` alone lists the commands, and --version says which imputune it is."""
    runner = CliRunner()
    assert "promote" in runner.invoke(app, []).stdout
    code = "AVX-512|AVX2|any processor|none"
    assert re.fullmatch(
        rf"imputune {imputune.__version__}, compiled code: ({code})\n", runner.invoke(app, ["--version"]).stdout
    )


@pytest.mark.parametrize(("name", "command"), entry_point_commands())
def test_every_mlproject_command_parses(name, command):
    """Each entry point, filled with its defaults, is a command line imputune accepts."""
    assert parse(command).get("dataset", "") == ""


def test_every_parameter_of_an_entry_point_is_used():
    """A parameter that its command leaves out would have no effect."""
    for name, entry in mlproject()["entry_points"].items():
        assert set(re.findall(r"\{(\w+)\}", entry["command"])) == set(entry.get("parameters", {})), name


def test_mlproject_has_an_entry_point_for_every_command():
    """A command that mlflow run cannot reach would be missed here."""
    commands = get_command(app).commands
    assert set(commands) == set(mlproject()["entry_points"]) - {"main"}


def test_parsing_gives_typed_values():
    """What the check below accepts has the values that the command would get."""
    assert parse("extract synthetic --stays 7") == {"stays": 7, "seed": None, "hours": 48, "bin_hours": 1, "out": None}
    parsed = parse("extract physionet2012 --raw some/where --sets a,b --download")
    assert parsed == {
        "raw": Path("some/where"),
        "sets": "a,b",
        "download": True,
        "hours": 48,
        "bin_hours": 1,
        "out": None,
    }
    parsed = parse("finetune physionet2012 --mode unfrozen")
    words = {"dataset": "physionet2012", "outcome": "", "head": "mlp2", "mode": "unfrozen", "input": "", "schedule": ""}
    assert parsed == words | {"imputer": "csai", "engine": "", "workers": None}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("finetune --haed mlp2", "No such option.*--haed"),
        ("finetune --head", "requires an argument"),
        ("extract synthetic --stays abc", "valid integer"),
        ("extract synthetic --seed 1.5", "valid integer"),
        ("extract synthetic --set a", "No such option.*--set"),
        ("extract physionet2012", "raw"),
        ("extract physionet2013 --raw DIR", "No such command 'physionet2013'"),
        ("describe", "folder"),
        ("describe a b", "unexpected extra argument"),
        ("folds a b c", r"unexpected extra argument\(?s\)? \(b c\)"),
        ("train", "No such command 'train'"),
    ],
)
def test_parsing_refuses(command, message):
    """Unknown commands, options and choices, missing and superfluous words and wrong types each are an error."""
    with pytest.raises((TyperException, UserError)) as caught:
        parse(command)
    assert re.search(message, str(caught.value) or caught.value.format_message(), re.IGNORECASE)


def test_every_dvc_command_parses():
    """Each stage of dvc.yaml, its matrix filled in by dvc, is a command line imputune accepts."""
    with Repo(str(ROOT)) as repo:
        commands = [stage.cmd for stage in repo.index.stages if getattr(stage, "cmd", None)]
    params = read_params(ROOT / "params.yaml")
    assert len(commands) == 4 + len(grid_variants(params.grid, params.imputers)) + len(params.imputers)
    for command in commands:
        assert command.startswith("imputune ")
        assert parse(command.removeprefix("imputune "))["dataset"] == "synthetic"


def test_conda_environment_repeats_the_pinned_dependencies():
    """conda.yaml and pyproject.toml name the same packages at the same versions, none unpinned."""
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    conda = YAML(typ="safe").load((ROOT / "conda.yaml").read_text())["dependencies"]
    [from_pip] = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert sorted(from_pip) == sorted(pinned)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)


def forbidden(names: list[str]) -> list[str]:
    """Return those of these paths that hold records or pickles, by their names."""
    return [
        name
        for name in names
        if name.startswith("data/")
        or Path(name).suffix in {".pkl", ".pt", ".npy", ".db"}
        or re.match(r"(set|Outcomes)-", Path(name).name)
    ]


def test_forbidden_files_are_found():
    """The check below finds records, weights, stores and arrays wherever they lie, and nothing else."""
    bad = [
        "data/synthetic/stays.csv",
        "a/b.pkl",
        "model.pt",
        "x.npy",
        "mlflow.db",
        "raw/set-a.tar.gz",
        "Outcomes-b.txt",
    ]
    assert forbidden([*bad, "data.dvc", "src/imputune/data/cohort.py", "tests/golden/csai.json", "set.py"]) == bad


def test_committed_files_hold_no_record_and_no_pickle():
    """Nothing that git tracks is data, a pickle, an array or a store; data/ is ignored by git and owned by data.dvc."""
    assert "/data/" in (ROOT / ".gitignore").read_text().splitlines()
    assert data_dvc()["path"] == "data"
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: nothing is tracked here")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = listed.rstrip("\0").split("\0")
    assert "tests/cli/test_commands.py" in names
    assert forbidden(names) == []


def data_dvc() -> dict[str, Any]:
    """Return the one output that data.dvc describes."""
    [out] = YAML(typ="safe").load((ROOT / "data.dvc").read_text())["outs"]
    return out


def test_data_dvc_is_what_extract_synthetic_writes(tmp_path):
    """The cohort of params.yaml's stays and seed has, file by file, the hash under which data.dvc knows it."""
    settings = read_params(ROOT / "params.yaml").synthetic
    write_cohort(extract_synthetic(settings.stays, settings.seed), tmp_path / "synthetic")
    paths = sorted((tmp_path / "synthetic").iterdir())
    entries = [
        {"md5": md5(path.read_bytes(), usedforsecurity=False).hexdigest(), "relpath": f"synthetic/{path.name}"}
        for path in paths
    ]
    listing = json.dumps(entries, sort_keys=True).encode()
    assert data_dvc() == {
        "md5": f"{md5(listing, usedforsecurity=False).hexdigest()}.dir",
        "size": sum(path.stat().st_size for path in paths),
        "nfiles": len(paths),
        "hash": "md5",
        "path": "data",
        "push": False,  # the cache has a copy of the records, and no remote gets one
    }


def readme_commands() -> list[str]:
    """Return the imputune command lines that README.md shows, in blocks, in tables and in sentences."""
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"^\$ imputune (.*?)(?: {2,}#.*)?$", text, re.MULTILINE)
    return shown + re.findall(r"`imputune ([^`]+)`", text)


@pytest.mark.parametrize("command", readme_commands())
def test_every_readme_command_parses(command, tmp_path):
    """What README.md tells a user to type, DIR filled in, is a command line imputune accepts."""
    parse(command.replace("DIR", shlex.quote(str(tmp_path))))


def test_readme_mlflow_commands_name_entry_points_and_their_parameters():
    """Each `mlflow run` in README.md names an entry point that MLproject has, with parameters it takes."""
    shown = re.findall(r"mlflow run \. ([^`\n]*)", (ROOT / "README.md").read_text())
    assert len(shown) >= 2
    for words in map(shlex.split, shown):
        entry = mlproject()["entry_points"][words[words.index("-e") + 1]]
        given = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-P"]
        assert given
        assert set(given) <= set(entry["parameters"])


def test_readme_shows_commands_and_make_targets_that_exist():
    """README.md has 150 lines of 100 characters at most, runs by line 30, and names only targets that exist."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(readme_commands()) >= 6
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []
    assert "$ make demo" in "\n".join(lines[:30])
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^\$ make ([a-z]+)", "\n".join(lines), re.MULTILINE)) <= targets


def test_the_demo_and_the_report_run_commands_that_parse_and_no_dvc():
    """make demo and make report call imputune alone, so that they write no dvc.lock, whose hashes differ by machine."""
    text = (ROOT / "Makefile").read_text()
    for target, last in (("demo", "promote synthetic"), ("report", "compare --by imputer,head")):
        [recipe] = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
        commands = re.findall(r"^\tcd \$\(ROOT\) && (\w+) (.*)$", recipe, re.MULTILINE)
        assert {name for name, _ in commands} == {"imputune"}
        assert commands[-1] == ("imputune", last)
        for _, words in commands:
            parse(words)


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of each table row of Markdown text that holds a result, bold marks left out."""
    rows = [
        [cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    return [[cell for cell in row if cell] for row in rows if any(re.search(r"\d\.\d\d", cell) for cell in row)]


def in_turn(cells: list[str], made: list[str]) -> bool:
    """Say whether these cells are among the made ones, in the same order."""
    rest = iter(made)
    return all(cell in rest for cell in cells)


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_results_in_the_texts_are_those_of_compare(page):
    """Each row of results in README.md and docs/results.md is a row, or a part of one, that compare wrote."""
    folder = ROOT / "results/physionet2012"
    made = [row for name in ("comparison.md", "report.md") for row in table_rows((folder / name).read_text())]
    shown = table_rows((ROOT / page).read_text())
    assert len(shown) >= 7
    assert [row for row in shown if not any(in_turn(row, each) for each in made)] == []


def test_characters_that_the_output_lacks_are_replaced(monkeypatch):
    """A command whose output is Latin-1 or ASCII ends as usual."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii", errors="strict"))
    monkeypatch.setattr(signals, "install", lambda: None)  # signals stay with the tests
    monkeypatch.setattr(cli.commands, "app", lambda: sys.stdout.write("0.83 ± 0.02"))
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    sys.stdout.flush()
    assert printed.getvalue() == b"0.83 ? 0.02"
