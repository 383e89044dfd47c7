import json
import pickle
import re
import shutil
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from dvc.repo import Repo
from mlflow.entities import Metric

from imputune.artifacts.checkpoints import Checkpoints
from imputune.artifacts.stage_files import read_training
from imputune.data.raw.physionet2012 import bin_long_table
from imputune.data.raw.synthetic import write_synthetic_records
from imputune.evaluation.metrics import risk_scores
from imputune.evaluation.rows import SCORES
from imputune.pipeline.project import Project, exclusive
from imputune.protocol.variants import PROTOCOL
from imputune.tracking.history import finished_runs
from projects import (
    FOLDS,
    STAYS,
    clean_environment,
    client_of,
    copy_of,
    heads_folder,
    imputer_folder,
    invoke,
    refused,
    set_params,
    store_text,
)

VARIANTS = [
    ("mlp2", "frozen", "hidden", "plateau"),
    ("mlp2", "unfrozen", "hidden", "plateau"),
    ("gru", "frozen", "imputed", "plateau"),
    ("xgboost", "frozen", "imputed", "none"),
    ("xgboost", "frozen", "hidden", "none"),
    ("xgboost", "frozen", "summary", "none"),
]


def content_of(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file."""
    return json.loads(path.read_text())


def test_stages_leave_tables_and_tracked_runs(project):
    """After dvc.yaml's commands, results hold a row per variant, each read from a tracked run with a child per fold."""
    results = content_of(project / "results/synthetic/results.json")
    assert [(row["head"], row["mode"], row["input"], row["schedule"]) for row in results["rows"]] == VARIANTS
    assert all((row["source"], len(row["folds"])) == ("tracked run", FOLDS) for row in results["rows"])
    assert [row["num_parameters"] is None for row in results["rows"]] == [row[0] == "xgboost" for row in VARIANTS]
    assert results["stays"] == STAYS
    assert {(row["imputer"], row["pattern"], row["split"]) for row in results["imputers"]} == set(
        product(("csai", "mean", "locf", "linear"), ("uniform", "non_uniform"), ("validation", "test"))
    )
    metrics = {path.stem: content_of(path) for path in (project / "metrics/synthetic").iterdir()}
    assert {name: each["AUC"] for name, each in metrics.items()} == {
        "-".join(row[word] for word in ("head", "mode", "input", "schedule")): round(row["test_auc_mean"], 4)
        for row in results["rows"]
    }
    written = {path.name for path in (project / "results/synthetic").rglob("*") if path.is_file()}
    figures = {f"{name}.{form}" for name in ("calibration", "decision", "curves") for form in ("png", "svg")}
    assert {"comparison.tex", *figures} < written


def test_tables_hold_the_scores_of_the_folds(project):
    """A variant's line in comparison.md has the means over the folds that its predictions give, computed here anew."""
    cohort = pd.read_csv(project / "data/synthetic/stays.csv").set_index("stay_id")["died"]
    lines = (project / "results/synthetic/comparison.md").read_text().splitlines()
    for words in VARIANTS:
        predictions = pd.read_csv(heads_folder(project) / "-".join(words) / "predictions.csv")
        scores = {
            split: [
                risk_scores(cohort.loc[fold["stay_id"]].to_numpy(), fold["risk"].to_numpy())["auc"]
                for _, fold in predictions[predictions["split"] == split].groupby("fold")
            ]
            for split in ("validation", "test")
        }
        line = next(line for line in lines if line.startswith(f"| {' | '.join(words)} |"))
        for aucs in scores.values():
            assert f"{fmean(aucs):.3f} ± {np.std(aucs, ddof=1):.3f}" in line


def test_repro_does_nothing_where_all_is_made(project, tmp_path, monkeypatch):
    """With nothing changed no stage runs again; dvc has a stage for each variant and each imputer, and four more."""
    copy = copy_of(project, tmp_path)
    monkeypatch.chdir(copy)
    with Repo.init(str(copy), no_scm=True) as repo:
        repo.commit(force=True)
        assert repo.reproduce() == []
        stages = [stage for stage in repo.index.stages if getattr(stage, "cmd", None)]
        assert len(stages) == 4 + 2 + len(VARIANTS) + 2


def test_runs_carry_what_made_them(project):
    """A tracked run names its parameters, cohort hash, seed and environment; curves and scores stand in its folds."""
    runs = finished_runs(project, "imputune", "finetune", "synthetic")
    runs = [run for run in runs if run.tags["imputune.imputer"] == "csai"]
    assert len(runs) == len(VARIANTS)
    newest = next(run for run in runs if run.tags["imputune.head"] == "gru")
    assert newest.params["cohort.hash"] == newest.tags["imputune.cohort_hash"]
    assert (newest.params["csai.hidden_size"], newest.params["heads.mlp_width"]) == ("8", "8")
    assert newest.params["seed"] == "2012"
    assert newest.tags["imputune.torch"]
    assert {"train_loss", "validation_auc", "test_auc"} <= set(newest.folds[0].metrics)
    files = {file.path for file in client_of(project).list_artifacts(newest.run_id, "figures")}
    assert files == {"figures/auc.png", "figures/loss.png", "figures/risks.png"}


@pytest.mark.parametrize(
    ("head", "variant"), [("mlp2", "mlp2-unfrozen-hidden-plateau"), ("gru", "gru-frozen-imputed-plateau")]
)
def test_registered_bundle_predicts_what_training_predicted_and_unpickles_nothing(
    models, tmp_path, monkeypatch, head, variant
):
    """A bundle loaded from the registry gives each test stay, from its raw rows, the mean of its fold models' risks."""
    write_synthetic_records(tmp_path, STAYS, 2012)
    records = [pd.read_csv(path).assign(RecordID=int(path.stem)) for path in sorted(tmp_path.glob("set-s/*.txt"))]
    table = pd.concat(records)[["RecordID", "Time", "Parameter", "Value"]].astype({"Value": float})
    mlflow.set_tracking_uri(f"sqlite:///{models}/mlflow.db")

    def trapped(*arguments, **options):
        raise AssertionError("loading a bundle must unpickle nothing")

    monkeypatch.setattr(pickle, "load", trapped)
    monkeypatch.setattr(pickle, "loads", trapped)
    monkeypatch.setattr(pickle, "Unpickler", trapped)
    monkeypatch.setattr(torch, "load", trapped)
    monkeypatch.setattr(cloudpickle, "load", trapped)
    [run, *_] = [
        each
        for each in finished_runs(models, "imputune", "finetune", "synthetic")
        if each.tags["imputune.imputer"] == "csai"
        and variant.startswith(f"{head}-{each.tags['imputune.mode']}")
        and each.tags["imputune.head"] == head
    ]
    version = run.tags["imputune.registered"]
    model = mlflow.pyfunc.load_model(f"models:/{version}")
    risks = model.predict(table).set_index("RecordID")
    assert len(risks) == STAYS
    bundle = model.unwrap_python_model().bundle
    stays = bin_long_table(table, bundle.about.variables)
    trained = pd.read_csv(heads_folder(models) / variant / "predictions.csv")
    alone = table[table["RecordID"] == 900001]
    assert np.isclose(model.predict(alone)["risk"].item(), risks.loc[900001, "risk"], atol=1e-6)
    for fold in range(FOLDS):
        expected = trained[trained["fold"] == fold].set_index("stay_id")["risk"]
        single = pd.Series(bundle.risk_of(fold, stays.values_NTD), stays.stay_ids_N)
        np.testing.assert_allclose(single.loc[expected.index], expected, atol=1e-6)


def test_imputer_bundle_keeps_observed_values(models):
    """The registered imputer returns every hour of every variable, observed values as they were."""
    mlflow.set_tracking_uri(f"sqlite:///{models}/mlflow.db")
    table = pd.DataFrame(
        {"RecordID": [1, 1], "Time": ["00:10", "00:50"], "Parameter": ["HR", "HR"], "Value": [80.0, 90.0]}
    )
    series = mlflow.pyfunc.load_model("models:/imputune-csai-synthetic/1").predict(table)
    assert len(series) == 48 * 35
    assert np.isfinite(series["Value"]).all()
    [observed] = series[series["Observed"]].to_dict("records")
    assert observed == {"RecordID": 1, "Hour": 0, "Parameter": "HR", "Value": 85.0, "Observed": True, "RowsIgnored": 0}


def test_no_stay_id_enters_a_run(project):
    """Neither the store nor a file of any run or registered model names a stay, while the stage outputs do."""
    ids = {str(900001 + stay).encode() for stay in range(STAYS)}
    numbers = re.compile(rb"(?<![\d.])\d{6}(?!\d)")  # of six digits, not those of a fraction

    def naming(folder: Path) -> list[str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        return [path.name for path in files if ids.intersection(numbers.findall(path.read_bytes()))]

    assert naming(project / "artifacts")
    assert not [name for name in naming(project / "mlruns") if name != "synthetic.py"]
    assert not ids.intersection(numbers.findall(store_text(project).encode()))


def test_compare_reads_stage_outputs_where_runs_are_gone(project, tmp_path, monkeypatch):
    """Without its tracking store the comparison has the same scores, and says where they are from."""
    copy = copy_of(project, tmp_path, without=("mlflow.db",))
    done = invoke(copy, ["compare", "--json"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    ours = json.loads(done.stdout)
    theirs = content_of(project / "results/synthetic/results.json")
    assert {row["source"] for row in ours["rows"]} == {"stage outputs"}
    assert [row["test_auc_mean"] for row in ours["rows"]] == [row["test_auc_mean"] for row in theirs["rows"]]
    notes = [note for note in ours["notes"] if not note.startswith(("frozen training", "unfrozen training"))]
    why = ": scores are read from artifacts, because run "
    assert {note.split(why)[0] for note in notes} == {f"csai/{'-'.join(variant)}" for variant in VARIANTS}
    assert all(note.endswith(" is gone or unfinished") for note in notes)


def fake_run(copy: Path, like: str, changed: dict[str, str], auc: float) -> str:
    """Add a finished run newer than all others, with all folds, tagged as the run `like` but for what changed."""
    client = client_of(copy)
    model = client.get_run(like)
    scores = dict.fromkeys(SCORES, auc)
    whole = {name: model.data.metrics[name] for name in ("num_parameters", "trainable_parameters", "seconds")}
    tags = {key: text for key, text in model.data.tags.items() if key.startswith("imputune.")} | changed
    later = int(time.time() * 1000) + 3_600_000

    def finished(tags: dict[str, str], metrics: dict[str, float]) -> str:
        run = client.create_run(model.info.experiment_id, start_time=later, tags=tags)
        points = [Metric(name, value, later, 0) for name, value in metrics.items()]
        client.log_batch(run.info.run_id, metrics=points)
        client.set_terminated(run.info.run_id, "FINISHED")
        return run.info.run_id

    parent = finished(tags, whole)
    for fold in range(FOLDS):
        finished(tags | {"imputune.fold": str(fold), "mlflow.parentRunId": parent}, scores)
    return parent


def test_compare_shows_the_run_that_artifacts_name(project, tmp_path, monkeypatch):
    """A newer run of the same variant, with other parameters, does not replace the one whose output stands there.

    Without that output the newest run of the same imputer counts, and is named; another imputer's never does.
    """
    copy = copy_of(project, tmp_path)
    variant = heads_folder(copy) / "mlp2-frozen-hidden-plateau"
    output = content_of(variant / "result.json")
    newer = fake_run(copy, output["run_id"], {}, auc=0.99)
    fake_run(copy, output["run_id"], {"imputune.imputer_run": "0" * 32}, auc=1.0)

    def frozen() -> tuple[dict, list[str]]:
        done = invoke(copy, ["compare", "--json"], monkeypatch)
        assert done.exit_code == 0, done.stderr
        compared = json.loads(done.stdout)
        [row] = [row for row in compared["rows"] if (row["head"], row["mode"]) == ("mlp2", "frozen")]
        return row, [note for note in compared["notes"] if " training had at most " not in note]

    row, notes = frozen()
    assert (row["run_id"], row["source"], notes) == (output["run_id"], "tracked run", [])
    assert row["test_auc_mean"] == pytest.approx(np.mean([fold["scores"]["test_auc"] for fold in output["folds"]]))
    shutil.rmtree(variant)
    row, notes = frozen()
    assert (row["run_id"], row["test_auc_mean"]) == (newer, pytest.approx(0.99))
    assert notes == [
        f"csai/mlp2-frozen-hidden-plateau: scores are read from its newest run {newer}, because it is not in artifacts",
        "1 finished run of other data, folds, imputers or versions is skipped",
    ]


def test_mlflow_run_makes_one_run_with_the_results(project, tmp_path, monkeypatch):
    """`mlflow run` of README.md ends FINISHED; its run has the variant's parameters, folds, scores and output."""
    copy = copy_of(project, tmp_path, without=("mlflow.db",))
    monkeypatch.setenv("PATH", clean_environment()["PATH"])
    mlflow.set_tracking_uri(f"sqlite:///{copy}/mlflow.db")
    words = {"head": "xgboost", "input": "summary"}
    submitted = mlflow.projects.run(str(copy), entry_point="finetune", parameters=words, env_manager="local")
    assert submitted.get_status() == "FINISHED"
    [found] = finished_runs(copy, "imputune", "finetune", "synthetic")
    assert found.run_id == submitted.run_id
    assert client_of(copy).get_run(found.run_id).info.run_name == "xgboost · summary"
    assert (found.params["head"], found.params["input"]) == ("xgboost", "summary")
    assert found.params["csai.hidden_size"] == "8"
    assert found.tags["mlflow.project.entryPoint"] == "finetune"
    assert [fold.fold for fold in found.folds] == list(range(FOLDS))
    result = content_of(heads_folder(copy) / "xgboost-frozen-summary-none/result.json")
    assert result["run_id"] == submitted.run_id
    for fold, scored in zip(found.folds, result["folds"], strict=True):
        assert fold.metrics["test_auc"] == pytest.approx(scored["scores"]["test_auc"], nan_ok=True)


def test_a_second_command_that_would_train_the_same_is_refused(project, tmp_path, monkeypatch):
    """While a command trains, another one that would write the same outputs ends with a line that says what to do."""
    copy = copy_of(project, tmp_path, without=("src",))
    unfinished = copy / "artifacts/synthetic/unfinished"
    with exclusive(unfinished / "lock", "training"), exclusive(unfinished / "lock.csai", "training"):
        wait = "wait until it ends, or stop it; then run this command again"
        line = refused(invoke(copy, ["grid", "--head", "xgboost"], monkeypatch))
        assert line == f"another command is fine-tuning synthetic: {wait}"
        line = refused(invoke(copy, ["pretrain"], monkeypatch))
        assert line == f"another command is pretraining csai on synthetic: {wait}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune", "--head", "mlp3"], "unknown head 'mlp3' (did you mean 'mlp5'?): choose from mlp2, mlp5"),
        (["finetune", "--mode", "melted"], "unknown mode 'melted': choose from frozen, unfrozen"),
        (["finetune", "--head", "svm", "--mode", "unfrozen"], "svm has no mode 'unfrozen': xgboost and svm exist"),
        (["finetune", "--input", "raw"], "mlp2 has no input 'raw': mlp2 and mlp5 exist with mode frozen|unfrozen"),
        (["grid", "--head", "svm", "--mode", "unfrozen"], "no variant has head svm, mode unfrozen: xgboost and svm"),
        (["grid", "--all", "--head", "svm"], "--all takes every variant: leave out --head"),
        (["grid", "--fold", "3"], "there is no fold 3: choose from 0, 1, 2"),
        (["grid", "--fold", "one"], "--fold takes numbers separated by commas, such as 0,1: got 'one'"),
        (["overfit", "--head", "svm"], "svm is a non-neural head and has no epochs: choose from mlp2, mlp5, lstm, gru"),
        (["pretrain", "synthetc"], "there is no cohort 'synthetc' in data/ (did you mean 'synthetic'?)"),
        (["pretrain", "physionet2012"], "data/physionet2012 is no cohort: no such folder"),
        (["describe", "nowhere"], "nowhere is no cohort: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(unwritten, words, message, monkeypatch):
    """Each mistake gives its cause and remedy in one line, no traceback, nothing half-written."""
    assert message in refused(invoke(unwritten, words, monkeypatch))
    assert not list((unwritten / "artifacts").rglob(".*"))


def test_an_unreachable_store_is_one_line(unwritten, monkeypatch):
    """A tracking server that does not answer is named before anything is trained."""
    environment = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    line = refused(invoke(unwritten, ["pretrain"], monkeypatch, environment))
    assert line.startswith("the tracking store http://127.0.0.1:9 failed")


@pytest.fixture(scope="module")
def _unwritten(_shared_project, tmp_path_factory) -> Path:
    return copy_of(_shared_project, tmp_path_factory.mktemp("refusing"), without=("src", "results"))


@pytest.fixture
def unwritten(_unwritten) -> Iterator[Path]:
    """A copy of the project in which only commands run that are refused: they leave no output and no run."""

    def outputs() -> set[Path]:
        return {path for path in (_unwritten / "artifacts").rglob("*") if "unfinished" not in path.parts}

    before = outputs()
    yield _unwritten
    assert outputs() == before


def test_finetune_before_pretrain_and_on_other_variables(project, tmp_path, monkeypatch):
    """Fine-tuning names the missing step, and the variables that an imputer was not trained on."""
    copy = copy_of(project, tmp_path)
    result = imputer_folder(copy) / "result.json"
    content = content_of(result)

    def refusal(**made_from: object) -> str:
        result.write_text(json.dumps(content | {"made_from": content["made_from"] | made_from}))
        return refused(invoke(copy, ["finetune"], monkeypatch))

    assert "was trained on other variables (1, the cohort has 35" in refusal(variables=["HR"])
    assert "was trained on other folds than synthetic now has" in refusal(folds_hash="of folds drawn since")
    assert "was trained on other data than synthetic now has" in refusal(cohort_hash="of a cohort extracted since")
    result.unlink()
    line = refused(invoke(copy, ["finetune"], monkeypatch))
    assert line.endswith("run `imputune pretrain synthetic` (or `dvc repro`) first")


def test_artifacts_of_an_earlier_layout_say_what_to_run(project, tmp_path, monkeypatch):
    """Outputs that an earlier imputune left in another folder, or in another format, are refused with the remedy."""
    copy = copy_of(project, tmp_path)
    result = imputer_folder(copy) / "result.json"
    result.write_text(json.dumps(content_of(result) | {"format": 2}))
    line = refused(invoke(copy, ["finetune"], monkeypatch))
    assert "is of another version of imputune: run `imputune pretrain synthetic` (or `dvc repro`) first" in line
    imputer_folder(copy).rename(copy / "artifacts/synthetic/csai")
    line = refused(invoke(copy, ["compare"], monkeypatch))
    assert line == (
        f"{copy / 'artifacts/synthetic/csai'} was written by an earlier version, outputs are now in "
        f"{imputer_folder(copy)}: run `imputune pretrain synthetic` (or `dvc repro`) first"
    )


@pytest.mark.parametrize(
    ("file", "words", "remedy"),
    [
        ("imputers/csai/result.json", ["finetune"], "run `imputune pretrain synthetic` (or `dvc repro`) first"),
        ("imputers/csai/result.json", ["compare"], "run `imputune pretrain synthetic` (or `dvc repro`) first"),
        (
            "heads/in_hospital_death/csai/mlp2-frozen-hidden-plateau/result.json",
            ["compare"],
            "or fine-tune that variant again",
        ),
        ("folds.json", ["finetune"], "run `imputune folds synthetic` (or `dvc repro`)"),
        ("imputers/csai/fold-2.safetensors", ["finetune"], "restore it, or train again"),
    ],
)
def test_output_cut_in_half_is_one_line_and_exit_code_2(project, tmp_path, file, words, remedy, monkeypatch):
    """A result, a folds file or weights of which half is missing is named with the remedy, and nothing is written."""
    copy = copy_of(project, tmp_path, without=("src",))
    path = copy / "artifacts/synthetic" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = (copy / "results/synthetic/comparison.md").read_bytes()
    line = refused(invoke(copy, words, monkeypatch))
    assert str(path) in line or str(path.parent) in line
    assert line.endswith(remedy)
    assert (copy / "results/synthetic/comparison.md").read_bytes() == before
    assert not list(copy.rglob("*.new"))


def test_the_project_knows_every_place(project):
    """Each command finds what another left: the folders of the layout, by name."""
    opened = Project.open(project)
    assert opened.heads_folder("csai") == heads_folder(project)
    assert opened.imputer_folder("mean") == imputer_folder(project, "mean")
    variants = [path.name for path in opened.heads_folder("csai").iterdir()]
    assert sorted(variants) == sorted("-".join(words) for words in VARIANTS)
    assert set(variants) <= {variant.name for variant in PROTOCOL}
    assert [path.name for path in sorted((opened.artifacts_folder / "assess").iterdir())] == ["csai", "mean"]
    assert not list(opened.unfinished_folder.glob("*-*"))


def test_finished_imputers_are_skipped_if_asked(project, tmp_path, monkeypatch):
    """`pretrain --skip-finished` leaves an imputer as it is, unless settings differ or weights are missing."""
    copy = copy_of(project, tmp_path)
    words = ["pretrain", "--imputer", "mean", "--skip-finished"]
    folder = imputer_folder(copy, "mean")

    def run_id() -> str:
        assert invoke(copy, words, monkeypatch).exit_code == 0
        return content_of(folder / "result.json")["run_id"]

    before = run_id()
    assert run_id() == before
    made_from = read_training(folder, "").made_from
    unfinished = Checkpoints(Project.open(copy).unfinished_folder / "pretrain-mean", made_from)
    unfinished.begin()
    unfinished.run_id = client_of(copy).create_run("0").info.run_id  # killed after its output, before its run's end
    once_more = run_id()
    assert once_more != before
    next(folder.glob("*.safetensors")).unlink()
    anew = run_id()
    assert anew != once_more
    assert run_id() == anew
    set_params(copy, {"masking.rate": 0.2})
    assert run_id() != anew
