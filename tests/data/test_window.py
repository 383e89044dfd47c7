from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from imputune.data.cohort import Cohort, cohort_hash, read_cohort, write_cohort
from imputune.data.cohort_facts import describe
from imputune.data.directions import Directions
from imputune.data.folds import draw_folds
from imputune.data.raw.physionet2012 import bin_long_table
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.splits import fit_and_split
from imputune.data.window import Window
from imputune.errors import UserError
from imputune.models.csai import Csai, CsaiSizes

DAY = Window(hours=24, bin_hours=2)


@pytest.fixture(scope="module")
def hourly() -> Cohort:
    """Generated stays of 48 hours."""
    return extract_synthetic(30, 1)


@pytest.fixture(scope="module")
def day() -> Cohort:
    """The same stays' first day in bins of two hours."""
    return extract_synthetic(30, 1, DAY)


def test_a_bin_has_the_values_of_its_hours(hourly: Cohort, day: Cohort) -> None:
    """A bin is observed if one of its hours is; where one hour alone was observed, it has this hour's value."""
    assert day.values_NTD.shape == (30, 12, 35)
    pairs = hourly.values_NTD[:, :24].reshape(30, 12, 2, 35)
    assert (np.isnan(day.values_NTD) == np.isnan(pairs).all(axis=2)).all()
    alone_NTD = np.isnan(pairs).sum(axis=2) == 1
    assert alone_NTD.sum() > 100
    assert (day.values_NTD[alone_NTD] == np.nansum(pairs, axis=2)[alone_NTD]).all()
    assert (day.stay_ids_N.tolist(), day.outcome_N.tolist()) == (hourly.stay_ids_N.tolist(), hourly.outcome_N.tolist())


def test_hourly_values_in_a_longer_window() -> None:
    """By hand: the mean of a bin's observed hours; hours that the values lack are missing."""
    hourly = np.array([[[1.0], [3.0], [np.nan], [5.0]]], dtype=np.float32)
    binned = Window(hours=6, bin_hours=2).of_hourly(hourly)
    assert binned[0, :, 0].tolist() == pytest.approx([2, 5, np.nan], nan_ok=True)
    assert Window(hours=2).of_hourly(hourly)[0, :, 0].tolist() == [1, 3]


def test_a_cohort_keeps_its_window(day: Cohort, hourly: Cohort, tmp_path: Path) -> None:
    """The window is read back; a usual cohort's source.json does not tell of it, and its bytes are as they were."""
    write_cohort(day, tmp_path / "day")
    assert read_cohort(tmp_path / "day").window == DAY
    assert day.dataset == "synthetic_24h_by_2h"
    facts = describe(day)
    assert (facts.hours, facts.bin_hours, facts.observed_cells) == (24, 2, int((~np.isnan(day.values_NTD)).sum()))
    write_cohort(extract_synthetic(60, 1), tmp_path / "usual")
    assert cohort_hash(tmp_path / "usual") == "39d893b14298b80ad9c5ff0e37fdb31d7793189da1e3eb558116ece404d89fba"
    assert "hours" not in (tmp_path / "usual/source.json").read_text()


def test_another_window_overwrites_no_cohort(day: Cohort, hourly: Cohort, tmp_path: Path) -> None:
    """The earlier cohort stays as it was."""
    write_cohort(day, tmp_path / "day")
    before = cohort_hash(tmp_path / "day")
    told = "has a cohort of 24 hours in bins of 2 with the first outcome in_hospital_death, this one has 48 hours and"
    with pytest.raises(UserError, match=told):
        write_cohort(hourly, tmp_path / "day")
    assert cohort_hash(tmp_path / "day") == before


def test_other_records_overwrite_no_cohort(hourly: Cohort, tmp_path: Path) -> None:
    """Two datasets of one window and outcome need two folders; new stays of the same dataset replace earlier ones."""
    write_cohort(hourly, tmp_path / "cohort")
    write_cohort(hourly.of_rows(np.arange(30)), tmp_path / "cohort")
    before = cohort_hash(tmp_path / "cohort")
    with pytest.raises(UserError, match="has a cohort of the records synthetic, this one is of ward: choose another"):
        write_cohort(replace(hourly, dataset="ward"), tmp_path / "cohort")
    assert cohort_hash(tmp_path / "cohort") == before


def test_a_window_that_the_values_do_not_have(day: Cohort, tmp_path: Path) -> None:
    """A changed source.json is no cohort."""
    write_cohort(day, tmp_path / "day")
    path = tmp_path / "day/source.json"
    path.write_text(path.read_text().replace('"bin_hours": 2', '"bin_hours": 3'))
    with pytest.raises(UserError, match=r"is not of 24 hours in bins of 3; delete it and run"):
        read_cohort(tmp_path / "day")


@pytest.mark.parametrize(
    ("window", "told"),
    [
        (Window(hours=72), "these records have 48 hours, got --hours 72: give 48 or fewer"),
        (Window(hours=24, bin_hours=5), "24 hours cannot be divided into bins of 5"),
    ],
)
def test_windows_that_cannot_be(window: Window, told: str) -> None:
    """The records end after 48 hours, and bins divide a window."""
    with pytest.raises(UserError, match=told):
        extract_synthetic(20, 1, window)


def test_rows_for_a_model_of_another_window(day: Cohort) -> None:
    """A table is binned as the cohort was; rows after the window are counted."""
    rows = [(1, "00:10", "HR", 60), (1, "01:50", "HR", 80), (1, "23:59", "HR", 90), (1, "24:00", "HR", 200)]
    columns = ("RecordID", "Time", "Parameter", "Value")
    table = {name: list(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)}
    binned = bin_long_table(pd.DataFrame(table), day.variables, (), DAY)
    heart = day.variable_names.index("HR")
    assert binned.values_NTD.shape == (1, 12, 35)
    assert binned.values_NTD[0, [0, 11], heart].tolist() == [70, 90]
    assert {reason: int(count_N.sum()) for reason, count_N in binned.ignored.items() if count_N.any()} == {
        "after hour 24": 1
    }


def test_gaps_of_csai_are_in_hours(day: Cohort) -> None:
    """CSAI on bins of two hours gives what it gives on hours with time gaps twice as long."""
    data = fit_and_split(day, draw_folds(day, 3, 1)[0], 0.001)
    assert data.bin_hours == 2
    in_bins_D = data._counts.median_gap_hours()
    assert data.median_gap_hours_D.tolist() == (in_bins_D * 2).tolist()
    sizes = {"variables": 35, "hours": 12, "hidden_size": 8, "channels": 8, "attention_heads": 2, "feedforward": 8}
    torch.manual_seed(1)
    hours, bins = Csai(CsaiSizes(**sizes)), Csai(CsaiSizes(**sizes, bin_hours=2))
    bins.load_state_dict(hours.state_dict())
    directions = Directions.of(*data.train.batch(torch.arange(4)))
    doubled = Directions(
        values=directions.values,
        observed=directions.observed,
        gap_hours=directions.gap_hours * 2,
        last_observed=directions.last_observed,
    )
    with torch.no_grad():
        found, wanted, other = bins(directions), hours(doubled), hours(directions)
    assert torch.equal(found.hidden_KBTH, wanted.hidden_KBTH)
    assert not torch.allclose(found.hidden_KBTH, other.hidden_KBTH)
