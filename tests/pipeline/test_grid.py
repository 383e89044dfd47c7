import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from imputune.pipeline import variant_work
from imputune.protocol.choice import choose_variants
from imputune.protocol.variants import PROTOCOL
from imputune.tracking.history import RunRecord, finished_runs
from projects import FOLDS, client_of, copy_of, grid_of, heads_folder, invoke, refused, set_params

VARIANT = "mlp2-frozen-hidden-cyclic"
CYCLIC = ["grid", "--head", "mlp2,gru", "--mode", "frozen", "--schedule", "cyclic"]
NAMES = [VARIANT, "gru-frozen-imputed-cyclic", "gru-frozen-raw-cyclic"]
ONE = ["grid", "--head", "mlp2", "--mode", "frozen", "--schedule", "cyclic"]
DONE = re.compile(r"(\d+) of (\d+) folds done")


@pytest.fixture
def copy(project, tmp_path, monkeypatch) -> Path:
    """A copy of the project with nothing fine-tuned on CSAI, in which commands run."""
    copy = copy_of(project, tmp_path, without=("src",))
    shutil.rmtree(heads_folder(copy))
    monkeypatch.chdir(copy)
    return copy


def result_of(copy: Path, name: str) -> dict[str, Any]:
    """Return the result of a variant."""
    return json.loads((heads_folder(copy) / name / "result.json").read_text())


def runs_of(copy: Path, name: str) -> list[RunRecord]:
    """Return the finished runs of a variant."""
    fields = ("head", "mode", "input", "schedule")
    runs = finished_runs(copy, "imputune", "finetune", "synthetic")
    return [run for run in runs if "-".join(run.tags[f"imputune.{field}"] for field in fields) == name]


def versions_of(copy: Path, name: str) -> list[Any]:
    """Return the registered versions of a variant."""
    head, mode, input, schedule = name.split("-")
    wanted = {"imputune.head": head, "imputune.mode": mode, "imputune.input": input, "imputune.schedule": schedule}
    versions = client_of(copy).search_model_versions("name = 'imputune-mortality-synthetic'")
    return [version for version in versions if wanted.items() <= version.tags.items()]


def scores_of(result: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Return each fold's scores and curve."""
    return [(fold["scores"], fold["history"]) for fold in result["folds"]]


def done(copy: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command that succeeds; return what it said on standard error."""
    result = invoke(copy, words, monkeypatch)
    assert result.exit_code == 0, result.output
    return result.stderr


def test_grid_runs_what_is_missing_and_skips_what_is_done(copy, monkeypatch):
    """Every variant is written, tracked under one run, registered; a second time nothing runs.

    One variant alone has the same scores and curves as among others.
    """
    said = done(copy, CYCLIC, monkeypatch)
    assert f"{3 * FOLDS} of {3 * FOLDS} folds done, about 0 s left" in said
    parents = set()
    for name in NAMES:
        [tracked] = runs_of(copy, name)
        assert [fold.fold for fold in tracked.folds] == list(range(FOLDS))
        assert result_of(copy, name)["run_id"] == tracked.run_id
        assert len(versions_of(copy, name)) == 1
        parents.add(tracked.tags["mlflow.parentRunId"])
    [parent] = parents
    assert client_of(copy).get_run(parent).data.tags["imputune.command"] == "grid"
    assert client_of(copy).get_run(parent).info.status == "FINISHED"
    before = {name: result_of(copy, name) for name in NAMES}
    again = done(copy, CYCLIC, monkeypatch)
    assert "all 3 variants are done already" in again
    assert "folds done" not in again
    assert {name: result_of(copy, name) for name in NAMES} == before
    assert not list((copy / "artifacts/synthetic/unfinished").glob("*-*"))
    done(copy, ["finetune", "--schedule", "cyclic"], monkeypatch)
    alone = result_of(copy, VARIANT)
    assert alone["run_id"] != before[VARIANT]["run_id"]
    assert scores_of(alone) == scores_of(before[VARIANT])


def test_risks_that_are_all_the_same_are_told(copy, monkeypatch):
    """Trees that may not split give all stays of a fold one risk; a note says so, and of which folds."""
    words = ["finetune", "--head", "xgboost", "--input", "summary"]
    set_params(copy, {"non_neural.xgboost.min_child_weight": 1e6})
    said = done(copy, words, monkeypatch)
    assert (
        f"note: csai/xgboost-frozen-summary-none learned nothing in folds {', '.join(map(str, range(FOLDS)))}: "
        "all test stays have the same risk; there may be too few events, or non_neural.xgboost.min_child_weight in "
        "params.yaml is too high for them\n"
    ) in said
    set_params(copy, {"non_neural.xgboost.min_child_weight": 0.01})
    assert "learned nothing" not in done(copy, words, monkeypatch)


def test_folds_one_at_a_time_make_the_whole_variant(copy, monkeypatch):
    """Folds asked for apart are kept until the last one completes the variant, which then is what it is at once."""
    done(copy, [*ONE, "--fold", "0"], monkeypatch)
    assert not (heads_folder(copy) / VARIANT).exists()
    assert runs_of(copy, VARIANT) == []
    said = done(copy, [*ONE, "--fold", "0,2"], monkeypatch)
    assert "done already: 1 fold of unfinished variants" in said
    assert "1 of 1 folds done" in said
    done(copy, ONE, monkeypatch)
    [tracked] = runs_of(copy, VARIANT)
    assert [fold.fold for fold in tracked.folds] == list(range(FOLDS))
    assert {"train_loss", "validation_auc", "test_auc"} <= set(tracked.folds[0].metrics)
    client = client_of(copy)
    experiment = client.get_run(tracked.run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tracked.run_id}'")
    assert {len(client.get_metric_history(fold.info.run_id, "train/loss")) for fold in children} == {3}
    whole = result_of(copy, VARIANT)
    done(copy, ["finetune", "--schedule", "cyclic"], monkeypatch)
    assert scores_of(result_of(copy, VARIANT)) == scores_of(whole)


def test_killed_while_a_variant_is_put_together(copy, monkeypatch):
    """Killed between registering a variant and its end, it is put together anew, with one run and one version."""

    class Killed(BaseException):
        """Stands for the end of the process."""

    register = variant_work.register_classifier

    def dying(*arguments):
        register(*arguments)
        raise Killed

    # The end of the run that an exception would bring does not come with kill -9.
    with monkeypatch.context() as patched:
        patched.setattr(variant_work, "register_classifier", dying)
        patched.setattr("imputune.tracking.runs.TrackedRun._abandon", lambda self, status: None)
        with pytest.raises(Killed):
            invoke(copy, ["finetune", "--schedule", "cyclic"], monkeypatch)
    assert runs_of(copy, VARIANT) == []
    [left] = versions_of(copy, VARIANT)
    assert "folds done" not in done(copy, ONE, monkeypatch)
    [tracked] = runs_of(copy, VARIANT)
    [version] = versions_of(copy, VARIANT)
    assert version.run_id == tracked.run_id != left.run_id
    assert client_of(copy).get_run(left.run_id).info.status == "KILLED"
    assert result_of(copy, VARIANT)["run_id"] == tracked.run_id


def test_other_settings_make_a_variant_anew(copy, monkeypatch):
    """A setting that the variant depends on runs it again, another schedule's does not; so does broken output."""
    words = ["grid", "--head", "xgboost", "--input", "summary"]
    name = "xgboost-frozen-summary-none"
    done(copy, words, monkeypatch)
    first = result_of(copy, name)["run_id"]
    set_params(copy, {"non_neural.svm.costs": [3.0], "schedules.plateau.factor": 0.3, "workers": 1})
    done(copy, words, monkeypatch)
    assert result_of(copy, name)["run_id"] == first
    set_params(copy, {"non_neural.xgboost.max_depth": 2})
    done(copy, words, monkeypatch)
    second = result_of(copy, name)["run_id"]
    assert second != first
    (heads_folder(copy) / name / "result.json").write_text("{")
    done(copy, words, monkeypatch)
    third = result_of(copy, name)["run_id"]
    assert third not in (first, second)
    done(copy, [*words, "--again"], monkeypatch)
    assert result_of(copy, name)["run_id"] != third


def test_a_schedule_of_its_own_makes_a_neural_variant_anew(copy, monkeypatch):
    """A neural variant runs again when its own schedule changes, and not when another schedule does."""
    done(copy, ONE, monkeypatch)
    first = result_of(copy, VARIANT)["run_id"]
    set_params(copy, {"schedules.plateau.factor": 0.3, "finetune.unfrozen_average_decay": 0.5})
    assert "1 variant is done already" in done(copy, ONE, monkeypatch)
    set_params(copy, {"schedules.cyclic.gamma": 0.99})
    done(copy, ONE, monkeypatch)
    assert result_of(copy, VARIANT)["run_id"] != first


def test_folds_of_other_settings_are_not_mixed_in(copy, monkeypatch):
    """Folds left by an interrupted try under other settings are thrown away."""
    words = ["grid", "--head", "svm", "--input", "summary"]
    done(copy, [*words, "--fold", "0,1"], monkeypatch)
    set_params(copy, {"non_neural.svm.costs": [0.5]})
    assert f"{FOLDS} of {FOLDS} folds done" in done(copy, words, monkeypatch)


def test_unfrozen_variants_start_from_the_frozen_ones(copy, monkeypatch):
    """Run together, alone, or after the frozen variant, an unfrozen variant has the same scores."""
    words = ["--head", "gru", "--input", "raw", "--schedule", "cyclic"]
    name = "gru-unfrozen-raw-cyclic"
    done(copy, ["finetune", "--mode", "unfrozen", *words], monkeypatch)
    alone = result_of(copy, name)
    assert not (heads_folder(copy) / "gru-frozen-raw-cyclic").exists()
    done(copy, ["grid", *words, "--again"], monkeypatch)
    together = result_of(copy, name)
    done(copy, ["finetune", "--mode", "unfrozen", *words], monkeypatch)
    assert scores_of(alone) == scores_of(together) == scores_of(result_of(copy, name))


@pytest.mark.parametrize(("scope", "searching"), [("each_fold", FOLDS), ("first_fold", 1)])
def test_search_is_tracked_trial_by_trial(copy, monkeypatch, scope, searching):
    """Each trial is a run under the fold that searched, pruned ones KILLED; other folds share its rate."""
    trials = 6
    if scope == "first_fold":
        set_params(copy, {"schedules.optuna.frozen_scope": scope})
    set_params(copy, {"schedules.optuna.startup_trials": 1, "schedules.optuna.reduction_factor": 2})
    done(copy, ["finetune", "--schedule", "optuna"], monkeypatch)
    folds = result_of(copy, "mlp2-frozen-hidden-optuna")["folds"]
    assert [len(fold["trials"]) for fold in folds] == ([trials] * FOLDS if searching > 1 else [trials, 0, 0])
    rates = [fold["learning_rate"] for fold in folds]
    assert len(set(rates)) == searching
    [tracked] = runs_of(copy, "mlp2-frozen-hidden-optuna")
    client = client_of(copy)
    experiment = client.get_run(tracked.run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tracked.run_id}'")
    states = set()
    for fold in folds[:searching]:
        [child] = [each for each in children if each.data.tags["imputune.fold"] == str(fold["fold"])]
        runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{child.info.run_id}'")
        assert len(runs) == trials
        for trial in runs:
            number, state = int(trial.data.tags["imputune.trial"]), trial.data.tags["imputune.trial_state"]
            kept = fold["trials"][number]
            assert (state, trial.info.status) == (kept["state"], "FINISHED" if state == "complete" else "KILLED")
            assert float(trial.data.params["learning_rate"]) == kept["learning_rate"]
            curve = client.get_metric_history(trial.info.run_id, "validation/loss")
            assert [point.value for point in curve] == [row["validation_loss"] for row in kept["curve"]]
            states.add(state)
    assert states == {"complete", "pruned"}
    compared = json.loads(invoke(copy, ["compare", "--json"], monkeypatch).stdout)["notes"]
    assert any(
        re.search(rf"{searching} searches, \d+ of {trials * searching} trials were pruned", note) for note in compared
    )
    shared = [note for note in compared if "fold 0 searched the learning rate for all folds" in note]
    assert bool(shared) == (scope == "first_fold")


def test_overfit_trains_every_epoch_and_stays_apart(copy, monkeypatch):
    """Training without early stopping has all its epochs, its own folder and no version, and compare draws it."""
    done(copy, ["overfit", "--head", "gru", "--input", "raw", "--fold", "1", "--epochs", "30"], monkeypatch)
    folder = copy / "artifacts/synthetic/overfit/in_hospital_death/csai/gru-frozen-raw-plateau"
    [fold] = json.loads((folder / "result.json").read_text())["folds"]
    assert (fold["fold"], len(fold["history"])) == (1, 30)
    assert not heads_folder(copy).exists()
    assert versions_of(copy, "gru-frozen-raw-plateau") == []
    done(copy, ["grid", "--head", "xgboost", "--input", "summary"], monkeypatch)
    compared = invoke(copy, ["compare", "--json"], monkeypatch)
    assert "raw" not in {row["input"] for row in json.loads(compared.stdout)["rows"]}
    assert "gru-frozen-raw-plateau" in (copy / "results/synthetic/figures/overfitting.svg").read_text()


def test_compare_names_what_differs_and_leaves_it_out(copy, monkeypatch):
    """Outputs of other data or folds are named with what differs and left out; other settings are named too."""
    (copy / "mlflow.db").unlink()  # with runs of the same variants
    done(copy, ["grid", "--head", "xgboost"], monkeypatch)
    done(copy, ["grid", "--head", "svm", "--input", "hidden", "--fold", "0,2"], monkeypatch)
    set_params(copy, {"non_neural.xgboost.max_depth": 5})
    changed = {"hidden": ("folds_hash", "folds"), "imputed": ("cohort_hash", "data")}
    for input, (key, _) in changed.items():
        path = heads_folder(copy) / f"xgboost-frozen-{input}-none/result.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"made_from": content["made_from"] | {key: "other"}}))
        client_of(copy).delete_run(content["run_id"])
    shutil.rmtree(copy / "results/synthetic/variants")  # which tell of the same variants on our data
    compared = json.loads(invoke(copy, ["compare", "--json"], monkeypatch).stdout)
    assert [row["input"] for row in compared["rows"]] == ["summary"]
    for input, (_, word) in changed.items():
        left_out = f"csai/xgboost-frozen-{input}-none is skipped: it was made from other {word}"
        assert left_out in compared["notes"]
    partly = (
        f"csai/svm-frozen-hidden-none is skipped: 2 of {FOLDS} folds are finished. `imputune grid` with this variant"
    )
    assert f"{partly} trains the others" in compared["notes"]
    kept = "csai/xgboost-frozen-summary-none: these settings now differ in params.yaml"
    assert f"{kept}: non_neural.xgboost.max_depth" in compared["notes"]


def test_list_names_the_variants(copy, monkeypatch):
    """--list names what would run: the variants of params.yaml, the chosen ones, or the whole protocol."""
    labels = [f"csai/{name}" for name in NAMES]
    assert invoke(copy, [*CYCLIC, "--list"], monkeypatch).stdout.split() == labels
    every = invoke(copy, ["grid", "--all", "--list"], monkeypatch).stdout.split()
    assert every == [variant.label for variant in PROTOCOL]
    assert len(invoke(copy, ["grid", "--list"], monkeypatch).stdout.split()) == 6
    both = invoke(copy, ["grid", "--imputer", "all", "--head", "mlp2", "--list"], monkeypatch).stdout.split()
    assert both == ["csai/mlp2-frozen-hidden-plateau", "mean/mlp2-frozen-imputed-plateau"]
    assert "leave out --fold, or --list" in refused(invoke(copy, ["grid", "--list", "--fold", "7"], monkeypatch))


def test_dvc_reaches_every_variant(copy, monkeypatch):
    """With the whole protocol under grid in params.yaml, dvc has a stage for each variant; an empty list takes none."""
    neural = {"imputer": ["csai"], "mode": ["frozen", "unfrozen"], "schedule": ["optuna", "cyclic", "plateau"]}
    blocks = {
        "mlp": neural | {"head": ["mlp2", "mlp5"], "input": ["hidden"]},
        "mlp_imputed": neural
        | {"imputer": ["mean"], "mode": ["frozen"], "head": ["mlp2", "mlp5"], "input": ["imputed"]},
        "recurrent": neural | {"head": ["lstm", "gru"], "input": ["imputed", "raw"]},
        "non_neural": {"imputer": ["csai"], "head": ["xgboost", "svm"], "input": ["imputed", "hidden", "summary"]},
    }
    mean = choose_variants({"head": ["mlp2", "mlp5"], "schedule": ["optuna", "cyclic", "plateau"]}, ["mean"])
    assert len(mean) == 6

    def commands(blocks: dict[str, Any]) -> set[str]:
        set_params(copy, grid_of(**blocks), must_change=False)
        with Repo.init(str(copy), no_scm=True, force=True) as repo:
            found = [stage.cmd for stage in repo.index.stages if "finetune" in (getattr(stage, "cmd", None) or "")]
        assert len(set(found)) == len(found)
        return set(found)

    every = commands(blocks)
    assert len(every) == len(PROTOCOL) + len(mean)
    for variant in [*PROTOCOL, *mean]:
        words = f"--imputer {variant.imputer} --head {variant.head}"
        words += f" --mode {variant.mode}" if variant.is_neural else ""
        words += f" --input {variant.input}"
        words += f" --schedule {variant.schedule}" if variant.is_neural else ""
        assert f"imputune finetune synthetic {words}" in every
    fewer = commands(blocks | {"recurrent": blocks["recurrent"] | {"head": []}})
    assert len(fewer) == len(every) - 24


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "frozen", "--fold", "1"], "csai/mlp2-frozen-hidden-optuna takes the learning rate of fold 0: add"),
        (["--mode", "unfrozen"], "starts from csai/mlp2-frozen-hidden-optuna, and fold 0 searches the learning rate"),
    ],
)
def test_what_lacks_a_rate_is_refused_before_anything_runs(copy, monkeypatch, words, message):
    """With scope first_fold, folds without fold 0, and an unfrozen variant without its frozen one, are refused."""
    set_params(copy, {"schedules.optuna.frozen_scope": "first_fold"})
    command = ["grid", "--head", "mlp2", "--schedule", "optuna,cyclic", *words]
    assert message in refused(invoke(copy, command, monkeypatch))
    assert runs_of(copy, VARIANT) == []


def test_a_combination_of_the_grid_that_does_not_exist_names_its_block(copy, monkeypatch):
    """params.yaml may name words that no variant combines: the line says in which block."""
    set_params(copy, {"grid.recurrent.input": ["hidden"]})
    line = refused(invoke(copy, ["grid"], monkeypatch))
    assert line.startswith("params.yaml, grid.recurrent: gru has no input 'hidden': lstm and gru exist with mode ")
