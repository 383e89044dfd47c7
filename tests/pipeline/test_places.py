"""Projects in odd places: moved, read by somebody without permission to write, printed where nothing can be written."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from projects import COMMAND, ONE_AFTER_THE_OTHER, clean_environment, fingerprint, invoke, run

RECORDS = "RecordID,Time,Parameter,Value\n1,00:10,HR,80\n1,01:10,HR,85\n"
AS_READER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
"""Runs a command as a user whom permissions bind, where the tests run as root."""


EACH = """
import json, sys
from typer.testing import CliRunner
from imputune.cli.commands import app
done = [CliRunner().invoke(app, words) for words in json.loads(sys.argv[1])]
print(json.dumps([(each.exit_code, each.stderr) for each in done]))
"""
"""Runs commands one after the other, and prints the exit code and standard error of each."""


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A table of one stay."""
    path = tmp_path / "stay.csv"
    path.write_text(RECORDS)
    return path


@pytest.fixture
def unwritable(models: Path) -> Iterator[Path]:
    """A project whose files get their permissions back afterwards."""
    entries = [models, *models.rglob("*")]
    modes = {path: path.stat().st_mode for path in entries if not path.is_symlink()}
    yield models
    for path, mode in modes.items():
        if path.exists():
            path.chmod(mode)


def as_reader() -> list[str]:
    """Return the words before a command that take the power over permissions from it; skip where they are missing."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("the tests run as root, and setpriv is not there to give that up")
    return AS_READER


def test_a_moved_project_predicts_and_trains_in_its_new_place(models, records, monkeypatch):
    """The risks are equal, and nothing is made in the former folder."""
    assert invoke(models, ["promote"], monkeypatch).exit_code == 0
    before = invoke(models, ["predict", "--records", str(records)], monkeypatch).stdout
    monkeypatch.chdir(models.parent)
    moved = models.rename(models.with_name("moved"))
    done = invoke(moved, ["predict", "--records", str(records)], monkeypatch)
    assert (done.exit_code, done.stdout) == (0, before)
    assert f"note: {moved} was moved or copied from {models}; " in done.stderr
    assert invoke(moved, ["finetune", "--head", "mlp2"], monkeypatch).exit_code == 0
    assert not models.exists()


@pytest.mark.slow
def test_commands_that_read_need_no_permission_to_write(unwritable, records, monkeypatch):
    """predict, explain, describe, evaluate, compare and a dry promotion do their work; nothing changes."""
    reader = as_reader()
    assert invoke(unwritable, ["promote"], monkeypatch).exit_code == 0
    assert invoke(unwritable, ["extract", "synthetic", "--seed", "8", "--out", "hospital"], monkeypatch).exit_code == 0
    expected = invoke(unwritable, ["predict", "--records", str(records)], monkeypatch).stdout
    before = fingerprint(unwritable)
    for path in [unwritable, *unwritable.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    commands = [
        ["imputune", "predict", "--records", str(records)],
        ["imputune", "explain", "--records", str(records), "--steps", "4"],
        ["imputune", "describe", "data/synthetic"],
        ["imputune", "evaluate", "--data", "hospital"],
        ["imputune", "promote", "--dry-run"],
        ["imputune", "compare"],
        ["imputune", "compare", "--by", "imputer,head"],
    ]
    words = [*reader, sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(commands)]
    done = run(unwritable, *words, HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected)
    assert "dry run, no alias changed: unchanged" in done.stdout
    note = f"note: no permission to write in {unwritable}: results are shown, but not saved or tracked"
    assert done.stderr.splitlines().count(note) == 3
    assert "Traceback" not in done.stderr
    refused = [["finetune"], ["pretrain", "--imputer", "mean"], ["folds"], ["promote"], ["register"]]
    done = run(unwritable, *reader, sys.executable, "-c", EACH, json.dumps(refused))
    answers = json.loads(done.stdout)
    for code, text in answers:
        [line] = text.splitlines()
        assert (code, line.startswith("error: ")) == (2, True)
        assert "ermission" in line
    assert len(answers) == len(refused)
    assert fingerprint(unwritable) == before


@pytest.mark.slow
def test_output_that_cannot_be_printed_is_one_line(models):
    """A full disk behind standard output ends a command with 2; a closed pipe ends it without a word."""
    command = [*COMMAND, "describe", "data/synthetic"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=models, env=clean_environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    line = "error: cannot write to standard output: No space left on device; send it to another place\n"
    assert (done.returncode, done.stderr) == (2, line)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            command, cwd=models, env=clean_environment(), stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert done.stderr == ""
