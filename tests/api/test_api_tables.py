"""Cohorts and comparisons in a notebook."""

import json

import numpy as np
import pandas as pd
import pytest

import imputune
from imputune import UserError
from imputune.data.cohort import write_cohort
from projects import FOLDS, ROOT, STAYS


def test_a_cohort_by_folder_by_name_and_from_params_yaml(project, monkeypatch, tmp_path):
    """From any folder below the project, or with its folder named; all four are the same cohort."""
    monkeypatch.chdir(project / "artifacts")
    cohorts = [
        imputune.read_cohort(),
        imputune.read_cohort("synthetic"),
        imputune.read_cohort(str(project / "data/synthetic")),
        imputune.read_cohort(project / "data/synthetic"),
    ]
    monkeypatch.chdir(tmp_path)
    cohorts.append(imputune.read_cohort("synthetic", project=project))
    for cohort in cohorts:
        assert isinstance(cohort, imputune.Cohort)
        assert cohort.values_NTD.shape == (STAYS, 48, len(cohort.variables))
        assert np.array_equal(cohort.values_NTD, cohorts[0].values_NTD, equal_nan=True)


def test_a_folder_in_the_current_one_goes_before_a_dataset(project, monkeypatch, tmp_path):
    """`--out other` of extract writes one; a folder of that name that is no cohort does not count."""
    write_cohort(imputune.synthetic_cohort(12, 5), tmp_path / "synthetic")
    monkeypatch.chdir(tmp_path)
    assert len(imputune.read_cohort("synthetic").outcome_N) == 12
    (tmp_path / "synthetic/source.json").unlink()
    assert len(imputune.read_cohort("synthetic", project=project).outcome_N) == STAYS


def test_what_is_no_cohort_is_one_line(project, monkeypatch, tmp_path):
    """A misspelt dataset, a folder without one, and no project at all."""
    monkeypatch.chdir(tmp_path)
    for call, line in (
        (lambda: imputune.read_cohort("sinthetic", project=project), "data/sinthetic is no cohort: no such folder;"),
        (lambda: imputune.read_cohort(tmp_path), "is no cohort: "),
        (lambda: imputune.read_cohort("synthetic"), "is in no imputune project"),
        (lambda: imputune.read_cohort(project=tmp_path / "none"), "there is no folder"),
    ):
        with pytest.raises(UserError) as refused:
            call()
        assert line in str(refused.value)


def test_the_synthetic_cohort_is_that_of_the_command(project):
    """The same seed gives the cohort of `imputune extract synthetic`."""
    made = imputune.synthetic_cohort(STAYS, 2012)
    assert np.array_equal(made.values_NTD, imputune.read_cohort(project=project).values_NTD, equal_nan=True)


def test_a_comparison_has_a_row_a_variant(project, monkeypatch):
    """Means and deviations are those of results.json, and of the folds in the other table."""
    monkeypatch.chdir(project)
    table = imputune.read_comparison()
    stored = json.loads((project / "results/synthetic/results.json").read_text())["rows"]
    fields = ("head", "mode", "input", "schedule")
    assert list(table.index) == ["csai/" + "-".join(row[name] for name in fields) for row in stored]
    assert table["test_auc_mean"].tolist() == [row["test_auc_mean"] for row in stored]
    assert not {"folds", "calibration"} & set(table.columns)
    folds = imputune.read_comparison(project / "results/synthetic", by_fold=True)
    assert len(folds) == FOLDS * len(table)
    assert set(folds.dtypes) == {np.dtype(float)}
    by_variant = folds["test_auc"].groupby("variant", sort=False)
    pd.testing.assert_series_equal(by_variant.mean(), table["test_auc_mean"], check_names=False)
    pd.testing.assert_series_equal(by_variant.std(), table["test_auc_std"], check_names=False)
    assert table.equals(imputune.read_comparison("synthetic"))


def test_the_committed_results_are_read():
    """Those of set-a, which an earlier version may have written: a row for each of theirs, with the imputer."""
    table = imputune.read_comparison("physionet2012", project=ROOT)
    stored = json.loads((ROOT / "results/physionet2012/results.json").read_text())["rows"]
    assert table["test_auc_mean"].tolist() == [row["test_auc_mean"] for row in stored]
    assert table["imputer"].tolist() == [row.get("imputer", "csai") for row in stored]
    folds = imputune.read_comparison(ROOT / "results/physionet2012", by_fold=True)
    assert len(folds) == sum(len(row["folds"]) for row in stored)
    assert folds["test_auc"].between(0.5, 1).all()


def test_results_that_cannot_be_read_are_one_line(project, tmp_path):
    """Missing, broken, or of another version: the line says what to run."""
    folder = tmp_path / "results"
    folder.mkdir()
    with pytest.raises(UserError, match=r"results.json is missing: run `imputune compare`$"):
        imputune.read_comparison(folder)
    content = json.loads((project / "results/synthetic/results.json").read_text())
    del content["rows"][0]["test_auc_mean"]
    for text in ("{", "[]", '{"rows": [1]}', json.dumps(content)):
        (folder / "results.json").write_text(text)
        with pytest.raises(UserError, match="is broken, or of another version of imputune: run `imputune compare` ag"):
            imputune.read_comparison(folder)
