import re
from dataclasses import replace
from pathlib import Path

import pytest

from imputune.api.champion import load_champion
from imputune.cli.options import cohort_folder
from imputune.data.cohort import write_cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.errors import UserError
from imputune.pipeline.folds import run_folds
from imputune.pipeline.project import Project, exclusive
from projects import ROOT, new_project, set_params


def test_an_outcome_of_params_that_another_dataset_lacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its default is taken, with one line; the dataset of params.yaml itself must have the outcome."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    set_params(tmp_path, {"dataset": "synthetic"}, must_change=False)
    set_params(tmp_path, {"outcome": "one_year_survival"})
    made = extract_synthetic(60, 7)
    write_cohort(made, tmp_path / "data/synthetic")
    labels = {"readmission_within_30_days": made.outcome_N}
    write_cohort(replace(made, dataset="mimic3", other_outcomes=labels), tmp_path / "data/mimic3")
    project = Project.open(tmp_path)
    assert (project.outcome, project.is_of_pipeline) == ("one_year_survival", True)
    assert not Project.open(tmp_path, outcome="los_over_7_days").is_of_pipeline

    asked = Project.open(tmp_path, "mimic3", "readmission_within_30_days")
    assert (asked.outcome, asked.is_of_pipeline) == ("readmission_within_30_days", False)
    assert capfd.readouterr().err == ""
    other = Project.open(tmp_path, "mimic3")
    assert (other.outcome, other.is_of_pipeline) == ("in_hospital_death", False)
    told = "mimic3 lacks the outcome one_year_survival of params.yaml: in_hospital_death is taken (--outcome takes"
    assert told in capfd.readouterr().err
    with pytest.raises(UserError, match="there is no tracking store"):
        load_champion("mimic3", project=tmp_path)

    set_params(tmp_path, {"dataset": "mimic3"})
    with pytest.raises(UserError, match="cohort mimic3 has no outcome 'one_year_survival'"):
        Project.open(tmp_path)


def test_a_dataset_that_does_not_exist(tmp_path: Path) -> None:
    """The error says so, with near miss and the cohorts that there are; a cohort without a budget lacks the budget."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    told = "there is no cohort 'ward_3' in data/: there is none yet; `imputune extract` makes one"
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        Project.open(tmp_path, "ward_3")
    write_cohort(replace(extract_synthetic(20, 7), dataset="ward_4"), tmp_path / "data/ward_4")
    told = "there is no cohort 'ward_3' in data/ (did you mean 'ward_4'?): there is ward_4; `imputune extract`"
    with pytest.raises(UserError, match=re.escape(told)):
        Project.open(tmp_path, "ward_3")
    with pytest.raises(UserError, match=r"params\.yaml has no budget for dataset 'ward_4'"):
        Project.open(tmp_path, "ward_4")


def test_a_cohort_is_named_by_its_folder_or_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no folder here is the one in data/, also from a folder below the project; otherwise it stays."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for folder in ("data/ward", "docs", "elsewhere/ward"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert cohort_folder(Path("ward")) == Path("data/ward")
    assert cohort_folder(Path("elsewhere/ward")) == Path("elsewhere/ward")
    assert cohort_folder(Path("none")) == Path("none")
    monkeypatch.chdir(tmp_path / "docs")
    assert cohort_folder(Path("ward")) == Path("../data/ward")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cohort_folder(Path("ward")) == Path("ward")


def test_folds_that_replace_others_name_what_was_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Imputers and variants of the earlier folds are told; equal folds, and folds of nothing trained, are not."""
    folder = new_project(tmp_path / "project")
    write_cohort(extract_synthetic(60, 7), folder / "data/synthetic")
    run_folds(Project.open(folder, "synthetic"))
    set_params(folder, {"folds.count": 4})
    run_folds(Project.open(folder, "synthetic"))
    assert "note: these folds" not in capfd.readouterr().err
    for name in ("imputers/csai", "imputers/mean", "heads/in_hospital_death/csai/mlp2-frozen-hidden-plateau"):
        (folder / "artifacts/synthetic" / name).mkdir(parents=True)
        (folder / "artifacts/synthetic" / name / "result.json").write_text("{}")
    run_folds(Project.open(folder, "synthetic"))
    assert "note: these folds" not in capfd.readouterr().err
    set_params(folder, {"folds.count": 3})
    run_folds(Project.open(folder, "synthetic"))
    assert (
        "note: these folds are others than before. On the earlier ones were trained: the imputers csai, mean and "
        "1 variant; run `imputune pretrain synthetic` and what follows again. Registered versions, a champion among "
        "them, stay as they are until then\n"
    ) in capfd.readouterr().err


def test_a_folder_that_refuses_a_lock_is_named(tmp_path):
    """No folder can be made below a file; a folder without write permission gives the same line."""
    (tmp_path / "artifacts").write_text("")
    refused = pytest.raises(UserError, match=rf"^cannot write in {tmp_path}/artifacts/unfinished: ")
    with refused, exclusive(tmp_path / "artifacts/unfinished/lock", "training"):
        pass
