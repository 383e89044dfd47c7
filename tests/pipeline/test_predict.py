import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import Result

from imputune.artifacts.stage_files import weights_file
from imputune.cli.evaluation import score_lines
from imputune.data.cohort import read_cohort, write_cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.errors import UserError
from imputune.evaluation.challenge2012 import event_1, event_2
from imputune.evaluation.decision_curve import decision_curve
from imputune.evaluation.metrics import reliability, risk_scores
from imputune.pipeline.evaluate import Evaluation
from imputune.protocol.published import CHALLENGE_2012
from imputune.registry.bundle_file import read_bundle
from imputune.registry.versions import Registry
from projects import STAYS, client_of, heads_folder, invoke, refused, store_text

NAME = "imputune-mortality-synthetic"


def predict(models: Path, monkeypatch, *words: object) -> Result:
    """Run `imputune predict`."""
    return invoke(models, ["predict", "--model", "1", *map(str, words)], monkeypatch)


def test_predict_gives_what_training_gave(models, records, monkeypatch):
    """The mean of what the five models said of a stay that all of them were validated or tested on, or trained on."""
    done = predict(models, monkeypatch, "--records", records, "--out", "risks.csv")
    assert done.exit_code == 0, done.stderr
    risks = pd.read_csv(models / "risks.csv").set_index("RecordID")
    assert len(risks) == STAYS
    registry = Registry(models, NAME)
    version = registry.find("1")
    bundle = registry.load(version)
    values_NTD = np.load(models / "data/synthetic/values.npy")
    told = pd.read_csv(heads_folder(models) / version.variant / "predictions.csv")
    test = told[told["split"] == "test"]
    stays = pd.read_csv(models / "data/synthetic/stays.csv")["stay_id"]
    for fold, part in test.groupby("fold"):
        at = np.flatnonzero(stays.isin(part["stay_id"]))
        expected = part.set_index("stay_id")["risk"].loc[stays[at]]
        np.testing.assert_allclose(bundle.risk_of(fold, values_NTD[at]), expected, atol=1e-6)
    np.testing.assert_allclose(risks["risk"], bundle.risk_by_fold(values_NTD).mean(axis=0), atol=1e-6)
    assert ((risks["risk"] >= bundle.about.threshold) == risks["high_risk"]).all()


def test_predict_unpickles_nothing(models, records, monkeypatch):
    """From the registry to the risks, no unpickling function is called."""

    def trapped(*arguments, **options):
        raise AssertionError("loading a bundle must unpickle nothing")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, trapped)
    done = predict(models, monkeypatch, "--records", records)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == STAYS + 1


def test_predict_does_not_depend_on_the_batch(models, records, monkeypatch):
    """One record alone gets the risk it has among all, to 1e-6."""
    every = predict(models, monkeypatch, "--records", records).stdout.splitlines()
    [alone] = predict(models, monkeypatch, "--records", records / "900007.txt").stdout.splitlines()[1:]
    [among] = [line for line in every if line.startswith("900007,")]
    assert float(alone.split(",")[1]) == pytest.approx(float(among.split(",")[1]), abs=1e-6)


def test_predict_writes_the_series_with_observed_cells_marked(models, records, monkeypatch):
    """Every hour of every variable, observed ones as the cohort has them."""
    done = predict(models, monkeypatch, "--records", records, "--out", "r.parquet", "--series", "s.parquet")
    assert done.exit_code == 0, done.stderr
    assert len(pd.read_parquet(models / "r.parquet")) == STAYS
    series = pd.read_parquet(models / "s.parquet")
    values_NTD = np.load(models / "data/synthetic/values.npy")
    assert len(series) == values_NTD.size
    observed = series["Observed"].to_numpy()
    np.testing.assert_array_equal(observed, ~np.isnan(values_NTD.reshape(-1)))
    np.testing.assert_array_equal(series["Value"][observed], values_NTD.reshape(-1)[observed])
    assert series["Value"].notna().all()


def test_predict_says_what_is_missing(models, tmp_path, monkeypatch):
    """Variables nobody has, a stay without a measurement and rows that do not count are told; the risk is given."""
    table = (
        "RecordID,Time,Parameter,Value,Ward,age\n"
        "1,00:10,HR,80,B,7\n1,60:00,HR,81,B,7\n1,01:00,Temp,-5,B,7\n2,50:00,HR,80,B,7\n"
    )
    (tmp_path / "table.csv").write_text(table)
    done = predict(models, monkeypatch, "--records", tmp_path / "table.csv")
    assert done.exit_code == 0, done.stderr
    assert "predictions use only HR: no stay has a value of the other 34 variables" in done.stderr
    assert "1 of 2 stays without a measurement" in done.stderr
    assert "2 rows ignored: after hour 48" in done.stderr
    assert "1 row ignored: negative value" in done.stderr
    assert "note: columns not read: Ward, age\n" in done.stderr
    assert [line.split(",")[4] for line in done.stdout.splitlines()[1:]] == ["1", "0"]


def test_predict_tells_of_values_beyond_the_training(models, tmp_path, monkeypatch):
    """An absurd value is clipped to the range of training, as in training, and told."""
    (tmp_path / "table.csv").write_text("RecordID,Time,Parameter,Value\n1,00:10,HR,1e30\n1,01:10,HR,80\n")
    done = predict(models, monkeypatch, "--records", tmp_path / "table.csv")
    assert "1 hourly value lies beyond the range of training and was clipped to it (HR 1)" in done.stderr


def test_predict_refuses_and_writes_nothing(models, records, tmp_path, monkeypatch):
    """Unknown models, endings and records are one line each, and no file appears."""
    out = models / "risks.csv"
    words = ["predict", "--records", str(records), "--out", str(out)]
    line = refused(invoke(models, [*words, "--model", "champion"], monkeypatch))
    assert line.startswith(f"{NAME} has no version or alias 'champion': it has no alias, and versions 1, 2")
    assert line.endswith("`imputune promote` sets champion")
    assert f"{NAME} has no version or alias '99'" in refused(invoke(models, [*words, "--model", "99"], monkeypatch))
    same = predict(models, monkeypatch, "--records", records, "--out", "a.csv", "--series", "./a.csv")
    assert "a.csv is the records' file, or named twice" in refused(same)
    assert "must end in .csv or .parquet" in refused(
        predict(models, monkeypatch, "--records", records, "--out", "r.txt")
    )
    (tmp_path / "empty.csv").write_text("")
    bad = predict(models, monkeypatch, "--records", tmp_path / "empty.csv", "--out", out)
    assert "the file is empty" in refused(bad)
    assert not out.exists()


def test_altered_weights_are_found(models, records, monkeypatch):
    """One changed byte of a registered version's weights is an error that names the fold's file."""
    registry = Registry(models, NAME)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", tracking_uri=registry.uri))
    assert models in folder.parents
    path = weights_file(folder / "artifacts/bundle", 2)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    line = refused(predict(models, monkeypatch, "--records", records))
    assert line.startswith(f"{NAME} version 1: the weights of fold 2 have changed since they were registered")
    path.unlink()
    assert "the bundle cannot be read" in refused(predict(models, monkeypatch, "--records", records))


def test_an_altered_description_is_found(models, records, monkeypatch):
    """Another threshold in bundle.json is an error; so is a file without checksums, or no JSON, though nobody knew."""
    registry = Registry(models, NAME)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", tracking_uri=registry.uri))
    path = folder / "artifacts/bundle/bundle.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"about": told["about"] | {"threshold": 0.99}}))
    line = refused(predict(models, monkeypatch, "--records", records))
    assert line == f"{NAME} version 1: {path} has changed since it was registered: restore it, or fine-tune again"
    for broken in ({**told, "sha256": {}}, {**told, "more": 1}, {**told, "about": []}, [], "{"):
        path.write_text(json.dumps(broken) if broken != "{" else broken)
        with pytest.raises(UserError, match="the bundle cannot be read"):
            read_bundle(path.parent)
    path.write_text(json.dumps(told | {"format": 1}))
    with pytest.raises(UserError, match="is of another version of imputune"):
        read_bundle(path.parent)


def test_an_unreachable_registry_is_named(models, records, monkeypatch):
    """A tracking server that does not answer is one line, within seconds."""
    environment = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = invoke(models, ["predict", "--records", str(records)], monkeypatch, environment)
    assert "the tracking store http://127.0.0.1:9 failed" in refused(done)


def test_explain_gives_a_table_and_a_picture(models, records, monkeypatch):
    """Attributions of the observed cells sum to the difference of the two risks; a stay is chosen by its id."""
    words = ["explain", "--model", "1", "--records", str(records)]
    assert f"the records hold {STAYS} stays: name one with --stay" in refused(invoke(models, words, monkeypatch))
    assert "the records hold no stay 5" in refused(invoke(models, [*words, "--stay", "5"], monkeypatch))
    (models / "mine.csv").write_text("RecordID,Time,Parameter,Value\n1,00:10,HR,80\n")
    over = invoke(models, ["explain", "--model", "1", "--records", "mine.csv", "--out", "./mine.csv"], monkeypatch)
    assert "mine.csv is the records' file, or named twice: name another file to write" in refused(over)
    assert "1,00:10,HR,80" in (models / "mine.csv").read_text()
    assert "--stay takes a whole number" in refused(invoke(models, [*words, "--stay", "x"], monkeypatch))
    outputs = ["--out", "cells.csv", "--figure", "cells.png"]
    done = invoke(models, [*words, "--stay", "900004", *outputs, "--json"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    cells = pd.read_csv(models / "cells.csv")
    values_TD = np.load(models / "data/synthetic/values.npy")[3]
    assert len(cells) == (~np.isnan(values_TD)).sum()
    assert cells["Attribution"].sum() == pytest.approx(told["risk"] - told["baseline_risk"], abs=1e-4)
    assert sum(each["Attribution"] for each in told["by_variable"]) == pytest.approx(cells["Attribution"].sum())
    assert (models / "cells.png").read_bytes().startswith(b"\x89PNG")
    every = predict(models, monkeypatch, "--records", records).stdout.splitlines()
    [line] = [line for line in every if line.startswith("900004,")]
    assert float(line.split(",")[1]) == pytest.approx(told["risk"], abs=1e-6)


def test_evaluate_measures_on_another_cohort(models, monkeypatch):
    """It writes external-<cohort>.json with every stay counted, and refuses the cohort of the training."""
    extract = ["extract", "synthetic", "--stays", "90", "--seed", "5", "--out", "other"]
    assert invoke(models, extract, monkeypatch).exit_code == 0
    words = ["evaluate", "--model", "1", "--data"]
    done = invoke(models, [*words, "other", "--json"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    kept = json.loads((models / "results/synthetic/external-set-s.json").read_text())
    assert kept | {"groups": told["groups"]} == told
    assert [group for group in told["groups"] if group in kept["groups"]] == kept["groups"]
    assert kept["groups"][0]["stays"] == 90
    for group in kept["groups"]:
        assert min(group["events"], group["stays"] - group["events"]) >= 5
    assert min(group["events"] for group in told["groups"]) < 5  # shown to the user, and kept in no file
    client = client_of(models)
    [experiment] = [each for each in client.search_experiments() if each.name == "imputune"]
    [run] = client.search_runs([experiment.experiment_id], "tags.`imputune.command` = 'evaluate'")
    logged = Path(run.info.artifact_uri.removeprefix("file://")) / "evaluation.json"
    assert json.loads(logged.read_text()) == kept
    extract[4:] = ["--seed", "6", "--out", "third"]
    assert invoke(models, [*extract[:2], "--stays", "80", *extract[4:]], monkeypatch).exit_code == 0
    third = json.loads(invoke(models, [*words, "third", "--json"], monkeypatch).stdout)
    assert json.loads((models / "results/synthetic/external-set-s.json").read_text()) == kept
    path = models / f"results/synthetic/external-set-s-{third['cohort_hash'][:8]}.json"  # both are named set-s
    assert json.loads(path.read_text()) | {"groups": third["groups"]} == third
    picture = models / "results/synthetic/external-set-s.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".png").read_bytes() != picture.read_bytes()
    bundle = Registry(models, NAME).load(Registry(models, NAME).find("1"))
    other = read_cohort(models / "other")
    risk_N = bundle.risk(np.asarray(other.values_NTD))
    curve = [point.model_dump() for point in decision_curve(other.outcome_N, risk_N)]
    assert (told["decision_curve"], told["threshold_rule"], told["landmarks"]) == (curve, "youden", {})
    later = ("decision_curve", "threshold_rule", "landmarks", "recalibrated_on")
    earlier = Evaluation(**{name: each for name, each in told.items() if name not in later})
    assert (earlier.decision_curve, earlier.threshold_rule, earlier.recalibrated_on) == ((), "youden", "")
    every = told["groups"][0]
    assert every["stays"] == 90
    expected = risk_scores(other.outcome_N, risk_N) | {
        "challenge_event_1": event_1(other.outcome_N, risk_N, told["threshold"]),
        "challenge_event_2": event_2(reliability(other.outcome_N, risk_N)),
    }
    del expected["log_loss"]
    assert {name: score["value"] for name, score in every["scores"].items()} == pytest.approx(expected)
    assert every["scores"]["auc"]["low"] <= every["scores"]["auc"]["value"] <= every["scores"]["auc"]["high"]
    assert sum(group["stays"] for group in told["groups"] if group["group"] == "sex") == 90
    assert "is the cohort that" in refused(invoke(models, [*words, "data/synthetic"], monkeypatch))
    assert "is no cohort" in refused(invoke(models, [*words, "nowhere"], monkeypatch))
    variables = models / "other/variables.csv"
    variables.write_text(variables.read_text().replace("HR,", "Pulse,"))
    line = refused(invoke(models, [*words, "other"], monkeypatch))
    assert "has other variables or units than" in line
    assert "(HR, Pulse)" in line


def test_evaluate_shows_every_score_of_all_stays(models, monkeypatch):
    """The challenge's winners stand beside its two scores where the dataset is the challenge's; the rule is named."""
    extract = ["extract", "synthetic", "--stays", "90", "--seed", "5", "--out", "other"]
    assert invoke(models, extract, monkeypatch).exit_code == 0
    done = invoke(models, ["evaluate", "--model", "1", "--data", "other"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    for words in ("AUPRC", "calibration slope", "calibration intercept", "min(sensitivity, PPV)", "H, challenge 2012"):
        assert words in done.stdout
    assert "winner" not in done.stdout
    assert "(rule: youden); results are in " in done.stderr
    assert "the decision curve is in external-set-s.png" in done.stderr
    told = json.loads((models / "results/synthetic/external-set-s.json").read_text())
    shown = score_lines(Evaluation(**told | {"landmarks": CHALLENGE_2012}))
    assert shown[-2][2] == "1 is best; challenge 2012's winner on set-c: 0.5353"
    assert shown[-1][2].endswith("; challenge 2012's winner on set-c: 17.88")
    score = told["groups"][0]["scores"]["auc"]
    assert shown[0][:2] == ("AUC", f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})")


def test_evaluate_keeps_the_scores_of_each_version(models, monkeypatch):
    """A second version on the same cohort gets a file of its own; the same version replaces its own file."""
    extract = ["extract", "synthetic", "--stays", "90", "--seed", "5", "--out", "other"]
    assert invoke(models, extract, monkeypatch).exit_code == 0
    folder = models / "results/synthetic"
    for model in ("2", "1", "2", "1"):
        assert invoke(models, ["evaluate", "--model", model, "--data", "other"], monkeypatch).exit_code == 0
        assert json.loads((folder / "external-set-s.json").read_text())["version"] == 2
    assert sorted(path.name for path in folder.glob("external-*")) == [
        "external-set-s-version-1.json",
        "external-set-s-version-1.png",
        "external-set-s.json",
        "external-set-s.png",
    ]
    assert json.loads((folder / "external-set-s-version-1.json").read_text())["version"] == 1
    (folder / "external-set-s.json").unlink()
    assert invoke(models, ["evaluate", "--model", "1", "--data", "other"], monkeypatch).exit_code == 0
    assert not (folder / "external-set-s.json").exists()


def test_evaluate_of_too_few_deaths_says_the_rule(models, monkeypatch):
    """Nothing is drawn or listed that needs more deaths; the line says how many there are."""
    cohort = extract_synthetic(90, 5)
    outcome_N = np.zeros_like(cohort.outcome_N)
    outcome_N[:4] = 1
    write_cohort(replace(cohort, outcome_N=outcome_N), models / "other")
    done = invoke(models, ["evaluate", "--model", "1", "--data", "other"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    assert (
        "note: no scores, calibration or decision curve: they need at least 10 deaths and 10 survivors, and these "
        "stays have 4 deaths and 86 survivors\n" in done.stderr
    )
    assert "Calibration" not in done.stdout
    assert "at the model's threshold" not in done.stderr
    path = models / "results/synthetic/external-set-s.json"
    assert done.stderr.endswith(f"results are in {path}\n")
    assert json.loads(path.read_text())["decision_curve"] == []
    assert not path.with_suffix(".png").exists()


def test_evaluate_refuses_stays_the_model_was_trained_on(models, monkeypatch):
    """A cohort that holds some of the training's stays, whatever its hash, would flatter the model."""
    shutil.copytree(models / "data/synthetic", models / "other")
    (models / "other/source.json").write_text((models / "other/source.json").read_text() + "\n")
    line = refused(invoke(models, ["evaluate", "--model", "1", "--data", "other"], monkeypatch))
    assert line.startswith(f"{STAYS} of the {STAYS} stays of other are in ")
    shutil.rmtree(models / "data/synthetic")
    done = invoke(models, ["evaluate", "--model", "1", "--data", "other"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    assert "whether it shares stays with this one was not checked" in done.stderr


def test_no_record_enters_the_store(models, records, monkeypatch):
    """After promoting, explaining and evaluating, no run or model holds a stay's id or an hour's values."""
    extract = ["extract", "synthetic", "--stays", "90", "--seed", "5", "--out", "other"]
    explain = ["explain", "--records", str(records), "--stay", "900001", "--figure", "why.svg"]
    for words in (extract, ["promote"], explain, ["evaluate", "--data", "other"]):
        assert invoke(models, words, monkeypatch).exit_code == 0
    assert (models / "why.svg").read_text().startswith("<?xml")
    values = np.concatenate([np.load(models / f"{name}/values.npy") for name in ("data/synthetic", "other")])
    values_RD = values.reshape(-1, values.shape[-1])
    series = [row[~np.isnan(row)].tobytes() for row in values_RD if (~np.isnan(row)).sum() >= 6]
    ids = re.compile(rb"(?<![\d.])9000\d\d(?!\d)")
    assert not ids.search(store_text(models).encode())
    files = [path for path in (models / "mlruns").rglob("*") if path.is_file() and path.suffix != ".py"]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert not ids.search(content), path
        if path.suffix not in {".png", ".svg"}:
            assert not any(row in content for row in series), path
