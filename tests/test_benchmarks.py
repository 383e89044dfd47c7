import json
import math
import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

import benchmarks
from benchmarks import busy_machine, csai_scaling, csai_speed, finetune_speed, pypots_csai, rival_speed
from benchmarks.training import generated_fold
from imputune.artifacts.stage_output import TrainedFold
from imputune.models.faster_pypots import hours_since_observed
from imputune.runtime.recorder import Recorder
from imputune.settings.file import read_params
from imputune.training.finetune import FinetuneJob, finetune_fold

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
RATIOS = ("ratio_epoch_vs_pypots", "mae_ours", "mae_pypots")


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark from the project's folder as a user does."""
    path = filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )


def measured(module: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a benchmark in this process, which has loaded its modules."""
    monkeypatch.setattr(sys, "argv", [module, *words])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # Ctrl-C stays with the tests
    benchmarks.run(import_module(f"benchmarks.{module}").main)


def refused(module: str, *words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of a benchmark that ends with exit code 2 and measures nothing."""
    with pytest.raises(SystemExit) as ended:
        measured(module, *words, monkeypatch=monkeypatch)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("error: ").rstrip()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("raise ImportError('nothing here')", "PyPOTS cannot be imported (nothing here)"),
        ("print('banner')\n__version__ = '1.4'", "PyPOTS is 1.4, this measures against 1.5"),
    ],
)
def test_missing_or_other_pypots_is_one_line_with_the_command_that_installs_it(
    tmp_path, content, cause, monkeypatch, capsys
):
    """Exit code 2, nothing on standard output, and the command to type."""
    (tmp_path / "pypots.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    without = {name: module for name, module in sys.modules.items() if name.split(".")[0] != "pypots"}
    with patch.dict(sys.modules, without, clear=True):
        line = refused("csai_speed", "--json", monkeypatch=monkeypatch, capsys=capsys)
    assert line == f"{cause}: install it with pip install -e '.[pypots]'"


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (
            "csai_speed",
            ["--epochs", "1"],
            "--epochs must be a whole number from 2 on: the first is not timed; got 1",
        ),
        (
            "faster_pypots",
            ["--epochs", "1"],
            "--epochs must be a whole number from 2 on: the first is not timed; got 1",
        ),
        (
            "two_versions",
            ["no/src", "--", "--version"],
            "OTHER_SRC no/src has no imputune/cli: give the folder src of another",
        ),
        (
            "finetune_speed",
            ["nowhere"],
            "OTHER_SRC nowhere has no imputune/cli: give the folder src of another version",
        ),
        (
            "finetune_speed",
            ["src", "--project", "tests"],
            "--project tests has no params.yaml: give a project's folder",
        ),
        ("finetune_speed", ["src", "--epochs", "0"], "--repetitions and --epochs must be 1 or more"),
        (
            "rival_speed",
            ["--epochs", "1"],
            "--epochs must be a whole number from 2 on: the first is not timed; got 1",
        ),
        (
            "seft_speed",
            ["--epochs", "1"],
            "--epochs must be a whole number from 2 on: the first is not timed; got 1",
        ),
        (
            "csai_speed",
            ["--epochs", "ten"],
            "--epochs must be a whole number from 2 on: the first is not timed; got ten",
        ),
        ("csai_speed", ["--stays", "ten"], "argument --stays: invalid int value: 'ten'; --help lists the options"),
        ("csai_speed", ["--epoch-count", "3"], "unrecognized arguments: --epoch-count 3; --help lists the options"),
        ("csai_speed", ["--device", "tpu"], "argument --device: invalid choice: 'tpu' (choose from "),
        ("csai_speed", ["--cohort", "no/such"], "no/such is no cohort: no such folder; run `imputune extract "),
        ("csai_speed", ["--cohort", "x", "--stays", "9"], "argument --stays: not allowed with argument --cohort; "),
        (
            "csai_speed",
            ["--device", "cuda"],  # the message names the option, because the benchmark ignores params.yaml's device
            "--device cuda: PyTorch finds no GPU here; leave the option out, or give --device auto",
        ),
        ("stops", ["--stops", "9"], "the following arguments are required: --folder; --help lists the options"),
        ("ray_throughput", ["--stays", "99"], "--stays must be 100 or more and --repetitions 1 or more; --help lists"),
        ("stops", ["--folder", "x", "--stops", "0"], "--stops must be 1 or more, got 0"),
        ("large_cohort", ["--stays", "99"], "--stays must be 100 or more, --steps 1 or more, --limit-gib above 0"),
        ("large_cohort", ["--parts", "read,fold"], "--parts must name some of read, pretrain, finetune, separated by"),
        ("many_tasks", ["--tracked", "7"], "--tasks and --workers must be 1 or more, --nodes 0 or more, --tracked a"),
        ("busy_machine", ["--loops", "0"], "--stays, --repetitions and --loops must be at least 1; --help lists"),
    ],
)
def test_bad_input_is_one_line(module, words, message, monkeypatch, capsys):
    """A wrong option, number, folder or device ends a benchmark with exit code 2, before it measures anything."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refused(module, *words, monkeypatch=monkeypatch, capsys=capsys).startswith(message)


@pytest.mark.skipif(find_spec("pypots") is None, reason="PyPOTS is not installed: pip install -e '.[pypots]'")
def test_speed_prints_one_json_object_with_finite_numbers(monkeypatch, capsys):
    """A very small run gives every ratio and error; the two-fold ratio is null only with a single core."""
    monkeypatch.setattr(csai_speed, "REPETITIONS", 1)
    measured("csai_speed", "--json", "--stays", "200", "--epochs", "2", monkeypatch=monkeypatch)
    speed = json.loads(capsys.readouterr().out)
    expected = (*RATIOS, "ratio_two_folds_vs_one") if len(os.sched_getaffinity(0)) > 1 else RATIOS
    assert all(math.isfinite(speed[name]) and speed[name] > 0 for name in expected)
    assert "ratio_two_folds_vs_one" in speed
    assert speed["training_stays"] == 120
    assert speed["steps_per_epoch"] == 2
    assert speed["setting"]["device"] == "cpu"
    assert speed["setting"]["learning_rate_pypots"] == 0.001
    assert speed["setting"]["learning_rate_ours"] == read_params(ROOT / "params.yaml").pretrain.learning_rate
    seconds = speed["seconds_epoch_ours"], speed["seconds_epoch_pypots"]
    assert speed["ratio_epoch_vs_pypots"] == pytest.approx(seconds[1]["median"] / seconds[0]["median"])


@pytest.mark.skipif(find_spec("pypots") is None, reason="PyPOTS is not installed: pip install -e '.[pypots]'")
def test_faster_networks_are_timed_beside_those_of_pypots_unchanged(monkeypatch, capsys):
    """A very small run gives ratios and the same imputations; afterwards the faster functions are in use again."""
    measured("faster_pypots", "--json", "--stays", "60", "--epochs", "2", monkeypatch=monkeypatch)
    speeds = json.loads(capsys.readouterr().out)
    assert [speed["network"] for speed in speeds["networks"]] == ["brits", "grud"]
    assert all(speed["ratio_epoch"]["median"] > 0 and speed["difference"] < 1e-4 for speed in speeds["networks"])
    assert import_module("pypots.imputation.grud.data")._parse_delta_torch is hours_since_observed


@pytest.mark.skipif(find_spec("pypots") is None, reason="PyPOTS is not installed: pip install -e '.[pypots]'")
def test_pypots_trains_at_its_own_learning_rate():
    """The reported rate is that of its optimiser, not that of params.yaml."""
    params = read_params(ROOT / "params.yaml")
    assert params.pretrain.learning_rate != pypots_csai.default_learning_rate()
    nan_NTD = np.ones((2, 4, 2), dtype=np.float32)
    theirs = pypots_csai.PypotsCsai(nan_NTD, params.model_copy(update={"device": "cpu"}), ("a", "b"))
    rates = [group["lr"] for group in theirs.csai.optimizer.torch_optimizer.param_groups]
    assert rates == [pypots_csai.default_learning_rate()]


def test_a_frozen_head_is_timed_over_the_given_number_of_epochs():
    """Training does not stop early, and the time of the representations is reported separately."""
    head = csai_scaling.head_seconds(100, 30)
    assert (head.stays, head.epochs) == (100, 30)
    assert head.seconds_epochs > 0
    assert head.seconds_until_first_epoch > 0


def test_rivals_and_csai_are_measured_on_one_fold():
    """A rival and an mlp2 on CSAI: their own numbers of parameters, and seconds of each epoch but the first."""
    data, params = generated_fold(100)
    rival = rival_speed.cost_of_rival(data, params, "seft", epochs=2)
    assert (rival.model, rival.parameters) == ("seft", 44_949)
    csai = rival_speed.cost_of_csai(data, params, epochs=3)
    assert csai.parameters > rival.parameters
    for cost in (rival, csai):
        assert cost.seconds_1000_stays > 0
        assert 0 < cost.seconds_epoch.lowest <= cost.seconds_epoch.median <= cost.seconds_epoch.highest


def test_an_epoch_is_timed_in_a_process_of_its_own():
    """An epoch on 100 small stays takes some time, and more memory than the libraries, less than 2 GiB."""
    size = {"stays": 100, "hours": 6, "variables": 3}
    cost = csai_scaling.cost_of("stays", size)
    assert (cost.grown, cost.stays, cost.hours, cost.variables) == ("stays", 100, 6, 3)
    assert cost.seconds > 0
    assert 0.1 < cost.own_gib < 2


def test_a_figure_has_a_panel_for_each_size_and_cost(tmp_path, monkeypatch, capsys):
    """The figure is an image; a file of another kind, or in no folder, is one line before anything is measured."""
    costs = [
        csai_scaling.Cost(grown=grown, stays=1000, hours=48, variables=35, seconds=1.0, own_gib=0.5)
        for grown in csai_scaling.RANGES
    ]
    csai_scaling.draw(costs, tmp_path / "cost.svg")
    drawn = (tmp_path / "cost.svg").read_text()
    assert drawn.count('id="axes_') == 2 * len(csai_scaling.RANGES)
    for wrong in ("cost.txt", "missing/cost.png"):
        line = refused("csai_scaling", "--figure", str(tmp_path / wrong), monkeypatch=monkeypatch, capsys=capsys)
        assert line.startswith(f"--figure {tmp_path / wrong} must end in .png, .svg or .pdf and lie in a folder")


@pytest.mark.skipif(find_spec("pypots") is None, reason="PyPOTS is not installed: pip install -e '.[pypots]'")
def test_too_few_stays_for_pypots_is_one_line(monkeypatch, capsys):
    """The error names a variable that no training stay observes twice; PyPOTS itself would compute NaN."""
    line = refused("csai_speed", "--stays", "45", "--epochs", "2", monkeypatch=monkeypatch, capsys=capsys)
    assert line == (
        "no training stay observes TroponinI twice, which makes PyPOTS's loss NaN: "
        "take more stays, with --stays or another --cohort"
    )


def test_size_measures_an_extraction_that_keeps_no_rows_in_memory(tmp_path):
    """Extracting half a million rows is timed, and takes less memory than the program and their text together."""
    done = run("mimic3_size", "--factors", "0.0015", "--tables", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["sizes"]
    assert row["chartevents"] == 496_069
    assert row["seconds"] > 0
    assert row["peak_memory_gib"] < 0.4
    assert row["peak_disk_gib"] < 0.05
    error = run("mimic3_size", "--factors", "many").stderr
    assert error == "error: --factors 'many' must be numbers separated by commas; for instance 0.01,0.1\n"


def test_commands_of_two_versions_run_in_turn(tmp_path, monkeypatch, capsys):
    """This version beside a copy that starts a second later; a command that fails is one line."""
    other = tmp_path / "src"
    shutil.copytree(ROOT / "src/imputune", other / "imputune")
    start = other / "imputune/cli/__main__.py"
    start.write_text("import time\n\ntime.sleep(1)\n" + start.read_text())
    words = ["--json", "--repetitions", "1", str(other), "--", "--version"]
    measured("two_versions", *words, monkeypatch=monkeypatch)
    [command] = json.loads(capsys.readouterr().out)["commands"]
    assert command["other"]["seconds"]["median"] > 1
    assert command["this"]["peak_memory_mb"] > 5
    assert command["ratio_seconds"] < 1
    line = refused("two_versions", str(other), "--", "describe nothing", monkeypatch=monkeypatch, capsys=capsys)
    assert line.startswith("imputune describe nothing, of ")


def test_a_fold_is_fine_tuned_frozen_then_unfrozen(project, monkeypatch):
    """A head trains frozen for the given epochs, then unfrozen for the epochs of params.yaml; both are timed."""
    trained = []

    def finetune(job: FinetuneJob, recorder: Recorder) -> TrainedFold:
        trained.append(finetune_fold(job, recorder))
        return trained[-1]

    monkeypatch.chdir(project)
    monkeypatch.setattr(finetune_speed, "finetune_fold", finetune)
    seconds = finetune_speed.train("mlp2", epochs=40)
    params = read_params(project / "params.yaml")
    assert [len(fold.history) for fold in trained] == [40, params.budget_of("synthetic").unfrozen_epochs]
    assert seconds.keys() == {"frozen", "unfrozen"}
    assert min(seconds.values()) > 0


def test_extraction_of_meds_is_measured(tmp_path):
    """Extracting 60,000 generated events is timed: the command's own counts, and less than a gibibyte."""
    done = run("meds_extract", "--millions", "0.06", "--datasets", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["sizes"]
    assert (row["events"], row["stays"]) == (60_000, 20)
    assert 10_000 < row["in_windows"] < 24_000
    assert row["cpu_seconds"] > 0
    assert row["peak_memory_gib"] < 0.5
    error = run("meds_extract", "--millions", "many").stderr
    assert error == "error: --millions 'many' must be numbers separated by commas; for instance 3,9\n"


@pytest.mark.cluster
def test_busy_machine_runs_a_command_idle_and_busy(models, monkeypatch, capsys):
    """A tiny run times explain, and divides the medians; no busy loop is left."""
    started = []

    def noted(*arguments, **options):
        process = start(*arguments, **options)
        started.append(process)
        return process

    start = subprocess.Popen
    monkeypatch.setattr(busy_machine.subprocess, "Popen", noted)
    words = ["--json", "--model", "1", "--stays", "2", "--repetitions", "1", "--loops", "1", "--commands", "explain"]
    measured("busy_machine", *words, monkeypatch=monkeypatch)
    busy = json.loads(capsys.readouterr().out)
    assert (busy["stays"], busy["loops"], busy["most"]) == (2, 1, 2.2)
    assert [command["command"] for command in busy["commands"]] == ["explain"]
    for command in busy["commands"]:
        seconds = command["busy_seconds"]["median"], command["idle_seconds"]["median"]
        assert min(seconds) > 0
        assert command["ratio"] == pytest.approx(seconds[0] / seconds[1])
    loops = [process for process in started if process.args[-1] == busy_machine.LOOP]
    assert len(loops) == 1
    assert all(loop.returncode is not None for loop in loops)


def test_large_cohort_measures_each_step(monkeypatch, capsys):
    """Reading and hashing a cohort copies no values: the process's own memory grows by less than half their size."""
    measured("large_cohort", "--json", "--stays", "4000", "--parts", "read", monkeypatch=monkeypatch)
    memory = json.loads(capsys.readouterr().out)
    assert memory["values_gib"] == pytest.approx(4000 * 48 * 89 * 4 / 2**30)
    by_name = {step["name"]: step for step in memory["steps"]}
    for name in ("read the cohort", "hash the cohort's files", "compare its records with another cohort's"):
        assert by_name[name]["own_gib"] < memory["own_gib_at_start"] + memory["values_gib"] / 2


@pytest.mark.cluster
def test_large_cohort_says_when_memory_is_too_little(monkeypatch, capfd):
    """One line names the step."""
    with pytest.raises(SystemExit):
        measured("large_cohort", "--stays", "100", "--limit-gib", "0.05", monkeypatch=monkeypatch)
    assert "error: the work stopped while it was to " in capfd.readouterr().err


@pytest.mark.cluster
def test_many_tasks_counts_tasks_and_time(monkeypatch, capsys):
    """Ten tasks, without and with runs: every round has its tasks, and the server's time is in its own round only."""
    measured("many_tasks", "--json", "--tasks", "10", "--tracked", "10", monkeypatch=monkeypatch)
    rounds = {each["kind"]: each for each in json.loads(capsys.readouterr().out)["rounds"]}
    assert list(rounds) == ["messages", "checkpoints", "SQLite", "server"]
    assert all(each["tasks"] == 10 and each["seconds"] > 0 for each in rounds.values())
    assert rounds["SQLite"]["cpu_ms_of_command"] > rounds["messages"]["cpu_ms_of_command"]
    assert [kind for kind, each in rounds.items() if each["cpu_ms_of_server"] > 0] == ["server"]
