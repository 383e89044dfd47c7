from dataclasses import replace
from pathlib import Path

import pytest

from imputune.api.champion import load_champion
from imputune.data.cohort import write_cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.errors import UserError
from imputune.pipeline.project import Project, exclusive
from projects import ROOT, set_params


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


def test_a_folder_that_refuses_a_lock_is_named(tmp_path):
    """No folder can be made below a file; a folder without write permission gives the same line."""
    (tmp_path / "artifacts").write_text("")
    refused = pytest.raises(UserError, match=rf"^cannot write in {tmp_path}/artifacts/unfinished: ")
    with refused, exclusive(tmp_path / "artifacts/unfinished/lock", "training"):
        pass
