import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from imputune.cli import app
from imputune.data.synthetic import write_synthetic_records
from imputune.tracking.history import finished_runs

ROOT = Path(__file__).parent.parent
STAYS = 60
COMMAND = [sys.executable, "-m", "imputune.cli"]


def run(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command inside a project folder, free of any outer tracking or dvc."""
    return subprocess.run(
        words, cwd=project, env=clean_environment() | environment, capture_output=True, text=True, timeout=300
    )


def clean_environment() -> dict[str, str]:
    """Return this process's environment without mlflow's and dvc's variables, this interpreter first on PATH."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def invoke(project: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str] | None = None):
    """Run an imputune command inside a project folder, in this process."""
    monkeypatch.chdir(project)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, text in (environment or {}).items():
        monkeypatch.setenv(name, text)
    return CliRunner().invoke(app, words)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with a tiny cohort and tiny sizes, after one `dvc repro`."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("dvc.yaml", "MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    text = (ROOT / "params.yaml").read_text()
    text = re.sub(r"synthetic: \{.*\}", "synthetic: { pretrain_epochs: 2, finetune_epochs: 3 }", text)
    text = re.sub(r"stays: 1000", f"stays: {STAYS}", text)
    text = re.sub(r"hidden: 108", "hidden: 8", text)
    (folder / "params.yaml").write_text(text)
    assert run(folder, *COMMAND, "extract", "synthetic").returncode == 0
    assert run(folder, "dvc", "init", "--no-scm", "--quiet").returncode == 0
    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_repro_leaves_tables_and_tracked_runs(project):
    """After one repro, results hold a row per cell, each read from a tracked run with a child per fold."""
    results = json.loads((project / "results/synthetic/results.json").read_text())
    assert [(row["mode"], row["source"], len(row["folds"])) for row in results["rows"]] == [
        ("frozen", "tracked run", 5),
        ("unfrozen", "tracked run", 5),
    ]
    assert results["stays"] == STAYS
    assert {row["imputer"] for row in results["imputers"]} == {"csai", "mean", "locf", "linear"}
    markdown = (project / "results/synthetic/comparison.md").read_text()
    assert "| mlp2 | unfrozen | hidden | plateau |" in markdown


def test_second_repro_does_nothing(project):
    """With nothing changed no stage runs again."""
    done = run(project, "dvc", "repro")
    assert done.returncode == 0
    assert "Running stage" not in done.stdout + done.stderr


def test_runs_carry_what_made_them(project):
    """A tracked run names its parameters, cohort hash, seed and environment; curves and scores stand in its folds."""
    [newest, _] = finished_runs(project, "imputune", "finetune", "synthetic")
    assert newest.params["cohort.hash"] == newest.tags["imputune.cohort_hash"]
    assert newest.params["csai.hidden"] == "8"
    assert newest.params["seed"] == "2012"
    assert newest.tags["imputune.torch"]
    assert {"train_loss", "validation_auc", "test_auc"} <= set(newest.folds[0].metrics)
    files = {file.path for file in MlflowClient().list_artifacts(newest.run_id, "figures")}
    assert files == {"figures/auc.png", "figures/loss.png"}


def test_registered_bundle_predicts_what_training_predicted_and_unpickles_nothing(project, tmp_path, monkeypatch):
    """A bundle loaded from the registry gives each test stay, from its raw rows, the mean of its five models' risks."""
    write_synthetic_records(tmp_path, STAYS, 2012)
    records = [pd.read_csv(path).assign(RecordID=int(path.stem)) for path in sorted(tmp_path.glob("set-s/*.txt"))]
    table = pd.concat(records)[["RecordID", "Time", "Parameter", "Value"]].astype({"Value": float})
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")

    def trapped(*arguments, **options):
        raise AssertionError("loading a bundle must unpickle nothing")

    monkeypatch.setattr(pickle, "load", trapped)
    monkeypatch.setattr(pickle, "loads", trapped)
    monkeypatch.setattr(pickle, "Unpickler", trapped)
    [run, *_] = [
        r for r in finished_runs(project, "imputune", "finetune", "synthetic") if r.tags["imputune.mode"] == "unfrozen"
    ]
    version = run.tags["imputune.registered"]
    model = mlflow.pyfunc.load_model(f"models:/{version}")
    risks = model.predict(table).set_index("RecordID")
    assert len(risks) == STAYS
    bundle = model.unwrap_python_model().bundle
    trained = pd.read_csv(project / "artifacts/synthetic/finetune/mlp2-unfrozen-plateau/predictions.csv")
    alone = table[table["RecordID"] == 900001]
    assert np.isclose(model.predict(alone)["risk"].item(), risks.loc[900001, "risk"], atol=1e-6)
    for fold in range(5):
        expected = trained[trained["fold"] == fold].set_index("stay_id")["risk"]
        single = type(bundle)(bundle.about, (bundle.models[fold],)).predict(table).set_index("RecordID")["risk"]
        np.testing.assert_allclose(single.loc[expected.index], expected, atol=1e-6)


def test_imputer_bundle_keeps_observed_values(project, tmp_path):
    """The registered imputer returns every hour of every variable, observed values as they were."""
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    table = pd.DataFrame(
        {"RecordID": [1, 1], "Time": ["00:10", "00:50"], "Parameter": ["HR", "HR"], "Value": [80.0, 90.0]}
    )
    series = mlflow.pyfunc.load_model("models:/imputune-csai-synthetic/1").predict(table)
    assert len(series) == 48 * 35
    assert np.isfinite(series["Value"]).all()
    [observed] = series[series["Observed"]].to_dict("records")
    assert observed == {"RecordID": 1, "Hour": 0, "Parameter": "HR", "Value": 85.0, "Observed": True}


def test_no_stay_id_enters_a_run(project):
    """No file of any run or registered model names a stay of the cohort, while the stage outputs do."""
    ids = [str(900001 + stay).encode() for stay in range(STAYS)]

    def naming(folder: Path) -> list[str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        return [path.name for path in files if any(number in path.read_bytes() for number in ids)]

    assert naming(project / "artifacts")
    assert not [name for name in naming(project / "mlruns") if name != "synthetic.py"]


def test_compare_reads_stage_outputs_where_runs_are_gone(project, tmp_path, monkeypatch):
    """Without its tracking store the comparison has the same scores, and says where they are from."""
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("mlruns", "mlflow.db", ".dvc"))
    done = invoke(copy, ["compare", "--json"], monkeypatch)
    assert done.exit_code == 0, done.stderr
    ours = json.loads(done.stdout)
    theirs = json.loads((project / "results/synthetic/results.json").read_text())
    assert {row["source"] for row in ours["rows"]} == {"stage outputs"}
    assert [row["test_auc_mean"] for row in ours["rows"]] == [row["test_auc_mean"] for row in theirs["rows"]]
    assert any("is gone from the tracking store" in note for note in ours["notes"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_a_marked_run_and_the_earlier_output(project, tmp_path, number):
    """Ctrl-C in the middle of training ends with 130, a KILLED run, no worker and the earlier artifacts untouched."""
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("mlruns", "mlflow.db", ".dvc"))
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("pretrain_epochs: 2", "pretrain_epochs: 100000"))
    before = (copy / "artifacts/synthetic/csai/result.json").read_bytes()
    process = subprocess.Popen(
        [*COMMAND, "pretrain"],
        cwd=copy,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    client = MlflowClient(f"sqlite:///{copy}/mlflow.db")
    deadline = time.monotonic() + 120
    while not ((copy / "mlflow.db").is_file() and children(client)):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert {each.info.status for each in children(client)} == {"KILLED"}
    assert (copy / "artifacts/synthetic/csai/result.json").read_bytes() == before
    assert not list((copy / "artifacts/synthetic").glob(".*"))


def children(client: MlflowClient) -> list:
    """Return the fold runs in the store."""
    experiment = client.get_experiment_by_name("imputune")
    return client.search_runs([experiment.experiment_id], "tags.`imputune.fold` != ''") if experiment else []


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["finetune", "--head", "mlp3"], {}, "unknown head 'mlp3' (did you mean 'mlp2'?): choose from mlp2"),
        (["finetune", "--mode", "melted"], {}, "unknown mode 'melted': choose from frozen, unfrozen"),
        (["pretrain", "synthetc"], {}, "no budget for dataset 'synthetc' (did you mean 'synthetic'?)"),
        (["pretrain", "physionet2012"], {}, "data/physionet2012 is no cohort: no such folder"),
        (["describe", "nowhere"], {}, "nowhere is no cohort: no such folder"),
        (["pretrain"], {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "the tracking store http://127.0.0.1:9 failed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(project, words, environment, message, monkeypatch):
    """Each mistake gives its cause and remedy in one line, no traceback, nothing half-written."""
    done = invoke(project, words, monkeypatch, environment)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((project / "artifacts").rglob(".*"))


def test_finetune_before_pretrain_and_on_other_variables(project, tmp_path, monkeypatch):
    """Fine-tuning names the missing step, and the variables that an imputer was not trained on."""
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("mlruns", "mlflow.db", ".dvc"))
    result = copy / "artifacts/synthetic/csai/result.json"
    content = json.loads(result.read_text())
    result.write_text(json.dumps(content | {"variables": ["HR"]}))
    done = invoke(copy, ["finetune"], monkeypatch)
    assert done.exit_code == 2
    assert "was trained on other variables (1, the cohort has 35" in done.stderr
    result.write_text(json.dumps(content | {"folds_hash": "of folds drawn since"}))
    done = invoke(copy, ["finetune"], monkeypatch)
    assert done.exit_code == 2
    assert "was trained on other folds than synthetic now has" in done.stderr
    result.unlink()
    done = invoke(copy, ["finetune"], monkeypatch)
    assert done.exit_code == 2
    assert "run `imputune pretrain synthetic` (or `dvc repro`) first" in done.stderr
