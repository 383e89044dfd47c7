import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import Result

from imputune.data.cohort import read_cohort
from imputune.evaluation.calibration import CalibrationLine
from imputune.evaluation.metrics import risk_scores
from imputune.registry.version import UNCHANGED_SCORES
from imputune.registry.versions import Registry
from projects import client_of, invoke, refused, set_params

NAME = "imputune-mortality-synthetic"


@pytest.fixture
def site(models: Path, monkeypatch) -> Path:
    """A project with models, and in other/ the 300 stays of another site, in third/ those of one more."""
    for name, seed in (("other", "5"), ("third", "6")):
        words = ["extract", "synthetic", "--stays", "300", "--seed", seed, "--out", name]
        assert invoke(models, words, monkeypatch).exit_code == 0
    return models


def recalibrate(site: Path, monkeypatch, *words: str, model: str = "1", data: str = "other") -> Result:
    """Run `imputune recalibrate`."""
    return invoke(site, ["recalibrate", "--model", model, "--data", data, *words], monkeypatch)


def with_outcomes(folder: Path, outcome_N: np.ndarray) -> None:
    """Give the stays of a cohort other outcomes."""
    table = pd.read_csv(folder / "stays.csv")
    assert "died" in table
    table["died"] = outcome_N
    table.to_csv(folder / "stays.csv", index=False)


def test_a_recalibrated_version_is_calibrated_on_the_cohort_and_says_where_it_comes_from(site, monkeypatch):
    """Slope 1 and intercept 0 after it, the same order, weights and lineage; tags name source, cohort and scores."""
    done = recalibrate(site, monkeypatch, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    registry = Registry(site, NAME)
    source, version = registry.find("1"), registry.find(str(told["version"]))
    old, new = registry.load(source), registry.load(version)
    cohort = read_cohort(site / "other")
    line = CalibrationLine(**told["line"])
    risk_N, corrected_N = (bundle.risk(np.asarray(cohort.values_NTD)) for bundle in (old, new))
    np.testing.assert_array_equal(corrected_N, line.apply(risk_N))
    assert ((corrected_N >= new.threshold) == (risk_N >= old.threshold)).all()
    before, after = risk_scores(cohort.outcome_N, risk_N), risk_scores(cohort.outcome_N, corrected_N)
    assert (told["before"], told["after"]) == (pytest.approx(before), pytest.approx(after))
    assert (after["calibration_slope"], after["auc"]) == (pytest.approx(1), pytest.approx(before["auc"]))
    assert after["calibration_intercept"] == pytest.approx(0, abs=1e-6)
    assert after["log_loss"] < before["log_loss"]
    weights = [sorted(registry.folder_of(each).glob("*.safetensors")) for each in (source, version)]
    assert [path.read_bytes() for path in weights[0]] == [path.read_bytes() for path in weights[1]]
    tags = {name: version.tag(name) for name in ("recalibrated_from", "recalibrated_on", "recalibrated_stays")}
    assert tags == {"recalibrated_from": "1", "recalibrated_on": "set-s", "recalibrated_stays": "300"}
    assert version.recalibrated_cohorts == [told["cohort_hash"]]
    assert version.tag("recalibrated_events") == str(cohort.outcome_N.sum())
    slopes = [json.loads(version.tag(f"calibration_{when}"))["calibration_slope"] for when in ("before", "after")]
    assert slopes == pytest.approx([before["calibration_slope"], 1], abs=1e-5)
    for name in ("cohort_hash", "folds_hash", "imputer_run", "imputer_version", "head", "threshold_rule"):
        assert version.tag(name) == source.tag(name) != ""
    assert (version.variant, version.run_id) == (source.variant, version.tag("run_id"))
    assert version.run_id != source.run_id
    expected = {fold: {name: of[name] for name in UNCHANGED_SCORES} for fold, of in source.fold_scores.items()}
    assert version.fold_scores == expected
    run = client_of(site).get_run(version.run_id)
    assert run.data.tags["imputune.command"] == "recalibrate"
    assert run.data.metrics["external/after_calibration_slope"] == pytest.approx(1)


def test_the_result_is_shown_and_predicts(site, records, monkeypatch):
    """The table has the scores before and after; predict's risks are the corrected ones, the same stays are high."""
    done = recalibrate(site, monkeypatch)
    assert done.exit_code == 0, done.output
    assert "calibration slope" in done.stdout
    assert (
        f"version 7 of {NAME} is version 1 recalibrated on set-s (300 stays, 54 deaths): logit(risk) = " in done.stdout
    )
    assert "measure the new version on other stays (`imputune evaluate --model 7`)" in done.stderr
    answers = []
    for model in ("1", "7"):
        words = ["predict", "--model", model, "--records", str(records), "--out", f"{model}.csv"]
        assert invoke(site, words, monkeypatch).exit_code == 0
        answers.append(pd.read_csv(site / f"{model}.csv"))
    plain, corrected = answers
    assert plain["high_risk"].tolist() == corrected["high_risk"].tolist()
    line = Registry(site, NAME).load(Registry(site, NAME).find("7")).about.recalibration
    np.testing.assert_allclose(corrected["risk"], line.apply(plain["risk"].to_numpy()), rtol=1e-9)


def test_a_second_recalibration_is_of_the_first(site, monkeypatch):
    """Both cohorts stay in the lineage, and the lines follow each other."""
    first = json.loads(recalibrate(site, monkeypatch, "--json").stdout)
    second = json.loads(recalibrate(site, monkeypatch, "--json", model="7", data="third").stdout)
    registry = Registry(site, NAME)
    version = registry.find("8")
    assert version.recalibrated_cohorts == [first["cohort_hash"], second["cohort_hash"]]
    assert version.tag("recalibrated_from") == "7"
    assert second["after"]["calibration_slope"] == pytest.approx(1)
    cohort = read_cohort(site / "third")
    risks = {number: registry.load(registry.find(number)).risk(np.asarray(cohort.values_NTD)) for number in "178"}
    np.testing.assert_allclose(risks["8"], CalibrationLine(**second["line"]).apply(risks["1"]))
    np.testing.assert_allclose(risks["7"], CalibrationLine(**first["line"]).apply(risks["1"]))
    for data in ("other", "third"):
        for command in ("evaluate", "recalibrate"):
            line = refused(invoke(site, [command, "--model", "8", "--data", data], monkeypatch))
            assert "was recalibrated on, and would flatter it" in line


def test_a_recalibrated_version_is_evaluated_elsewhere(site, monkeypatch):
    """It says what it was recalibrated on; the same stays have the same order."""
    recalibrate(site, monkeypatch)
    plain = json.loads(invoke(site, ["evaluate", "--model", "1", "--data", "third", "--json"], monkeypatch).stdout)
    done = invoke(site, ["evaluate", "--model", "7", "--data", "third"], monkeypatch)
    assert done.exit_code == 0, done.output
    assert "was recalibrated on set-s; whether that cohort shares stays with this one was not checked" in done.stderr
    told = json.loads((site / "results/synthetic/external-set-s-version-7.json").read_text())
    assert (plain["recalibrated_on"], told["recalibrated_on"]) == ("", "set-s")
    ours, theirs = told["groups"][0], plain["groups"][0]
    assert ours["scores"]["auc"] == pytest.approx(theirs["scores"]["auc"])
    assert ours["scores"]["challenge_event_1"] == pytest.approx(theirs["scores"]["challenge_event_1"])
    assert (ours["sensitivity"], ours["specificity"]) == (theirs["sensitivity"], theirs["specificity"])
    assert ours["scores"]["brier"]["value"] != pytest.approx(theirs["scores"]["brier"]["value"])


def test_promote_chooses_no_recalibrated_version_and_judges_one_that_is_named(site, monkeypatch):
    """Its validation AUC is its source's, so that it would tie; named, it passes the gate of its recorded test AUC."""
    assert recalibrate(site, monkeypatch).exit_code == 0
    decision = json.loads(invoke(site, ["promote", "--json"], monkeypatch).stdout)
    assert decision["candidate"] != 4
    assert decision["left_out"] == {"recalibrated for another site": 1}
    done = invoke(site, ["promote", "--version", "7", "--json"], monkeypatch)
    assert done.exit_code == 0, done.output
    decision = json.loads(done.stdout)
    [reproduced] = [gate for gate in decision["gates"] if gate["name"] == "reproduces its test AUC"]
    assert reproduced["passed"]
    assert Registry(site, NAME).find("champion").number == 7
    again = invoke(site, ["recalibrate", "--data", "third", "--json"], monkeypatch)  # of the champion
    assert json.loads(again.stdout)["source"] == 7
    assert Registry(site, NAME).find("8").tag("decision") == ""


def test_the_calibration_gate_counts_recalibrated_risks(site, monkeypatch):
    """Beside a recalibrated champion, whose risks are near the rate of deaths, the version it came from is refused."""
    assert recalibrate(site, monkeypatch).exit_code == 0
    assert invoke(site, ["promote", "--version", "7"], monkeypatch).exit_code == 0
    set_params(site, {"promote.calibration_margin": 0.01})
    done = invoke(site, ["promote", "--version", "1", "--json"], monkeypatch)
    assert done.exit_code == 3, done.output
    decision = json.loads(done.stdout)
    assert [gate["name"] for gate in decision["gates"] if not gate["passed"]] == [
        "calibration error near the champion's"
    ]
    assert decision["difference"]["mean"] == pytest.approx(0, abs=1e-9)  # the order of the stays is the same


def test_promote_judges_a_recalibrated_version_only_where_its_training_data_is(site, monkeypatch):
    """Its calibration on that data is not recorded."""
    assert recalibrate(site, monkeypatch).exit_code == 0
    folds = site / "artifacts/synthetic/folds.json"
    folds.write_text(folds.read_text() + "\n")
    for words in (["--version", "7"], ["--version", "7", "--other-data"]):
        line = refused(invoke(site, ["promote", *words], monkeypatch))
        assert line.startswith("version 7 was recalibrated, and its calibration on the data it was trained on is not")


def test_cohorts_that_cannot_recalibrate_are_one_line(site, monkeypatch):
    """The training cohort, its stays, other variables, too few deaths or survivors, a slope of 0 or below."""
    assert "is the cohort that" in refused(recalibrate(site, monkeypatch, data="data/synthetic"))
    shutil.copytree(site / "data/synthetic", site / "copy")
    (site / "copy/source.json").write_text((site / "copy/source.json").read_text() + "\n")
    line = refused(recalibrate(site, monkeypatch, data="copy"))
    assert line.startswith("60 of the 60 stays of copy are in ")
    assert line.endswith(": recalibrate on other stays")
    assert "is no cohort" in refused(recalibrate(site, monkeypatch, data="nowhere"))
    risk_N = (
        Registry(site, NAME)
        .load(Registry(site, NAME).find("1"))
        .risk(np.asarray(read_cohort(site / "other").values_NTD))
    )
    order_N = np.argsort(risk_N)
    for count, words in ((9, "9 deaths among 300 stays"), (291, "291 deaths among 300 stays")):
        with_outcomes(site / "other", (np.arange(300) < count).astype(int))
        line = refused(recalibrate(site, monkeypatch))
        assert line == f"other has {words}: recalibrate on a cohort with at least 10 deaths and 10 survivors"
    outcome_N = np.zeros(300, dtype=int)
    outcome_N[order_N[:100]] = 1  # the stays of lowest risk died, but one
    outcome_N[order_N[[0, -1]]] = 0, 1
    with_outcomes(site / "other", outcome_N)
    line = refused(recalibrate(site, monkeypatch))
    assert line.startswith("the slope on other is -")
    assert "no recalibration can mend this" in line
    with_outcomes(site / "other", np.isin(np.arange(300), order_N[-100:]).astype(int))
    assert "separate all deaths from all survivors of other" in refused(recalibrate(site, monkeypatch))
    variables = site / "other/variables.csv"
    variables.write_text(variables.read_text().replace("HR,", "Pulse,"))
    line = refused(recalibrate(site, monkeypatch))
    assert "has other variables or units than" in line
    assert line.endswith("(HR, Pulse): recalibrate on a cohort with the model's variables")
    assert len(Registry(site, NAME).versions()) == 6


def test_a_new_threshold_rule_registers_trained_models_again(site, monkeypatch):
    """The weights stay; the new version reaches the sensitivity on validation stays, and its tag has the rule."""
    set_params(site, {"threshold.rule": "sensitivity", "threshold.sensitivity": 0.95})
    done = invoke(site, ["register"], monkeypatch)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "registered 6 models of synthetic"
    assert "with another threshold rule (youden): registered again with sensitivity 0.95" in done.stdout
    registry = Registry(site, NAME)
    old, new = registry.find("1"), registry.find("7")
    by_variant = {version.variant: version for version in registry.versions() if version.number > 6}
    new = by_variant[old.variant]
    assert (old.tag("threshold_rule"), new.tag("threshold_rule")) == ("youden", "sensitivity 0.95")
    bundles = [registry.load(version) for version in (old, new)]
    assert [bundle.about.threshold_rule for bundle in bundles] == ["youden", "sensitivity 0.95"]
    told = pd.read_csv(site / f"artifacts/synthetic/heads/in_hospital_death/csai/{old.variant}/predictions.csv")
    validation = told[told["split"] == "validation"]
    outcome_N = read_cohort(site / "data/synthetic").outcome_of(validation["stay_id"].to_numpy())
    high_N = validation["risk"].to_numpy() >= bundles[1].threshold - 1e-9
    assert high_N[outcome_N == 1].mean() >= 0.95
    assert invoke(site, ["register"], monkeypatch).stdout.splitlines()[-1] == "registered no model of synthetic"
