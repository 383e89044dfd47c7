import http.client
import json
import multiprocessing
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from mlflow import MlflowClient
from typer.testing import Result

from benchmarks.serving_load import served
from imputune.data.cohort import read_cohort
from imputune.data.scaling import Scaler
from imputune.data.synthetic import write_synthetic_records
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import Mlp
from imputune.tracking.bundle import BundleAbout
from imputune.tracking.registry import register_bundle
from imputune.tracking.runs import tracked_run
from imputune.tracking.versions import Registry
from imputune.training.outputs import TrainedFold, module_weights, scaler_weights, weights_file
from projects import ROOT, STAYS, copy_of, invoke, run

NAME = "imputune-mortality-synthetic"


@pytest.fixture
def copy(project, tmp_path, monkeypatch) -> Path:
    """A copy of the project, with a store and a registry of its own, whose gates let anything pass."""
    copy = copy_of(project, tmp_path)
    shutil.copytree(project / "mlruns", copy / "mlruns")
    with closing(sqlite3.connect(copy / "mlflow.db")) as store, store:
        for table, column in (("logged_models", "artifact_location"), ("model_versions", "storage_location")):
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(project), str(copy)))
    edit(copy, r"minimum_auc: [\d.]+", "minimum_auc: 0.001")
    edit(copy, r"_margin: [\d.]+", "_margin: 9.0")
    edit(copy, r"resamples: \d+", "resamples: 30")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """The raw records from which the project's cohort was extracted."""
    folder = tmp_path_factory.mktemp("raw")
    write_synthetic_records(folder, STAYS, 2012)
    return folder / "set-s"


def edit(copy: Path, pattern: str, text: str) -> None:
    """Change params.yaml."""
    before = (copy / "params.yaml").read_text()
    after = re.sub(pattern, text, before)
    assert after != before
    (copy / "params.yaml").write_text(after)


def aliases(copy: Path) -> dict[str, int]:
    """Return what the copy's aliases stand for."""
    return Registry(copy, NAME).aliases()


def best(copy: Path, score: str = "validation_auc") -> int:
    """Return the version with the best mean of a score."""
    return max(Registry(copy, NAME).versions(), key=lambda version: version.mean(score)).number


def refused(result: Result) -> str:
    """Return the one line of a command that was refused."""
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def promote(copy: Path, monkeypatch, *words: str) -> Result:
    """Run `imputune promote`."""
    return invoke(copy, ["promote", *words], monkeypatch)


def test_a_version_says_where_it_comes_from(copy):
    """Every version names its run, imputer version, data, folds and cell, and has each fold's scores."""
    for version in Registry(copy, NAME).versions():
        result = json.loads((copy / "artifacts/synthetic/finetune" / version.cell / "result.json").read_text())
        assert version.tag("run_id") == version.run_id == result["run_id"]
        assert version.tag("imputer_run") == result["imputer_run_id"]
        assert version.tag("imputer_version") == "1"
        assert version.tag("cohort_hash") == result["cohort_hash"]
        assert version.tag("folds_hash") == result["folds_hash"]
        for fold in result["folds"]:
            assert version.fold_scores[fold["fold"]]["test_auc"] == pytest.approx(fold["scores"]["test_auc"], abs=1e-6)


def test_the_best_by_validation_becomes_champion(copy, monkeypatch):
    """Validation AUC alone chooses; the decision stands on the version; a second promotion changes nothing."""
    done = promote(copy, monkeypatch, "--json")
    assert done.exit_code == 0, done.stderr
    decision = json.loads(done.stdout)
    assert (decision["outcome"], decision["candidate"], decision["champion"]) == ("promoted", best(copy), None)
    assert aliases(copy) == {"champion": best(copy)}
    version = Registry(copy, NAME).find("champion")
    assert json.loads(version.tag("decision")) == decision
    again = promote(copy, monkeypatch)
    assert again.exit_code == 0
    assert "is the champion already" in again.stdout
    assert aliases(copy) == {"champion": best(copy)}


def test_test_scores_do_not_choose(copy, monkeypatch):
    """A version whose recorded test AUC is perfect, and validation AUC the worst, is not the candidate."""
    registry = Registry(copy, NAME)
    worst = min(registry.versions(), key=lambda version: version.mean("validation_auc"))
    scores = {fold: {**each, "test_auc": 1.0} for fold, each in worst.fold_scores.items()}
    registry.set_tags(worst, {"fold_scores": json.dumps(scores)})
    decision = json.loads(promote(copy, monkeypatch, "--dry-run", "--json").stdout)
    assert decision["candidate"] == best(copy) != worst.number


def test_champion_and_previous_move_and_roll_back(copy, monkeypatch):
    """A better candidate takes over, with its difference on the same test stays; --rollback exchanges the two."""
    other = next(version.number for version in Registry(copy, NAME).versions() if version.number != best(copy))
    assert promote(copy, monkeypatch, "--version", str(other)).exit_code == 0
    done = promote(copy, monkeypatch)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"test AUC minus the champion's, paired: [+-]0\.\d{4} \(95 %", done.stdout)
    assert aliases(copy) == {"champion": best(copy), "previous": other}
    back = promote(copy, monkeypatch, "--rollback")
    assert back.stdout == f"champion is version {other} again; previous is version {best(copy)}\n"
    assert aliases(copy) == {"champion": other, "previous": best(copy)}


def test_a_dry_run_writes_nothing(copy, monkeypatch):
    """It shows the decision; no alias, tag or run is made."""
    before = [version.tags for version in Registry(copy, NAME).versions()]
    runs = len(MlflowClient(f"sqlite:///{copy}/mlflow.db").search_runs(["1"]))
    done = promote(copy, monkeypatch, "--dry-run")
    assert done.exit_code == 0
    assert "dry run, nothing written: promoted" in done.stdout
    assert aliases(copy) == {}
    assert [version.tags for version in Registry(copy, NAME).versions()] == before
    assert len(MlflowClient(f"sqlite:///{copy}/mlflow.db").search_runs(["1"])) == runs


def test_a_candidate_that_fails_a_gate_is_refused(copy, monkeypatch):
    """Exit code 3, the table of gates, no alias moved, and the decision kept on the version."""
    assert promote(copy, monkeypatch, "--version", str(best(copy))).exit_code == 0
    other = next(version.number for version in Registry(copy, NAME).versions() if version.number != best(copy))
    edit(copy, r"minimum_auc: 0.001", "minimum_auc: 0.999")
    done = promote(copy, monkeypatch, "--version", str(other))
    assert done.exit_code == 3
    assert re.search(r"minimum AUC\s+≥ 0\.999\s+0\.\d{4}\s+FAILED", done.stdout)
    assert aliases(copy) == {"champion": best(copy)}
    assert json.loads(Registry(copy, NAME).find(str(other)).tag("decision"))["outcome"] == "refused"


def test_other_data_needs_the_override(copy, monkeypatch):
    """Versions of other data are no candidates; named, one fails its gate, and --other-data lets it pass."""
    registry = Registry(copy, NAME)
    one, *others = registry.versions()
    registry.set_tags(one, {"cohort_hash": "0" * 64})
    done = promote(copy, monkeypatch, "--version", str(one.number))
    assert done.exit_code == 3
    assert re.search(r"same variables and data\s+same, or --other-data\s+other data or folds than data/", done.stdout)
    for version in others:
        registry.set_tags(version, {"cohort_hash": "0" * 64})
    assert "has no candidate (" in refused(promote(copy, monkeypatch))
    assert promote(copy, monkeypatch, "--other-data").exit_code == 0


def test_nothing_to_roll_back_to_and_nothing_registered(copy, monkeypatch):
    """Each is one line with what to do."""
    assert (
        refused(promote(copy, monkeypatch, "--rollback")) == f"{NAME} has no previous champion: nothing to roll back to"
    )
    assert "--rollback goes alone" in refused(promote(copy, monkeypatch, "--rollback", "--dry-run"))
    client = MlflowClient(f"sqlite:///{copy}/mlflow.db")
    client.delete_registered_model(NAME)
    line = refused(promote(copy, monkeypatch))
    assert line.startswith(f"no model {NAME} is registered; the registry has imputune-csai-synthetic: fine-tune one")


def _promote_apart(folder: str, start, codes) -> None:
    start.wait()
    codes.put(run(Path(folder), "imputune", "promote").returncode)


def test_of_two_promotions_at_once_one_wins(copy, monkeypatch):
    """While one holds the lock the other is refused; two started together leave one champion."""
    with FileLock(copy / "artifacts/synthetic/.promote.lock"):
        assert "another command is promoting a model of synthetic" in refused(promote(copy, monkeypatch))
    context = multiprocessing.get_context("spawn")
    start, codes = context.Event(), context.Queue()
    both = [context.Process(target=_promote_apart, args=(str(copy), start, codes)) for _ in range(2)]
    for each in both:
        each.start()
    start.set()
    found = sorted(codes.get(timeout=120) for _ in both)
    for each in both:
        each.join()
    assert found in ([0, 0], [0, 2])  # the second came late, and found its candidate champion; or was refused
    assert aliases(copy) == {"champion": best(copy)}


def predict(copy: Path, monkeypatch, *words: object) -> Result:
    """Run `imputune predict`."""
    return invoke(copy, ["predict", "--model", "1", *map(str, words)], monkeypatch)


def test_predict_gives_what_training_gave(copy, records, monkeypatch):
    """The mean of what the five models said of a stay that all of them were validated or tested on, or trained on."""
    done = predict(copy, monkeypatch, "--records", records, "--out", "risks.csv")
    assert done.exit_code == 0, done.stderr
    risks = pd.read_csv(copy / "risks.csv").set_index("RecordID")
    assert len(risks) == STAYS
    registry = Registry(copy, NAME)
    version = registry.find("1")
    bundle = registry.load(version)
    values_NTD = np.load(copy / "data/synthetic/values.npy")
    told = pd.read_csv(copy / "artifacts/synthetic/finetune" / version.cell / "predictions.csv")
    test = told[told["partition"] == "test"]
    stays = pd.read_csv(copy / "data/synthetic/stays.csv")["stay_id"]
    for fold, part in test.groupby("fold"):
        at = np.flatnonzero(stays.isin(part["stay_id"]))
        expected = part.set_index("stay_id")["risk"].loc[stays[at]]
        np.testing.assert_allclose(bundle.risk_of(fold, values_NTD[at]), expected, atol=1e-6)
    np.testing.assert_allclose(risks["risk"], bundle.risk_by_fold(values_NTD).mean(axis=0), atol=1e-6)
    assert ((risks["risk"] >= bundle.about.threshold) == risks["high_risk"]).all()


def test_predict_does_not_depend_on_the_batch(copy, records, monkeypatch):
    """One record alone gets the risk it has among all, to 1e-6."""
    every = predict(copy, monkeypatch, "--records", records).stdout.splitlines()
    [alone] = predict(copy, monkeypatch, "--records", records / "900007.txt").stdout.splitlines()[1:]
    [among] = [line for line in every if line.startswith("900007,")]
    assert float(alone.split(",")[1]) == pytest.approx(float(among.split(",")[1]), abs=1e-6)


def test_predict_writes_the_series_with_observed_cells_marked(copy, records, monkeypatch):
    """Every hour of every variable, observed ones as the cohort has them."""
    done = predict(copy, monkeypatch, "--records", records, "--out", "r.parquet", "--series", "s.parquet")
    assert done.exit_code == 0, done.stderr
    assert len(pd.read_parquet(copy / "r.parquet")) == STAYS
    series = pd.read_parquet(copy / "s.parquet")
    values_NTD = np.load(copy / "data/synthetic/values.npy")
    assert len(series) == values_NTD.size
    observed = series["Observed"].to_numpy()
    np.testing.assert_array_equal(observed, ~np.isnan(values_NTD.reshape(-1)))
    np.testing.assert_array_equal(series["Value"][observed], values_NTD.reshape(-1)[observed])
    assert series["Value"].notna().all()


def test_predict_says_what_is_missing(copy, tmp_path, monkeypatch):
    """Variables nobody has, a stay without a measurement and rows that do not count are told; the risk is given."""
    table = "RecordID,Time,Parameter,Value\n1,00:10,HR,80\n1,60:00,HR,81\n1,01:00,Temp,-5\n2,50:00,HR,80\n"
    (tmp_path / "table.csv").write_text(table)
    done = predict(copy, monkeypatch, "--records", tmp_path / "table.csv")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"no stay has a value of DiasABP, Na, .*: predicted without", done.stderr)
    assert "1 of 2 stays have no measurement" in done.stderr
    assert "2 rows passed over: after hour 48" in done.stderr
    assert "1 rows passed over: negative value" in done.stderr
    assert [line.split(",")[4] for line in done.stdout.splitlines()[1:]] == ["1", "0"]


def test_predict_refuses_and_writes_nothing(copy, records, tmp_path, monkeypatch):
    """Unknown models, endings and records are one line each, and no file appears."""
    out = copy / "risks.csv"
    words = ["predict", "--records", str(records), "--out", str(out)]
    line = refused(invoke(copy, [*words, "--model", "champion"], monkeypatch))
    assert line.startswith(f"{NAME} has no version or alias 'champion': it has no alias, and versions 1, 2")
    assert line.endswith("`imputune promote` sets champion")
    assert f"{NAME} has no version or alias '99'" in refused(invoke(copy, [*words, "--model", "99"], monkeypatch))
    assert "must end in .csv or .parquet" in refused(predict(copy, monkeypatch, "--records", records, "--out", "r.txt"))
    (tmp_path / "empty.csv").write_text("")
    bad = predict(copy, monkeypatch, "--records", tmp_path / "empty.csv", "--out", out)
    assert "the file is empty" in refused(bad)
    assert not out.exists()


def test_altered_weights_are_found(copy, records, monkeypatch):
    """One changed byte of a registered version's weights is an error that names the fold's file."""
    registry = Registry(copy, NAME)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", tracking_uri=registry.uri))
    assert copy in folder.parents
    path = weights_file(folder / "artifacts/bundle", 2)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    line = refused(predict(copy, monkeypatch, "--records", records))
    assert line.startswith(f"{NAME} version 1: the weights of fold 2 are not those that were registered")
    path.unlink()
    assert "the bundle cannot be read" in refused(predict(copy, monkeypatch, "--records", records))


def test_an_unreachable_registry_is_named(copy, records, monkeypatch):
    """A tracking server that does not answer is one line, within seconds."""
    environment = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = invoke(copy, ["predict", "--records", str(records)], monkeypatch, environment)
    assert "the tracking store http://127.0.0.1:9 failed" in refused(done)


def test_explain_gives_a_table_and_a_picture(copy, records, monkeypatch):
    """Attributions of the observed cells sum to the difference of the two risks; a stay is chosen by its id."""
    words = ["explain", "--model", "1", "--records", str(records)]
    assert f"the records hold {STAYS} stays: name one with --stay" in refused(invoke(copy, words, monkeypatch))
    assert "the records hold no stay 5" in refused(invoke(copy, [*words, "--stay", "5"], monkeypatch))
    outputs = ["--out", "cells.csv", "--figure", "cells.png"]
    done = invoke(copy, [*words, "--stay", "900004", *outputs, "--json"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    cells = pd.read_csv(copy / "cells.csv")
    values_TD = np.load(copy / "data/synthetic/values.npy")[3]
    assert len(cells) == (~np.isnan(values_TD)).sum()
    assert cells["Attribution"].sum() == pytest.approx(told["risk"] - told["baseline_risk"], abs=1e-4)
    assert sum(each["Attribution"] for each in told["by_variable"]) == pytest.approx(cells["Attribution"].sum())
    assert (copy / "cells.png").read_bytes().startswith(b"\x89PNG")
    every = predict(copy, monkeypatch, "--records", records).stdout.splitlines()
    [line] = [line for line in every if line.startswith("900004,")]
    assert float(line.split(",")[1]) == pytest.approx(told["risk"], abs=1e-6)


def test_evaluate_measures_on_another_cohort(copy, monkeypatch):
    """It writes external-<cohort>.json with every stay counted, and refuses the cohort of the training."""
    for words in (["extract", "synthetic", "--stays", "90", "--seed", "5", "--out", "other"],):
        assert invoke(copy, words, monkeypatch).exit_code == 0
    words = ["evaluate", "--model", "1", "--data"]
    done = invoke(copy, [*words, "other", "--json"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert json.loads((copy / "results/synthetic/external-set-s.json").read_text()) == told
    every = told["groups"][0]
    assert every["stays"] == 90
    assert every["scores"]["auc"]["low"] <= every["scores"]["auc"]["value"] <= every["scores"]["auc"]["high"]
    assert sum(group["stays"] for group in told["groups"] if group["group"] == "sex") == 90
    assert "is the cohort that" in refused(invoke(copy, [*words, "data/synthetic"], monkeypatch))
    assert "is no cohort" in refused(invoke(copy, [*words, "nowhere"], monkeypatch))
    variables = copy / "other/variables.csv"
    variables.write_text(variables.read_text().replace("HR,", "Pulse,"))
    line = refused(invoke(copy, [*words, "other"], monkeypatch))
    assert "has other variables or units than" in line
    assert "(HR, Pulse)" in line


def test_evaluate_refuses_stays_the_model_was_trained_on(copy, monkeypatch):
    """A cohort that holds some of the training's stays, whatever its hash, would flatter the model."""
    shutil.copytree(copy / "data/synthetic", copy / "other")
    (copy / "other/source.json").write_text((copy / "other/source.json").read_text() + "\n")
    line = refused(invoke(copy, ["evaluate", "--model", "1", "--data", "other"], monkeypatch))
    assert line.startswith(f"{STAYS} of the {STAYS} stays of other are in ")


def readme_section() -> str:
    """Return what README.md says of registered models."""
    text = (ROOT / "README.md").read_text()
    [section] = re.findall(r"^## From a trained head.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    return section


def test_the_readmes_way_to_a_prediction_works(copy):
    """Each command of README.md's section, typed in a shell one after the other, ends well."""
    commands = re.findall(r"^\$ ((?:imputune|printf) .*?)(?: {2,}# .*)?$", readme_section(), re.MULTILINE)
    assert [command.split()[1] for command in commands if command.startswith("imputune")] == [
        "promote",
        "predict",
        "explain",
        "extract",
        "evaluate",
    ]
    for command in commands:
        done = run(copy, "bash", "-c", command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (copy / "why.png").stat().st_size > 0
    assert (copy / "results/synthetic/external-set-s.json").is_file()


def post(port: int, body: str) -> tuple[int, dict]:
    """Ask a served model."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_a_served_model_answers_as_predict_does(copy, monkeypatch):
    """README.md's request gets what `imputune predict` prints for the same table; a bad one gets one line and 400."""
    assert promote(copy, monkeypatch).exit_code == 0
    [body] = re.findall(r"-d '(\{.*?\})'", readme_section(), re.DOTALL)
    table = json.loads(body)["dataframe_split"]
    pd.DataFrame(table["data"], columns=table["columns"]).to_csv(copy / "stay.csv", index=False)
    printed = invoke(copy, ["predict", "--records", "stay.csv"], monkeypatch).stdout.splitlines()
    expected = dict(zip(printed[0].split(","), printed[1].split(","), strict=True))
    assert "-m models:/imputune-mortality-synthetic@champion --env-manager local" in readme_section()
    with served(f"models:/{NAME}@champion", f"sqlite:///{copy}/mlflow.db", workers=1) as (port, _):
        status, answer = post(port, body)
        assert status == 200
        [row] = answer["predictions"]
        assert list(row) == list(expected)
        assert row["risk"] == pytest.approx(float(expected["risk"]), abs=1e-6)
        assert str(row["high_risk"]) == expected["high_risk"]
        status, answer = post(port, body.replace('"HR"', '"Pulse"'))
        assert status == 400
        assert "row 1 of the table: unknown parameter 'Pulse'" in answer["message"]


def test_registering_and_loading_take_less_than_two_seconds_each(copy):
    """Beyond imports; the weights are five models of real size."""
    sizes = CsaiSizes(variables=35)
    model = Csai(sizes)
    scaler = Scaler(*(np.ones(35, dtype=np.float32) for _ in range(4)))
    weights = scaler_weights(scaler) | module_weights("imputer", model) | module_weights("head", Mlp(108))
    results = [TrainedFold(fold, weights, {"validation_auc": 0.5}, 0, 1.0, []) for fold in range(5)]
    variables = read_cohort(copy / "data/synthetic").variables
    about = BundleAbout("synthetic", variables, sizes, "mlp2", "hidden", tuple(range(5)), 0.5)
    with tracked_run(copy, "imputune", "finetune", {}, {}, folds=()) as tracked:
        register_bundle(tracked, NAME, about, results, {})  # the first one imports what mlflow needs
        started = time.perf_counter()
        number = register_bundle(tracked, NAME, about, results, {})
        registered = time.perf_counter() - started
    registry = Registry(copy, NAME)
    started = time.perf_counter()
    registry.load(registry.find(number))
    assert registered < 2
    assert time.perf_counter() - started < 2
