"""Heads that read static facts and statistics of the record, from training to a prediction."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.artifacts.stage_files import read_weights
from imputune.data.cohort import cohort_hash, read_cohort, write_cohort
from imputune.data.folds import read_folds
from imputune.data.record_features import RecordScaler
from imputune.registry.versions import Registry
from imputune.settings.fold_sections import Folds
from projects import FOLDS, copy_of, heads_folder, invoke, refused

INPUT = "hidden+static+summary"
ROWS = "1,00:00,Age,{age}\n1,00:00,Gender,1\n1,00:00,ICUType,{icu}\n1,00:10,HR,112\n"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(_shared_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with heads that read record features, the best one champion."""
    copy = copy_of(_shared_project, tmp_path_factory.mktemp("record"), with_mlruns=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        grid = ["grid", "--head", "mlp2", "--input", INPUT, "--schedule", "plateau"]
        recurrent = ["grid", "--head", "gru", "--input", "raw+static", "--mode", "frozen", "--schedule", "plateau"]
        for words in (grid, recurrent, ["grid", "--head", "xgboost", "--input", "summary+static"], ["promote"]):
            done = invoke(copy, words, monkeypatch)
            assert done.exit_code in (0, 3), done.output
    return copy


def folder(trained: Path, mode: str) -> Path:
    """Return the folder of the MLP's output."""
    return heads_folder(trained) / f"mlp2-{mode}-{INPUT}-plateau"


def test_the_registered_model_reproduces_the_test_risks(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fold's model, read back from its version, has the AUC that training recorded on its test fold."""
    for version in ("frozen", "unfrozen"):
        run = json.loads((folder(trained, version) / "result.json").read_text())["run_id"]
        numbers = [each.number for each in registry(trained).versions() if each.run_id == run]
        done = invoke(trained, ["promote", "--version", str(numbers[0]), "--dry-run", "--json"], monkeypatch)
        gates = {gate["name"]: gate for gate in json.loads(done.stdout)["gates"]}
        if gates:
            assert gates["reproduces its test AUC"]["passed"]


def registry(trained: Path) -> Registry:
    """Return the registered classifiers."""
    return Registry(trained, "imputune-mortality-synthetic")


def test_scaling_is_fitted_on_training_stays_alone(trained: Path) -> None:
    """The stored means are those of each fold's training stays: ages by value."""
    cohort = read_cohort(trained / "data/synthetic")
    digest = cohort_hash(trained / "data/synthetic")
    for fold in read_folds(trained / "artifacts/synthetic/folds.json", cohort, digest, Folds(count=FOLDS), 2012):
        scaler = RecordScaler.from_arrays(read_weights(folder(trained, "frozen"), fold.number))
        ages = cohort.static["age_years"].to_numpy()[fold.train]
        assert scaler.mean_F[0] == pytest.approx(np.nanmean(ages), rel=1e-5)
        assert scaler.mean_F[0] != pytest.approx(np.nanmean(cohort.static["age_years"]), rel=1e-5)


def test_static_facts_move_the_risk(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Age changes the risk; an unknown ICU type is told, counted, and predicted without."""
    version = next(each.number for each in registry(trained).versions() if INPUT in each.variant)
    risks = {}
    for age, icu in ((40, 3), (90, 3), (90, 9)):
        path = tmp_path / f"{age}-{icu}.csv"
        path.write_text("RecordID,Time,Parameter,Value\n" + ROWS.format(age=age, icu=icu))
        done = invoke(trained, ["predict", "--model", str(version), "--records", str(path)], monkeypatch)
        assert done.exit_code == 0, done.output
        [line] = done.stdout.splitlines()[1:]
        risks[age, icu] = float(line.split(",")[1])
        assert line.endswith(",1" if icu == 9 else ",0")
        assert ("1 row ignored: category that the model does not know" in done.stderr) == (icu == 9)
    assert len(set(risks.values())) == 3


def test_a_cohort_without_the_static_facts(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and evaluation say in one line that facts are missing; nothing is trained."""
    cohort = read_cohort(trained / "data/synthetic")
    bare = replace(cohort, static=pd.DataFrame(index=cohort.static.index), static_variables=(), dataset="bare")
    write_cohort(bare, tmp_path / "bare")
    version = next(each.number for each in registry(trained).versions() if INPUT in each.variant)
    line = refused(
        invoke(trained, ["evaluate", "--model", str(version), "--data", str(tmp_path / "bare")], monkeypatch)
    )
    assert "lacks static facts that" in line
    assert "or has them in other units or categories" in line
    assert "age_years, gender, height_cm, icu_type, weight_kg" in line


def test_facts_that_no_stay_has(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cohort whose facts are all unknown is refused for +static before anything is trained."""
    copy = copy_of(project, tmp_path, without=("artifacts",))
    cohort = read_cohort(copy / "data/synthetic")
    unknown = cohort.static * np.nan
    values = np.array(cohort.values_NTD)
    for static, line in ((unknown, "no stay of synthetic has one"), (unknown.assign(age_years=70.0), "")):
        write_cohort(replace(cohort, static=static, values_NTD=values, values_file=None), copy / "data/synthetic")
        for words in (["folds"], ["pretrain", "--imputer", "mean"]):
            assert invoke(copy, words, monkeypatch).exit_code == 0
        words = ["grid", "--imputer", "mean", "--head", "gru", "--input", "imputed+static", "--fold", "0"]
        done = invoke(copy, words, monkeypatch)
        if line:
            assert line in done.stderr, done.stderr
        else:
            assert done.exit_code == 0, done.output
            assert "no stay has gender, height_cm, icu_type, weight_kg: heads do not use them" in done.output


@pytest.mark.parametrize(
    ("head", "parts"), [("mlp2", {"value", "statistics", "static"}), ("xgboost", {"statistics", "static"})]
)
def test_explanations_show_statistics_and_static_facts(trained: Path, monkeypatch, head: str, parts: set[str]) -> None:
    """All parts add up to the risk of predict minus the baseline's; facts stand by name with their values."""
    (trained / "stay.csv").write_text("RecordID,Time,Parameter,Value\n" + ROWS.format(age=54, icu=4))
    number = next(str(each.number) for each in registry(trained).versions() if each.tag("head") == head)
    words = ["--model", number, "--records", "stay.csv"]
    done = invoke(trained, ["explain", *words, "--json", "--out", "parts.csv", "--figure", "parts.svg"], monkeypatch)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    table = pd.read_csv(trained / "parts.csv")
    assert set(table["Part"]) == parts
    assert table["Attribution"].sum() == pytest.approx(told["risk"] - told["baseline_risk"], abs=1e-3)
    assert told["completeness_gap"] < 1e-3
    facts = table[table["Part"] == "static"].set_index("Parameter")["Value"]
    assert facts[["age_years", "icu_type"]].tolist() == [54.0, 4.0]
    assert np.isnan(facts["height_cm"])
    assert [each["Value"] for each in told["others"] if each["Parameter"] == "height_cm"] == [None]
    printed = invoke(trained, ["predict", *words], monkeypatch).stdout.splitlines()[1]
    assert float(printed.split(",")[1]) == pytest.approx(told["risk"], abs=1e-6)
    shown = invoke(trained, ["explain", *words], monkeypatch)
    assert ("of the average training stay" in shown.stdout) == (head == "xgboost")
    assert "statistic" in shown.stdout
