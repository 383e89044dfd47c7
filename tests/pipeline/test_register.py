import json
import shutil
from pathlib import Path

import pytest

from imputune.registry.names import classifier_name, imputer_name
from imputune.registry.versions import Registry
from projects import STAYS, client_of, copy_of, heads_folder, invoke, refused, set_params

ANY = {"promote.minimum_auc": 0.001}
NAME = classifier_name("synthetic")


@pytest.fixture
def pulled(project: Path, tmp_path: Path) -> Path:
    """A clone after `dvc pull`: data, artifacts and results, and no store."""
    copy = copy_of(project, tmp_path, without=("mlflow.db", "src"))
    set_params(copy, ANY)
    return copy


def test_pulled_models_are_registered_without_training_and_predict(pulled, project, monkeypatch):
    """Every CSAI model gets a version with its scores and lineage; promotion reproduces its test AUC; files stay."""
    files = {path: path.read_bytes() for path in (pulled / "artifacts").rglob("*") if path.is_file()}
    line = refused(invoke(pulled, ["promote"], monkeypatch))
    assert line.startswith(f"there is no tracking store at {pulled}/mlflow.db: train first, run `imputune register` ")
    assert not (pulled / "mlflow.db").exists()
    done = invoke(pulled, ["register"], monkeypatch)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == f"csai is version 1 of {imputer_name('csai', 'synthetic')}"
    assert done.stdout.splitlines()[-1] == "registered 7 models of synthetic"
    there, here = Registry(project, NAME), Registry(pulled, NAME)
    by_variant = {version.variant: version for version in there.versions()}
    assert {version.variant for version in here.versions()} == set(by_variant)
    for version in here.versions():
        trained = by_variant[version.variant]
        assert version.tag("fold_scores") == trained.tag("fold_scores")  # as text: constant risks have no slope (NaN)
        assert version.tag("trained_run") == trained.run_id
        assert version.tag("imputer_version") == "1"
        assert version.tags["imputune.bundle_sha256"] == trained.tags["imputune.bundle_sha256"]
    [parent] = [run for run in runs(pulled) if "mlflow.parentRunId" not in run.data.tags]
    assert (parent.info.status, parent.data.tags["imputune.command"]) == ("FINISHED", "register")
    assert invoke(pulled, ["promote"], monkeypatch).exit_code == 0
    assert {path: path.read_bytes() for path in (pulled / "artifacts").rglob("*") if path in files} == files


def test_a_second_registration_finds_nothing_missing(models, monkeypatch):
    """A model that its training or an earlier registration registered is left alone."""
    before = len(Registry(models, NAME).versions())
    done = invoke(models, ["register"], monkeypatch)
    assert done.stdout.splitlines()[-1] == "registered no model of synthetic"
    shutil.copytree(models, models.parent / "second", ignore=shutil.ignore_patterns("mlflow.db", "mlruns", "src"))
    second = models.parent / "second"
    for expected in ("registered 7 models of synthetic", "registered no model of synthetic"):
        assert invoke(second, ["register"], monkeypatch).stdout.splitlines()[-1] == expected
    assert len(Registry(models, NAME).versions()) == before
    assert len(Registry(second, NAME).versions()) == 6


def test_xgboost_from_before_its_trees_were_kept_is_told(pulled, monkeypatch):
    """An output without boosters is skipped with a line; a missing file of trees is one line."""
    folder = heads_folder(pulled) / "xgboost-frozen-summary-none"
    text = (folder / "result.json").read_text()
    content = json.loads(text)
    for fold in content["folds"]:
        del fold["boosters_sha256"]
    (folder / "result.json").write_text(json.dumps(content))
    done = invoke(pulled, ["register"], monkeypatch)
    label = "csai/xgboost-frozen-summary-none"
    assert f"{label} was trained before its trees were kept and is skipped: fine-tune it again" in done.stdout
    assert done.stdout.splitlines()[-1] == "registered 6 models of synthetic"
    (folder / "result.json").write_text(text)
    (folder / "fold-1-booster-0.json").unlink()
    assert "fold-1-booster-0.json cannot be read (No such file" in invoke(pulled, ["register"], monkeypatch).stderr


def test_outputs_of_another_pretraining_are_told(pulled, monkeypatch):
    """A head whose imputer is not the one in artifacts is skipped with a line."""
    path = heads_folder(pulled) / "mlp2-frozen-hidden-plateau/result.json"
    text = path.read_text()
    run_id = text.split('"imputer_run_id": "')[1][:32]
    path.write_text(text.replace(run_id, "0" * 32))
    done = invoke(pulled, ["register"], monkeypatch)
    label = "csai/mlp2-frozen-hidden-plateau"
    assert f"{label} was fine-tuned on another pretraining and is skipped" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "registered 6 models of synthetic"


def test_models_of_other_folds_are_told(pulled, monkeypatch):
    """An imputer that was trained on other folds is skipped with its heads."""
    path = pulled / "artifacts/synthetic/folds.json"
    path.write_text(path.read_text() + "\n")
    done = invoke(pulled, ["register"], monkeypatch)
    assert "csai and its heads are skipped: the imputer in " in done.stdout
    assert "has no model to register" in done.stderr


def test_nothing_trained_is_refused(pulled, monkeypatch):
    """The line says how models come into artifacts/."""
    shutil.rmtree(pulled / "artifacts/synthetic/imputers")
    assert refused(invoke(pulled, ["register"], monkeypatch)) == (
        "artifacts/synthetic has no model to register: train with `imputune pretrain` and `imputune finetune`, or "
        "bring trained models with `dvc pull dvc.yaml`"
    )
    assert not (pulled / "mlflow.db").exists()


def runs(root: Path) -> list:
    """Return all runs of a project."""
    client = client_of(root)
    experiment = client.get_experiment_by_name("imputune")
    return client.search_runs([experiment.experiment_id], max_results=STAYS * 10)
