"""The commands by other protocols than cross-validation, from folds to promotion."""

import json
import shutil
from pathlib import Path

import pytest

from projects import copy_of, finished, invoke, new_project, refused, set_params

RESULTS = "results/synthetic/single_split-64-16-20"
ONE_SEED = {"folds.protocol": "single_split", "folds.single_split.seeds": [3]}


@pytest.fixture(scope="module")
def one_split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which one seed's split was trained: CSAI, and xgboost with and without static facts."""
    project = new_project(tmp_path_factory.mktemp("protocol") / "project", **ONE_SEED, **{"synthetic.stays": 100})
    finished(project, ["extract", "synthetic"])
    assert "single split 64/16/20, 1 seed (train/validation/test): 64/16/20" in finished(project, ["folds"]).stdout
    finished(project, ["pretrain"])
    finished(project, ["finetune", "--head", "xgboost", "--input", "summary"])
    finished(project, ["finetune", "--head", "xgboost", "--input", "summary+static"])
    return project


def test_one_split_goes_from_comparison_to_champion(one_split: Path, tmp_path: Path) -> None:
    """The tables name the protocol and have no deviation; results have a folder; promotion has no p-value."""
    project = copy_of(one_split, tmp_path, without=("src",))
    shown = json.loads(finished(project, ["compare", "--json"]).stdout)
    assert shown["division"]["seeds"] == [3]
    assert shown["test_to_train"] == pytest.approx(0.2 / 0.64)
    assert shown["ablation"]["pairs"] == []
    page = (project / RESULTS / "comparison.md").read_text()
    assert "Protocol: single split 64/16/20, 1 seed." in page
    assert "±" not in page.split("## Beyond the paper")[1].split("Mean ±")[0]
    assert "nan" not in page
    assert (project / RESULTS / "variants/csai/xgboost-frozen-summary-none.json").is_file()
    assert not (project / "results/synthetic/variants").exists()
    assert "single split 64/16/20, 1 seed" in finished(project, ["describe", "data/synthetic"]).stdout
    set_params(project, {"promote.minimum_auc": 0.01, "promote.calibration_margin": 1.0, "promote.auc_margin": 1.0})
    finished(project, ["promote", "--version", "1"])
    assert "one split has no p-value" in finished(project, ["promote", "--version", "2"]).stdout
    shutil.rmtree(project / "artifacts")
    assert f"scores are read from the files in {RESULTS} alone" in finished(project, ["compare"]).stderr


def test_a_table_mixes_no_protocols(one_split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another protocol in params.yaml, compare and training refuse what was made by this one, with the remedy."""
    project = copy_of(one_split, tmp_path, without=("src",))
    set_params(project, {"folds.protocol": "cross_validation"})
    line = refused(invoke(project, ["compare"], monkeypatch))
    assert "csai was pretrained by another protocol (single split 64/16/20, 1 seed) than params.yaml now has" in line
    assert "(cross-validation, 3 folds)" in line
    line = refused(invoke(project, ["finetune", "--head", "mlp2"], monkeypatch))
    assert "other settings under folds (single_split, params.yaml has cross_validation): run `imputune folds" in line


def test_external_trains_on_one_cohort_and_tests_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The joined cohort is divided by its origin; the variant's test stays are those of the second cohort."""
    project = new_project(tmp_path / "project")
    finished(project, ["extract", "synthetic"])
    finished(project, ["extract", "synthetic", "--stays", "30", "--seed", "7", "--out", "data/other"])
    finished(project, ["extract", "joined", "--train", "synthetic", "--test", "other"])
    set_params(project, {"folds.protocol": "external", "folds.external.seeds": [1, 2]})
    shown = finished(project, ["folds"]).stdout
    assert (
        "external, trained on synthetic, tested on other, 2 seeds (train/validation/test): 48/12/30, 48/12/30" in shown
    )
    line = refused(invoke(project, ["folds", "synthetic"], monkeypatch))
    assert "cohort synthetic is of one source, and folds.protocol external needs two" in line
    line = refused(invoke(project, ["extract", "joined", "--train", "synthetic", "--test", "synthetic"], monkeypatch))
    assert line == "--train, --test and --name must be three different folders in data/"
