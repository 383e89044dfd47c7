import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlflow import MlflowClient

from imputune.protocol.variants import PROTOCOL
from imputune.runtime.time_left import TimeLeft
from imputune.settings.file import read_params
from imputune.tracking.history import finished_runs
from projects import COMMAND, clean_environment, copy_of, invoke, run

VARIANT = "mlp2-frozen-hidden-cyclic"
CYCLIC = ["grid", "--head", "mlp2,gru", "--mode", "frozen", "--schedule", "cyclic"]
NAMES = [VARIANT, "gru-frozen-imputed-cyclic", "gru-frozen-raw-cyclic"]


@pytest.fixture
def copy(project, tmp_path, monkeypatch) -> Path:
    """A copy of the project with nothing fine-tuned, in which commands run."""
    copy = copy_of(project, tmp_path)
    shutil.rmtree(copy / "artifacts/synthetic/finetune")
    monkeypatch.chdir(copy)
    return copy


def client_of(copy: Path) -> MlflowClient:
    """Return a client of the copy's store."""
    return MlflowClient(f"sqlite:///{copy}/mlflow.db")


def result_of(copy: Path, name: str) -> dict:
    """Return the result of a variant."""
    return json.loads((copy / "artifacts/synthetic/finetune" / name / "result.json").read_text())


def runs_of(copy: Path, name: str) -> list:
    """Return the finished runs of a variant."""
    parts = ("head", "mode", "input", "schedule")
    runs = finished_runs(copy, "imputune", "finetune", "synthetic")
    return [run for run in runs if "-".join(run.tags[f"imputune.{part}"] for part in parts) == name]


def versions_of(copy: Path, name: str) -> list:
    """Return the registered versions of a variant."""
    head, mode, reads, schedule = name.split("-")
    wanted = {"imputune.head": head, "imputune.mode": mode, "imputune.input": reads, "imputune.schedule": schedule}
    versions = client_of(copy).search_model_versions("name = 'imputune-mortality-synthetic'")
    return [version for version in versions if wanted.items() <= version.tags.items()]


def edit_params(copy: Path, pattern: str, text: str) -> None:
    """Change params.yaml."""
    before = (copy / "params.yaml").read_text()
    after = re.sub(pattern, text, before)
    assert after != before
    (copy / "params.yaml").write_text(after)


def test_grid_runs_what_is_missing_and_skips_what_is_done(copy, monkeypatch):
    """Every variant is written, tracked under one run, registered; a second time nothing runs."""
    done = invoke(copy, CYCLIC, monkeypatch)
    assert done.exit_code == 0, done.stderr
    assert "15 of 15 folds done, about 0 s left" in done.stderr
    parents = set()
    for name in NAMES:
        [tracked] = runs_of(copy, name)
        assert [fold.fold for fold in tracked.folds] == [0, 1, 2, 3, 4]
        assert result_of(copy, name)["run_id"] == tracked.run_id
        assert len(versions_of(copy, name)) == 1
        parents.add(tracked.tags["mlflow.parentRunId"])
    [parent] = parents
    assert client_of(copy).get_run(parent).data.tags["imputune.command"] == "grid"
    assert client_of(copy).get_run(parent).info.status == "FINISHED"
    before = {name: result_of(copy, name) for name in NAMES}
    again = invoke(copy, CYCLIC, monkeypatch)
    assert again.exit_code == 0
    assert "3 of 3 variants are done already" in again.stderr
    assert "folds done" not in again.stderr
    assert {name: result_of(copy, name) for name in NAMES} == before
    assert not list((copy / "artifacts/synthetic/unfinished").glob("*-*"))


def test_a_cell_of_the_grid_is_what_finetune_makes(copy, monkeypatch):
    """One variant alone or among others has the same scores and curves."""
    assert invoke(copy, CYCLIC, monkeypatch).exit_code == 0
    among = result_of(copy, VARIANT)
    words = ["finetune", "--schedule", "cyclic"]
    assert invoke(copy, words, monkeypatch).exit_code == 0
    alone = result_of(copy, VARIANT)
    assert alone["run_id"] != among["run_id"]
    for mine, theirs in zip(alone["folds"], among["folds"], strict=True):
        assert (mine["scores"], mine["history"]) == (theirs["scores"], theirs["history"])


def test_folds_one_at_a_time_make_the_whole_cell(copy, monkeypatch):
    """Folds asked for apart are kept until the last one completes the variant, which then is what it is at once."""
    words = ["grid", "--head", "mlp2", "--mode", "frozen", "--schedule", "cyclic", "--fold"]
    assert invoke(copy, [*words, "0,3"], monkeypatch).exit_code == 0
    assert not (copy / "artifacts/synthetic/finetune" / VARIANT).exists()
    assert runs_of(copy, VARIANT) == []
    done = invoke(copy, [*words, "3,4"], monkeypatch)
    assert done.exit_code == 0
    assert "1 folds of the others are done already" in done.stderr
    assert "1 of 1 folds done" in done.stderr
    assert invoke(copy, words[:-1], monkeypatch).exit_code == 0
    [tracked] = runs_of(copy, VARIANT)
    assert [fold.fold for fold in tracked.folds] == [0, 1, 2, 3, 4]
    assert {"train_loss", "validation_auc", "test_auc"} <= set(tracked.folds[0].metrics)
    client = client_of(copy)
    experiment = client.get_run(tracked.run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tracked.run_id}'")
    assert {len(client.get_metric_history(fold.info.run_id, "train_loss")) for fold in children} == {3}
    whole = result_of(copy, VARIANT)
    assert invoke(copy, ["finetune", "--schedule", "cyclic"], monkeypatch).exit_code == 0
    for mine, theirs in zip(result_of(copy, VARIANT)["folds"], whole["folds"], strict=True):
        assert (mine["scores"], mine["history"]) == (theirs["scores"], theirs["history"])


def killed_after(copy: Path, lines: int, words: list[str]) -> int:
    """Start a command, kill it with SIGKILL once it has told so many folds, and return how many it told."""
    process = subprocess.Popen([*COMMAND, *words], cwd=copy, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    told = 0
    for line in process.stderr:
        told += "folds done" in line
        if told >= lines:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return told


def test_killed_grid_goes_on_where_it_stopped(copy, monkeypatch):
    """After kill -9 the same command does the folds that are missing; each variant then has one run and one version."""
    assert killed_after(copy, 3, CYCLIC) == 3
    kept = list((copy / "artifacts/synthetic/unfinished").glob("*/fold-*/result.json"))
    finished = list((copy / "artifacts/synthetic/finetune").glob("*/result.json"))
    assert 3 <= len(kept) + 5 * len(finished) < 15
    done = run(copy, *COMMAND, *CYCLIC)
    assert done.returncode == 0, done.stderr
    told = [int(number) for number in re.findall(r"(\d+) of \d+ folds done", done.stderr)]
    assert told[-1] == 15 - len(kept) - 5 * len(finished)
    for name in NAMES:
        assert len(runs_of(copy, name)) == 1
        assert len(versions_of(copy, name)) == 1
        assert result_of(copy, name)["run_id"] == runs_of(copy, name)[0].run_id
    client = client_of(copy)
    experiment = client.get_experiment_by_name("imputune").experiment_id
    assert client.search_runs([experiment], "attributes.status = 'RUNNING'") == []


def test_killed_while_a_cell_is_put_together(copy, monkeypatch):
    """Killed between registering a variant and its end, the variant is put together anew, with one run and one version."""
    import imputune.pipeline.grid

    class Killed(BaseException):
        """Stands for the end of the process."""

    register = imputune.pipeline.grid.register

    def dying(*arguments):
        register(*arguments)
        raise Killed

    # The end of the run that an exception would bring does not come with kill -9.
    with monkeypatch.context() as patched:
        patched.setattr(imputune.pipeline.grid, "register", dying)
        patched.setattr("imputune.tracking.runs.TrackedRun._abandon", lambda self, status: None)
        with pytest.raises(Killed):
            invoke(copy, ["finetune", "--schedule", "cyclic"], monkeypatch)
    assert runs_of(copy, VARIANT) == []
    [left] = versions_of(copy, VARIANT)
    done = invoke(copy, ["grid", "--head", "mlp2", "--mode", "frozen", "--schedule", "cyclic"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    assert "folds done" not in done.stderr
    [tracked] = runs_of(copy, VARIANT)
    [version] = versions_of(copy, VARIANT)
    assert version.run_id == tracked.run_id != left.run_id
    assert client_of(copy).get_run(left.run_id).info.status == "KILLED"
    assert result_of(copy, VARIANT)["run_id"] == tracked.run_id


def test_other_settings_make_a_cell_anew(copy, monkeypatch):
    """A setting that the variant depends on runs it again, another schedule's does not; so does broken output."""
    words = ["grid", "--head", "mlp2", "--mode", "frozen", "--schedule", "cyclic"]
    assert invoke(copy, words, monkeypatch).exit_code == 0
    first = result_of(copy, VARIANT)["run_id"]
    edit_params(copy, r"factor: 0\.2", "factor: 0.3")
    assert invoke(copy, words, monkeypatch).exit_code == 0
    assert result_of(copy, VARIANT)["run_id"] == first
    edit_params(copy, r"gamma: [\d.]+", "gamma: 0.99")
    assert invoke(copy, words, monkeypatch).exit_code == 0
    second = result_of(copy, VARIANT)["run_id"]
    assert second != first
    (copy / "artifacts/synthetic/finetune" / VARIANT / "result.json").write_text("{")
    assert invoke(copy, words, monkeypatch).exit_code == 0
    third = result_of(copy, VARIANT)["run_id"]
    assert third not in (first, second)
    assert invoke(copy, [*words, "--again"], monkeypatch).exit_code == 0
    assert result_of(copy, VARIANT)["run_id"] != third


def test_folds_of_other_settings_are_not_mixed_in(copy, monkeypatch):
    """Folds left by an interrupted try under other settings are thrown away."""
    words = ["grid", "--head", "mlp2", "--mode", "frozen", "--schedule", "cyclic"]
    assert invoke(copy, [*words, "--fold", "0,1"], monkeypatch).exit_code == 0
    edit_params(copy, r"dropout: 0\.3", "dropout: 0.1")
    done = invoke(copy, words, monkeypatch)
    assert "5 of 5 folds done" in done.stderr


def test_two_commands_at_once_are_refused(copy, monkeypatch):
    """While one command fine-tunes a dataset another is told to wait, and the first goes on."""
    edit_params(copy, r"frozen_epochs: 3", "frozen_epochs: 100000")
    edit_params(copy, r"patience: 25 ", "patience: 100000 ")
    first = subprocess.Popen([*COMMAND, "finetune"], cwd=copy, env=clean_environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list((copy / "artifacts/synthetic/unfinished").glob("*/run.json")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        second = run(copy, *COMMAND, "grid", "--head", "xgboost")
        assert second.returncode == 2
        assert "another command is fine-tuning synthetic: wait for its end, or end it" in second.stderr
        assert first.poll() is None
    finally:
        first.terminate()
        first.wait()


def test_unfrozen_cells_start_from_the_frozen_ones(copy, monkeypatch):
    """Run together, alone, or after the frozen variant, an unfrozen variant has the same scores."""
    words = ["--head", "gru", "--input", "raw", "--schedule", "cyclic"]
    name = "gru-unfrozen-raw-cyclic"
    assert invoke(copy, ["finetune", "--mode", "unfrozen", *words], monkeypatch).exit_code == 0
    alone = result_of(copy, name)
    assert not (copy / "artifacts/synthetic/finetune/gru-frozen-raw-cyclic").exists()
    assert invoke(copy, ["grid", *words, "--again"], monkeypatch).exit_code == 0
    together = result_of(copy, name)
    assert invoke(copy, ["finetune", "--mode", "unfrozen", *words], monkeypatch).exit_code == 0
    after = result_of(copy, name)
    for folds in zip(*(result["folds"] for result in (alone, together, after)), strict=True):
        assert len({json.dumps([fold["scores"], fold["history"]]) for fold in folds}) == 1


@pytest.mark.parametrize(("scope", "searching"), [("each_fold", 5), ("first_fold", 1)])
def test_search_is_tracked_trial_by_trial(copy, monkeypatch, scope, searching):
    """Each trial is a run under the fold that searched, pruned ones KILLED; other folds share its rate."""
    edit_params(copy, r"frozen_scope: \w+", f"frozen_scope: {scope}")
    done = invoke(copy, ["finetune", "--schedule", "optuna"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    folds = result_of(copy, "mlp2-frozen-hidden-optuna")["folds"]
    assert [len(fold["trials"]) for fold in folds] == ([20] * 5 if searching == 5 else [20, 0, 0, 0, 0])
    rates = [fold["learning_rate"] for fold in folds]
    assert len(set(rates)) == searching
    [tracked] = runs_of(copy, "mlp2-frozen-hidden-optuna")
    client = client_of(copy)
    experiment = client.get_run(tracked.run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tracked.run_id}'")
    first = next(child for child in children if child.data.tags["imputune.fold"] == "0")
    trials = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{first.info.run_id}'")
    assert len(trials) == 20
    for trial in trials:
        number, state = int(trial.data.tags["imputune.trial"]), trial.data.tags["imputune.trial_state"]
        told = folds[0]["trials"][number]
        assert (state, trial.info.status) == (told["state"], "FINISHED" if state == "complete" else "KILLED")
        assert float(trial.data.params["learning_rate"]) == told["learning_rate"]
        curve = client.get_metric_history(trial.info.run_id, "validation_loss")
        assert [point.value for point in curve] == [row["validation_loss"] for row in told["curve"]]
    assert {trial.data.tags["imputune.trial_state"] for trial in trials} == {"complete", "pruned"}
    compared = invoke(copy, ["compare", "--json"], monkeypatch)
    told = json.loads(compared.stdout)["notes"]
    assert any(re.search(rf"{searching} searches, \d+ of {20 * searching} trials pruned", note) for note in told)
    assert any("fold 0 searched the learning rate for all" in note for note in told) == (scope == "first_fold")


def test_overfit_trains_every_epoch_and_stays_apart(copy, monkeypatch):
    """Training without early stopping has all its epochs, its own folder and no version, and compare draws it."""
    done = invoke(copy, ["overfit", "--head", "gru", "--input", "raw", "--fold", "1", "--epochs", "40"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    [fold] = json.loads((copy / "artifacts/synthetic/overfit/gru-frozen-raw-plateau/result.json").read_text())["folds"]
    assert (fold["fold"], len(fold["history"])) == (1, 40)
    assert not (copy / "artifacts/synthetic/finetune").exists()
    assert versions_of(copy, "gru-frozen-raw-plateau") == []
    assert invoke(copy, ["finetune"], monkeypatch).exit_code == 0
    done = invoke(copy, ["compare", "--json"], monkeypatch)
    assert "raw" not in {row["input"] for row in json.loads(done.stdout)["rows"]}
    assert (copy / "results/synthetic/figures/overfitting.svg").is_file()


def test_compare_names_what_differs_and_leaves_it_out(copy, monkeypatch):
    """Outputs of other data or folds are named with what differs and left out; other settings are named too."""
    (copy / "mlflow.db").unlink()  # with runs of the same variants
    assert invoke(copy, ["grid", "--head", "xgboost"], monkeypatch).exit_code == 0
    assert invoke(copy, ["grid", "--head", "svm", "--input", "hidden", "--fold", "0,2"], monkeypatch).exit_code == 0
    edit_params(copy, r"max_depth: 6", "max_depth: 5")
    changed = {"hidden": ("folds_hash", "folds"), "imputed": ("cohort_hash", "data")}
    for reads, (key, _) in changed.items():
        path = copy / f"artifacts/synthetic/finetune/xgboost-frozen-{reads}-none/result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: "other"}))
    for run_id in {result_of(copy, f"xgboost-frozen-{reads}-none")["run_id"] for reads in changed}:
        client_of(copy).delete_run(run_id)
    done = invoke(copy, ["compare", "--json"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["input"] for row in told["rows"]] == ["summary"]
    for reads, (_, word) in changed.items():
        assert f"xgboost-frozen-{reads}-none in artifacts is of other {word}, and was left out" in told["notes"]
    partly = "svm-frozen-hidden-none has 2 of 5 folds, and is left out: `imputune grid` goes on with it"
    assert partly in told["notes"]
    kept = "xgboost-frozen-summary-none was made with other settings than params.yaml now has"
    assert f"{kept}: shallow.xgboost.max_depth" in told["notes"]


def test_list_names_the_cells(copy, monkeypatch):
    """--list names what would run: the variants of params.yaml, the chosen ones, or the whole protocol."""
    assert invoke(copy, [*CYCLIC, "--list"], monkeypatch).stdout.split() == NAMES
    every = invoke(copy, ["grid", "--all", "--list"], monkeypatch).stdout.split()
    assert every == [variant.name for variant in PROTOCOL]
    assert len(invoke(copy, ["grid", "--list"], monkeypatch).stdout.split()) == 6
    done = invoke(copy, ["grid", "--list", "--fold", "7"], monkeypatch)
    assert done.exit_code == 2
    assert "leave out --fold, or --list" in done.stderr


def test_dvc_reaches_every_cell_of_the_protocol(copy, monkeypatch):
    """With the whole protocol under grid in params.yaml, dvc has a stage for each variant; an empty list takes none."""
    text = (copy / "params.yaml").read_text()
    before, after = text[: text.index("grid:")], text[text.index("matrix:") :]
    neural = "mode: [frozen, unfrozen], input: [{}], schedule: [optuna, cyclic, plateau]"
    (copy / "params.yaml").write_text(
        f"{before}grid:\n  mlp: {{ head: [mlp2, mlp5], {neural.format('hidden')} }}\n"
        f"  recurrent: {{ head: [lstm, gru], {neural.format('imputed, raw')} }}\n"
        "  shallow: { head: [xgboost, svm], input: [imputed, hidden, summary] }\n"
        f"{after}"
    )
    read_params(copy / "params.yaml")
    Repo.init(str(copy), no_scm=True).close()
    done = run(copy, "dvc", "stage", "list", "--name-only")
    names = [name.split("@")[2] for name in done.stdout.split() if name.startswith("finetune")]
    assert len(names) == len(PROTOCOL), done.stderr
    (copy / "params.yaml").write_text((copy / "params.yaml").read_text().replace("head: [lstm, gru]", "head: []"))
    done = run(copy, "dvc", "stage", "list", "--name-only")
    names = [name for name in done.stdout.split() if name.startswith("finetune")]
    assert len(names) == len(PROTOCOL) - 24, done.stderr


def test_time_left_follows_the_most_similar_cells() -> None:
    """By hand: folds of the same variant took 10 s, of its schedule 70 s, two workers; what is new is said to be."""
    by_name = {variant.name: variant for variant in PROTOCOL}
    mlp, gru, mlp5, svm = (
        by_name[n] for n in (VARIANT, NAMES[1], "mlp5-frozen-hidden-cyclic", "svm-frozen-hidden-none")
    )
    left = TimeLeft(workers=2)
    for fold in range(3):
        left.add(mlp, fold)
    left.add(mlp5, 0)
    assert str(left) == "0 of 4 folds done, no saying yet how long is left"
    left.took(gru, 70.0)
    left.done(mlp, 0, 10.0)
    assert left.seconds == pytest.approx((10 + 10 + 40) / 2)
    assert str(left) == "1 of 4 folds done, about 30 s left"
    left.add(svm, 0)
    assert str(left) == "1 of 5 folds done, at least 30 s left"
    left.took(mlp, 9_990.0)
    assert str(left) == "1 of 5 folds done, at least 1 h 51 min left"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "frozen", "--fold", "1"], "mlp2-frozen-hidden-optuna takes the learning rate of fold 0: add that"),
        (["--mode", "unfrozen"], "mlp2-unfrozen-hidden-optuna starts from mlp2-frozen-hidden-optuna, whose learning"),
    ],
)
def test_what_lacks_a_rate_is_refused_before_anything_runs(copy, monkeypatch, words, message):
    """With scope first_fold, folds without fold 0 and an unfrozen variant without its frozen one are refused at once."""
    edit_params(copy, r"frozen_scope: each_fold", "frozen_scope: first_fold")
    done = invoke(copy, ["grid", "--head", "mlp2", "--schedule", "optuna,cyclic", *words], monkeypatch)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "folds done" not in done.stderr
    assert runs_of(copy, VARIANT) == []
