"""--quiet, --verbose, and the lines on epochs where standard error is no terminal."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_command

from imputune.cli.commands import app
from imputune.runtime import console
from imputune.runtime.console import Verbosity, epoch_lines, set_verbosity
from projects import COMMAND, FOLDS, TINY, copy_of, invoke, run

FINETUNE = ["finetune", "--head", "mlp2"]
EPOCHS = TINY["budget.synthetic"]
DEBUG = re.compile(r"\d\d:\d\d:\d\d imputune\.\w+\.\w+: \S.*")
EPOCH = re.compile(
    r"csai/mlp2-frozen-hidden-plateau fold (\d): epoch (\d) of at most 3, "
    r"training loss \d\.\d+, validation AUC \d\.\d+, "
    r"(?:time left not known yet|at most \d+ s left of this fold) \| \d of 3 folds done, .* ?left( not known yet)?"
)


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """A copy of the project in which commands run."""
    return copy_of(project, tmp_path, without=("src",))


def epochs_in(lines: list[str]) -> set[tuple[int, int]]:
    """Return the fold and epoch of each line on an epoch."""
    return {(int(found[1]), int(found[2])) for line in lines if (found := EPOCH.fullmatch(line))}


def every_epoch() -> set[tuple[int, int]]:
    """Return each fold with each of its epochs, counted from 1."""
    return {(fold, epoch) for fold in range(FOLDS) for epoch in range(1, EPOCHS["frozen_epochs"] + 1)}


def leaves(group: Any) -> Iterator[Any]:
    """Yield the commands of a group and of the groups in it."""
    for command in group.commands.values():
        yield from leaves(command) if isinstance(command, TyperGroup) else [command]


def test_every_command_takes_both_options():
    """They stand in each command's help, and before a command too."""
    group = get_command(app)
    for command in (group, *leaves(group)):
        assert {"quiet", "verbose"} <= {parameter.name for parameter in command.params}, command.name


def test_a_quiet_command_shows_its_results_alone(copy, monkeypatch):
    """Behind the command or before it: the table as ever on standard output, nothing on standard error."""
    normal = invoke(copy, FINETUNE, monkeypatch)
    assert f"{FOLDS} of {FOLDS} folds done" in normal.stderr
    for words in ([*FINETUNE, "--quiet"], ["--quiet", *FINETUNE]):
        done = invoke(copy, words, monkeypatch)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.splitlines()[2:] == normal.stdout.splitlines()[2:]  # without the run's id


def test_a_verbose_command_has_a_line_for_each_epoch_and_debug_lines(copy, monkeypatch):
    """Every line is one of three kinds; the command after it is as ever."""
    done = invoke(copy, [*FINETUNE, "--verbose"], monkeypatch)
    lines = done.stderr.splitlines()
    assert epochs_in(lines) == every_epoch()
    debug = [line for line in lines if DEBUG.fullmatch(line)]
    assert any(line.endswith(f"project {copy}, dataset synthetic, seed 2012, device auto") for line in debug)
    folds = [line for line in lines if re.search(r" fold \d: AUC validation ", line)]
    assert len(lines) == len(debug) + len(folds) + len(every_epoch())
    again = invoke(copy, ["folds"], monkeypatch)
    assert again.stderr == ""
    assert logging.getLogger("imputune").level == logging.NOTSET


@pytest.mark.slow
def test_lines_reach_a_log(copy):
    """A process whose standard error is a file or pipe, as under dvc, mlflow and nohup; pretraining has lines too."""
    done = run(copy, *COMMAND, "--verbose", "pretrain")
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^csai fold (\d): epoch (\d) of 2, training loss .*, validation MAE .* left", done.stderr, re.M)
    assert sorted(told) == [(str(fold), str(epoch)) for fold in range(FOLDS) for epoch in (1, 2)]


def test_without_an_option_epochs_have_lines_at_intervals(copy, monkeypatch):
    """With an interval of 0 seconds in place of 10, every epoch has its line, and debug lines stay away."""
    monkeypatch.setattr(console, "SECONDS_BETWEEN", 0.0)
    lines = invoke(copy, FINETUNE, monkeypatch).stderr.splitlines()
    assert epochs_in(lines) == every_epoch()
    assert not any(DEBUG.fullmatch(line) for line in lines)


def test_a_terminal_has_bars_and_no_lines(monkeypatch):
    """Only a verbose command has lines there, above the bars; a quiet one has neither."""
    monkeypatch.setattr(console, "screen", Console(stderr=True, force_terminal=True))
    shown = {}
    for verbosity in Verbosity:
        set_verbosity(verbosity)
        shown[verbosity] = (console._shows_bars(), epoch_lines(print) is not None)
    assert shown == {
        Verbosity.QUIET: (False, False),
        Verbosity.NORMAL: (True, False),
        Verbosity.VERBOSE: (True, True),
    }


def test_what_limits_a_result_is_said_to_the_quiet_too(capsys):
    """A warning is shown, a note is not."""
    set_verbosity(Verbosity.QUIET)
    console.say("note: three rows ignored")
    console.warn("note: not saved")
    assert capsys.readouterr().err == "note: not saved\n"


@pytest.mark.parametrize("words", [["--quiet", "--verbose", "folds"], ["--quiet", "folds", "--verbose"]])
def test_both_are_refused(project, monkeypatch, tmp_path, words):
    """A usage error, exit code 2, before anything is done."""
    done = invoke(tmp_path, words, monkeypatch)
    assert done.exit_code == 2
    assert "choose --quiet or --verbose" in done.stderr
