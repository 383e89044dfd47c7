"""Imputers of own names, pretrained on further cohorts too: by the commands, from pretraining to evaluation."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import networkx
import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo
from safetensors.numpy import load_file

from imputune.data.cohort import Cohort, Variable, read_cohort, write_cohort
from imputune.data.folds import read_folds
from imputune.data.raw.synthetic import extract_synthetic
from imputune.registry.names import classifier_name
from imputune.registry.versions import Registry
from imputune.settings.fold_sections import Folds
from imputune.tracking.history import finished_runs
from projects import (
    FOLDS,
    ROOT,
    SHARED,
    STAYS,
    client_of,
    copy_of,
    finished,
    imputer_folder,
    invoke,
    new_project,
    refused,
    run,
    set_params,
)
from projects import started as started_command

MORE = 40
NAME = "csai_more"
MODEL = f"imputune-{NAME}-synthetic"
PRETRAIN = ["pretrain", "--also", "data/more", "--name", NAME]


@pytest.fixture(scope="module")
def trained(_shared_project, tmp_path_factory) -> Path:
    """The shared project with an imputer that learned from 40 further stays, a head on it, and the comparison."""
    copy = copy_of(_shared_project, tmp_path_factory.mktemp("also"), without=("src",), with_mlruns=True)
    write_cohort(extract_synthetic(MORE, 7), copy / "data/more")
    for words in (PRETRAIN, ["finetune", "--imputer", NAME], ["assess", "--imputer", NAME]):
        finished(copy, words)
    finished(copy, ["compare", "--by", "imputer,head"])
    (copy / SHARED).touch()
    return copy


@pytest.fixture
def made(trained, tmp_path, monkeypatch) -> Path:
    """A copy of that project."""
    copy = copy_of(trained, tmp_path, with_mlruns=True)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="module")
def _unmade(tmp_path_factory) -> Path:
    """A project with folds and a further cohort, in which nothing is trained."""
    folder = new_project(tmp_path_factory.mktemp("unmade") / "project")
    shutil.rmtree(folder / "src")
    write_cohort(extract_synthetic(STAYS, 2012), folder / "data/synthetic")
    write_cohort(extract_synthetic(MORE, 7), folder / "data/more")
    finished(folder, ["folds"])
    return folder


@pytest.fixture
def unmade(_unmade) -> Iterator[Path]:
    """That project, for commands that are refused: they leave no output and no run."""
    runs = len(all_runs(_unmade))
    yield _unmade
    assert len(all_runs(_unmade)) == runs
    assert not list((_unmade / "artifacts/synthetic").glob("imputers/*"))
    assert not list((_unmade / "artifacts/synthetic").glob("unfinished/pretrain-*"))


def all_runs(project: Path) -> list:
    """Return every run of a project, of whatever status."""
    client = client_of(project)
    return client.search_runs([each.experiment_id for each in client.search_experiments()])


def weights_of(project: Path, imputer: str = NAME) -> list[dict[str, np.ndarray]]:
    """Return an imputer's weights by fold."""
    files = sorted(imputer_folder(project, imputer).glob("*.safetensors"))
    assert len(files) == FOLDS
    return [load_file(path) for path in files]


def assert_equal(ours: list[dict[str, np.ndarray]], theirs: list[dict[str, np.ndarray]]) -> None:
    """Check that weights agree bit by bit."""
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def further(folder: Path, name: str, **changes: object) -> Path:
    """Write a changed copy of the further cohort of a project, and return its folder."""
    cohort = read_cohort(folder / "data/more")
    write_cohort(replace(cohort, values_NTD=np.array(cohort.values_NTD), **changes), folder / "data" / name)  # type: ignore[arg-type]
    return folder / "data" / name


def test_an_own_imputer_learns_from_more_stays_and_stands_beside_csai(trained, project):
    """It has its own folder, run and registered model with its lineage; it has CSAI's scaling, and other weights."""
    assert_equal(weights_of(trained, "csai"), weights_of(project, "csai"))
    for ours, theirs in zip(weights_of(trained), weights_of(trained, "csai"), strict=True):
        assert set(ours) == set(theirs)
        same = {name for name in ours if np.array_equal(ours[name], theirs[name])}
        assert {name for name in ours if name.startswith("scaler.")} <= same
        assert "imputer.median_gap_hours_D" in same
        assert len(same) < len(ours) / 2
    output = json.loads((imputer_folder(trained, NAME) / "result.json").read_text())
    [lineage] = output["made_from"]["also"]
    assert (lineage["name"], lineage["stays"], len(lineage["cohort_hash"])) == ("set-s", MORE, 64)
    [run_record] = [
        each for each in finished_runs(trained, "imputune", "pretrain", "synthetic") if each.run_id == output["run_id"]
    ]
    cohort = read_cohort(trained / "data/synthetic")
    digest = output["made_from"]["cohort_hash"]
    folds = read_folds(trained / "artifacts/synthetic/folds.json", cohort, digest, Folds(count=FOLDS), 2012)
    for fold in folds:
        assert run_record.metrics[f"training_stays_fold_{fold.number}"] == len(fold.train) + MORE
    assert json.loads(run_record.tags["imputune.also_cohorts"]) == [lineage]
    [version] = Registry(trained, MODEL).versions()
    assert json.loads(version.tag("also_cohorts")) == [lineage]
    assert version.tag("cohort_hash") == digest
    [classifier] = [
        each for each in Registry(trained, classifier_name("synthetic")).versions() if each.tag("imputer") == NAME
    ]
    assert json.loads(classifier.tag("also_cohorts")) == [lineage]
    assert classifier.tag("imputer_version") == "1"
    assert classifier.variant == f"{NAME}/mlp2-frozen-hidden-plateau"
    assert {each.tag("also_cohorts") for each in Registry(trained, "imputune-csai-synthetic").versions()} == {""}


def test_an_own_imputer_is_compared_and_noted(trained):
    """It has a row in the matrix and in the assessment, a note names its cohorts, and it is no rival in analyses."""
    told = json.loads((trained / "results/synthetic/imputers.json").read_text())
    assert [each["imputer"] for each in told["imputers"]] == ["csai", "mean", NAME]
    assert [each["label"] for each in told["imputers"]][-1] == "CSAI (more)"
    assert (NAME, "mlp2") in {(row["imputer"], row["head"]) for row in told["matrix"]}
    assert f"{NAME} was pretrained on further cohorts too: set-s ({MORE} stays)" in told["notes"]
    without = told["decomposition_without_controls"]
    assert without["imputers"] == ["csai", "mean"]
    report = (trained / "results/synthetic/report.md").read_text()
    assert f"imputune pretrain synthetic --also FOLDER --name {NAME}" in report


def test_promote_names_the_own_imputer(made, monkeypatch):
    """A version on an own imputer may be tested against the gates as any other, and the decision says which it is."""
    registry = Registry(made, classifier_name("synthetic"))
    version = next(each.number for each in registry.versions() if each.tag("imputer") == NAME)
    done = invoke(made, ["promote", "--version", str(version), "--dry-run", "--json"], monkeypatch)
    told = json.loads(done.stdout)
    assert told["candidate_variant"] == f"{NAME}/mlp2-frozen-hidden-plateau"
    gates = {gate["name"]: gate["passed"] for gate in told["gates"]}
    assert gates["same variables and data"]


def test_other_outcomes_of_the_further_cohort_change_nothing(made, monkeypatch):
    """With every outcome of the further cohort flipped, each weight is the same; other values change weights."""
    before = weights_of(made)
    cohort = read_cohort(made / "data/more")
    flipped = further(made, "flipped", outcome_N=1 - cohort.outcome_N)
    assert invoke(made, ["pretrain", "--also", str(flipped), "--name", "csai_flipped"], monkeypatch).exit_code == 0
    assert_equal(before, weights_of(made, "csai_flipped"))
    values_NTD = np.array(cohort.values_NTD)
    values_NTD[0] += 1
    write_cohort(replace(cohort, values_NTD=values_NTD), made / "data/moved")
    assert invoke(made, ["pretrain", "--also", "data/moved", "--name", "csai_moved"], monkeypatch).exit_code == 0
    for ours, theirs in zip(before, weights_of(made, "csai_moved"), strict=True):
        assert not np.array_equal(ours["imputer.history"], theirs["imputer.history"])


def test_dvc_makes_the_imputers_under_also_in_params(made, monkeypatch):
    """They have a stage, stale once a cohort of theirs changes; --imputer all and the grid name them too."""
    stage = "pretrain_also@synthetic-csai_two"
    shutil.copytree(ROOT / "src", made / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    write_cohort(extract_synthetic(30, 8), made / "data/third")
    set_params(made, {"also": {"csai_two": ["more", "third"]}, "grid.mlp.imputer": ["csai", "csai_two"]})
    line = refused(invoke(made, ["pretrain", "--also", "data/more", "--name", "csai_two"], monkeypatch))
    assert line.startswith("csai_two has its cohorts under also in params.yaml: run `imputune pretrain --imputer ")
    listed = invoke(made, ["grid", "--imputer", "all", "--head", "mlp2", "--list"], monkeypatch)
    assert "csai_two/mlp2-frozen-hidden-plateau" in listed.stdout.splitlines()
    with Repo.init(str(made), no_scm=True) as repo:
        names = {each.addressing for each in repo.index.stages}
        ours = {stage, "finetune_mlp@synthetic-csai_two-mlp2-frozen-hidden-plateau"}
        [compare] = [each for each in repo.index.stages if each.addressing == "compare@synthetic"]
        before = {each.addressing for each in networkx.descendants(repo.index.graph, compare)}
    assert ours < names
    assert ours < before
    done = run(made, "dvc", "repro", "--single-item", stage)
    assert done.returncode == 0, done.stderr
    assert "CSAI (two) on synthetic" in done.stdout
    output = json.loads((imputer_folder(made, "csai_two") / "result.json").read_text())
    assert [each["stays"] for each in output["made_from"]["also"]] == [MORE, 30]
    with Repo(str(made)) as repo:
        assert stage not in repo.status()
        write_cohort(extract_synthetic(31, 8), made / "data/third")
        assert stage in repo.status()


def test_a_killed_pretraining_goes_on_to_the_same_weights(made, tmp_path, monkeypatch):
    """After kill -9 the finished folds are kept, and the weights are as without it; other stays start anew."""
    set_params(made, {"budget.synthetic.pretrain_epochs": 20, "workers": 1})
    words = ["pretrain", "--also", "data/more", "--name", "csai_killed"]
    process = started_command(made, *words)
    unfinished = made / "artifacts/synthetic/unfinished/pretrain-csai_killed"
    deadline = time.monotonic() + 120
    while not (unfinished / "fold-0/result.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not imputer_folder(made, "csai_killed").exists()
    other = tmp_path / "other"
    shutil.copytree(made, other, ignore=shutil.ignore_patterns("mlruns", "mlflow.db"))
    seconds = json.loads((unfinished / "fold-0/result.json").read_text())["folds"][0]["seconds"]
    assert invoke(made, words, monkeypatch).exit_code == 0
    folds = json.loads((imputer_folder(made, "csai_killed") / "result.json").read_text())["folds"]
    assert folds[0]["seconds"] == seconds
    assert not unfinished.exists()
    assert invoke(made, [*words[:-1], "csai_whole"], monkeypatch).exit_code == 0
    assert_equal(weights_of(made, "csai_killed"), weights_of(made, "csai_whole"))
    write_cohort(extract_synthetic(MORE + 1, 9), other / "data/more")
    assert invoke(other, words, monkeypatch).exit_code == 0
    folds = json.loads((imputer_folder(other, "csai_killed") / "result.json").read_text())["folds"]
    assert folds[0]["seconds"] != seconds


@pytest.mark.cluster
def test_a_pulled_own_imputer_is_registered_with_its_lineage(trained, tmp_path, monkeypatch):
    """`imputune register` gives an own imputer and its head their further cohorts, also where these are gone."""
    lineage = Registry(trained, MODEL).versions()[0].tag("also_cohorts")
    made = copy_of(trained, tmp_path, without=("mlflow.db", "more"))
    done = invoke(made, ["register"], monkeypatch)
    assert f"{NAME} is version 1 of {MODEL}" in done.stdout.splitlines()
    assert Registry(made, MODEL).versions()[0].tag("also_cohorts") == lineage
    tags = {
        each.tag("imputer"): each.tag("also_cohorts")
        for each in Registry(made, classifier_name("synthetic")).versions()
    }
    assert tags == {"csai": "", NAME: lineage}


def test_evaluate_marks_what_pretrained_the_imputer(made, monkeypatch):
    """The further cohort, or a part of it, is measured and marked; other stays are external; CSAI's models are too."""
    set_params(made, {"evaluate.resamples": 5})
    registry = Registry(made, classifier_name("synthetic"))
    version = next(each.number for each in registry.versions() if each.tag("imputer") == NAME)
    csai = next(each.number for each in registry.versions() if each.tag("imputer") == "csai")

    def evaluated(folder: str, number: int) -> tuple[dict, str]:
        words = ["evaluate", "--model", str(number), "--data", folder]
        done = invoke(made, [*words, "--json"], monkeypatch)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout), invoke(made, words, monkeypatch).stderr

    told, notes = evaluated("data/more", version)
    assert (told["is_external"], told["pretrained_on"]) == (False, {"set-s": MORE})
    assert f"note: not external: {MORE} of these stays pretrained the model's imputer" in notes
    card = registry.find(str(version)).description
    assert f"; not external: {MORE} of these stays pretrained the imputer." in card
    assert f"- further cohorts of the imputer: set-s ({MORE} stays)\n" in card
    cohort = read_cohort(made / "data/more")
    write_cohort(part(cohort, slice(10, None)), made / "part")
    told, _ = evaluated("part", version)
    assert (told["is_external"], told["pretrained_on"]) == (False, {"set-s": MORE - 10})
    files = [json.loads(path.read_text()) for path in (made / "results/synthetic").glob("external-*.json")]
    assert [each["pretrained_on"] for each in files if each["cohort_hash"] == told["cohort_hash"]] == [
        {"set-s": MORE - 10}
    ]
    told, notes = evaluated("data/more", csai)
    assert (told["is_external"], told["pretrained_on"], told["unchecked_cohorts"]) == (True, {}, [])
    assert "not external" not in notes
    write_cohort(extract_synthetic(50, 11), made / "apart")
    told, _ = evaluated("apart", version)
    assert (told["is_external"], told["unchecked_cohorts"]) == (True, [])
    shutil.rmtree(made / "data/more")
    told, notes = evaluated("apart", version)
    assert told["unchecked_cohorts"] == ["set-s"]
    assert registry.find(str(version)).description.endswith("; external; shared stays not checked: set-s.\n")
    assert "note: the imputer was pretrained on set-s, which is not in data/: shared stays were not checked" in notes


def part(cohort: Cohort, rows: slice) -> Cohort:
    """Return some stays of a cohort."""
    return cohort.of_rows(np.arange(len(cohort.stay_ids_N))[rows])


def test_a_served_model_of_an_own_imputer_predicts(made, records):
    """The registered imputer loads by mlflow and keeps observed values."""
    mlflow.set_tracking_uri(f"sqlite:///{made}/mlflow.db")
    table = pd.DataFrame({"RecordID": [1], "Time": ["00:10"], "Parameter": ["HR"], "Value": [80.0]})
    series = mlflow.pyfunc.load_model(f"models:/{MODEL}/1").predict(table)
    assert series[series["Observed"]]["Value"].tolist() == [80.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--also", "data/more"], "--also and --name go together"),
        (["--name", NAME], "--also and --name go together"),
        (
            ["--also", "data/more", "--name", "csai"],
            "--name: an imputer's own name is csai_ with lower-case letters and ",
        ),
        (
            ["--also", "data/more", "--name", "csai_untraind"],
            "must not resemble another imputer's (did you mean 'csai_untrained'?): got 'csai_untraind'",
        ),
        (
            ["--also", "data/more", "--name", "csai_untrained"],
            "the name 'csai_untrained' is taken by another imputer: choose another name, such as csai_more",
        ),
        (["--also", "data/more", "--name", "more"], "such as csai_more: got 'more'"),
        (
            ["--imputer", "csai_untraind"],
            "unknown imputer 'csai_untraind' (did you mean 'csai_untrained'?): choose from",
        ),
        (["--also", "data/more", "--name", "csai_More"], "an imputer's own name is csai_ with lower-case letters and "),
        (["--also", "data/more", "--name", "csai_../x"], "an imputer's own name is csai_ with lower-case letters and "),
        (["--also", "data/more", "--name", NAME, "--imputer", "mean"], "--also makes an imputer of family csai"),
        (["--imputer", "csai_les"], "csai_les is not under also in params.yaml (there is none)"),
        (["--also", "nowhere", "--name", NAME], "nowhere is no cohort: no such folder"),
        (["--also", "data/more,data/../data/more", "--name", NAME], "a cohort folder is named twice: name each once"),
        (
            ["--also", "data/synthetic", "--name", NAME],
            "data/synthetic is the project's own cohort: name another",
        ),
    ],
)
def test_bad_words_are_one_line(unmade, words, message, monkeypatch):
    """Each mistake gives its cause and remedy in one line, before anything is trained or tracked."""
    assert message in refused(invoke(unmade, ["pretrain", *words], monkeypatch))


def test_fine_tuning_an_own_imputer_that_is_not_there_is_one_line(unmade, monkeypatch):
    """The line says both ways to make it."""
    line = refused(invoke(unmade, ["finetune", "--imputer", NAME], monkeypatch))
    assert "name its further cohorts under also in params.yaml and run `imputune pretrain synthetic --imputer" in line


def test_a_further_cohort_of_other_variables_is_refused(unmade, monkeypatch):
    """Another name, another unit, and another order are each one line; nothing is trained."""
    variables = read_cohort(unmade / "data/more").variables
    changes = {
        "named": (Variable("Pulse", "x"), *variables[1:]),
        "in_units": (replace(variables[0], unit="kPa"), *variables[1:]),
        "ordered": (variables[1], variables[0], *variables[2:]),
    }
    told = {}
    for name, changed in changes.items():
        further(unmade, name, variables=changed)
        told[name] = refused(invoke(unmade, ["pretrain", "--also", f"data/{name}", "--name", NAME], monkeypatch))
        assert told[name].startswith(f"data/{name} has other variables or units than data/synthetic (")
    assert "(DiasABP, Pulse)" in told["named"]
    assert "(DiasABP)" in told["in_units"]
    assert "(their order)" in told["ordered"]


def test_shared_stays_are_refused_wherever_they_stand(unmade, monkeypatch):
    """One stay of the project with another id, whatever its split, and one stay in two further cohorts."""
    project, more = read_cohort(unmade / "data/synthetic"), read_cohort(unmade / "data/more")
    for row in (0, STAYS - 1):
        values_NTD = np.array(more.values_NTD)
        values_NTD[3] = project.values_NTD[row]
        write_cohort(replace(more, values_NTD=values_NTD), unmade / "data/leaking")
        line = refused(invoke(unmade, ["pretrain", "--also", "data/leaking", "--name", NAME], monkeypatch))
        assert line.startswith(f"1 of the {MORE} stays of data/leaking are in data/synthetic too (such as 900004)")
    write_cohort(part(more, slice(0, 5)), unmade / "data/again")
    line = refused(invoke(unmade, ["pretrain", "--also", "data/again,data/more", "--name", NAME], monkeypatch))
    assert line.startswith("5 of the 5 stays of data/again are in data/more too")


def test_a_blend_has_the_further_cohorts_of_its_members(made, monkeypatch):
    """A blend stands under csai, but a member on csai_more makes the cohort that pretrained it no external one."""
    members = [f"{NAME}/mlp2-frozen-hidden-plateau", "csai/xgboost-frozen-summary-none"]
    set_params(made, {"blend.members": members, "blend.scale": "calibrated"})
    done = invoke(made, ["finetune", "--head", "blend"], monkeypatch)
    assert done.exit_code == 0, done.output
    by_variant = {each.variant: each for each in Registry(made, classifier_name("synthetic")).versions()}
    blend, member = by_variant["blend-frozen-members-none"], by_variant[f"{NAME}/mlp2-frozen-hidden-plateau"]
    assert json.loads(blend.tag("also_cohorts")) == json.loads(member.tag("also_cohorts"))
    words = ["evaluate", "--model", str(blend.number), "--data", "data/more", "--json"]
    told = json.loads(invoke(made, words, monkeypatch).stdout)
    assert (told["is_external"], list(told["pretrained_on"].values())) == (False, [MORE])
