from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imputune.data.cohort import Cohort, read_cohort, write_cohort
from imputune.data.folds import Fold
from imputune.data.masking import masking_rates
from imputune.data.scaling import Scaler
from imputune.data.splits import FoldData, fit_and_split, split_cohort, with_further

MakeCohort = Callable[..., Cohort]
FOLD = Fold(number=2, train=np.array([0, 3, 4, 6, 8, 9]), validation=np.array([1, 5]), test=np.array([2, 7]))


def fitted(data: FoldData) -> dict[str, np.ndarray]:
    """Return all that is fitted on a fold: scaler, median gaps and masking rates."""
    return {
        "lowest": data.scaler.lowest_D,
        "highest": data.scaler.highest_D,
        "mean": data.scaler.mean_D,
        "deviation": data.scaler.deviation_D,
        "median gap": data.median_gap_hours_D,
        "masking rates": masking_rates(data.observed_count_D, "non_uniform", 0.1, 0.5),
    }


def with_other_values(cohort: Cohort, stays: np.ndarray) -> Cohort:
    """Return the cohort with much larger values of some stays, observed at hours 0 and 3 only."""
    values_NTD = cohort.values_NTD.copy()
    values_NTD[stays, 1:3] = np.nan
    values_NTD[stays, 0] = [1000, 2000, 3000]
    values_NTD[stays, 3] = [9000, -100, 8000]
    return replace(cohort, values_NTD=values_NTD)


def test_splits_by_value(make_cohort: MakeCohort) -> None:
    """Each split has its own stays, standardised with the training stays' mean and deviation, 0 where missing."""
    cohort = make_cohort(10, 4)
    data = fit_and_split(cohort, FOLD, 0.0)
    training_NTD = cohort.values_NTD[FOLD.train]
    assert data.number == 2
    for split, stays in ((data.train, FOLD.train), (data.validation, FOLD.validation), (data.test, FOLD.test)):
        assert len(split) == len(stays)
        assert split.stay_ids_N.tolist() == (100 + 3 * stays).tolist()
        assert split.outcome_N.tolist() == cohort.outcome_N[stays].tolist()
        expected = (cohort.values_NTD[stays] - np.nanmean(training_NTD, (0, 1))) / np.nanstd(training_NTD, (0, 1))
        np.testing.assert_allclose(split.values_NTD, np.nan_to_num(expected), atol=1e-5)
        np.testing.assert_array_equal(split.observed_NTD, ~np.isnan(cohort.values_NTD[stays]))
        assert (split.values_NTD.dtype, split.observed_NTD.dtype) == (torch.float32, torch.bool)
        assert split.outcome_N.dtype == torch.float32


def test_batch_by_value(make_cohort: MakeCohort) -> None:
    """A batch has the given stays in the given order, observed as 0 and 1; splitting does not change the cohort."""
    cohort = make_cohort(10, 4)
    before_NTD = cohort.values_NTD.copy()
    split = fit_and_split(cohort, FOLD, 0.0).train
    values, observed = split.batch(torch.tensor([4, 0]))
    assert torch.equal(values, split.values_NTD[[4, 0]])
    assert observed.dtype == torch.float32
    np.testing.assert_array_equal(observed, ~np.isnan(cohort.values_NTD[[8, 0]]))
    np.testing.assert_array_equal(cohort.values_NTD, before_NTD)


def test_a_given_scaler_is_used(make_cohort: MakeCohort) -> None:
    """A given scaler is used as it is, and no scaler is fitted."""
    cohort = make_cohort(10, 4)
    infinity = np.full(3, np.inf, dtype=np.float32)
    scaler = Scaler(
        lowest_D=-infinity,
        highest_D=infinity,
        mean_D=np.zeros(3, dtype=np.float32),
        deviation_D=np.full(3, 2, dtype=np.float32),
    )
    data = split_cohort(cohort, FOLD, scaler)
    assert data.scaler is scaler
    np.testing.assert_array_equal(data.test.values_NTD, np.nan_to_num(cohort.values_NTD[FOLD.test] / 2))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_nothing_is_fitted_on_validation_or_test_stays(make_cohort: MakeCohort, split: str) -> None:
    """Other values and other hours in validation or test stays change nothing fitted and no training value."""
    cohort = make_cohort(10, 4)
    before = fit_and_split(cohort, FOLD, 0.1)
    after = fit_and_split(with_other_values(cohort, getattr(FOLD, split)), FOLD, 0.1)
    for name, numbers in fitted(before).items():
        np.testing.assert_array_equal(fitted(after)[name], numbers, err_msg=name)
    assert torch.equal(after.train.values_NTD, before.train.values_NTD)
    assert torch.equal(after.train.observed_NTD, before.train.observed_NTD)
    assert not torch.equal(getattr(after, split).values_NTD, getattr(before, split).values_NTD)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_leak_test_can_fail(make_cohort: MakeCohort, split: str) -> None:
    """With a leak, training on every stay, the same change changes everything fitted."""
    cohort = make_cohort(10, 4)
    leaky = replace(FOLD, train=np.arange(10))
    before = fitted(fit_and_split(cohort, leaky, 0.1))
    after = fitted(fit_and_split(with_other_values(cohort, getattr(FOLD, split)), leaky, 0.1))
    for name, numbers in before.items():
        assert not np.array_equal(after[name], numbers), name


def test_variable_never_observed_in_training_makes_no_nan(make_cohort: MakeCohort) -> None:
    """A variable that only test stays have is finite everywhere, and its median gap is the whole record."""
    cohort = make_cohort(10, 4)
    cohort.values_NTD[FOLD.train, :, 1] = np.nan
    data = fit_and_split(cohort, FOLD, 0.0)
    assert data.median_gap_hours_D[1] == 4
    for split in (data.train, data.validation, data.test):
        assert torch.isfinite(split.values_NTD).all()
    assert data.train.observed_NTD[..., 1].sum() == 0
    assert data.test.observed_NTD[..., 1].sum() > 0


def test_further_records_stand_behind_the_training_stays(make_cohort: MakeCohort) -> None:
    """They are standardised by the fold's own scaler, missing cells are 0, and the cohorts stay as they are."""
    cohort = make_cohort(10, 4)
    data = fit_and_split(cohort, FOLD, 0.0)
    one = with_other_values(cohort, np.arange(10))
    before = one.values_NTD.copy()
    joined = with_further(data.train, (one, cohort), data.scaler)
    assert len(joined) == 6 + 10 + 10
    assert torch.equal(joined.values_NTD[:6], data.train.values_NTD)
    assert torch.equal(joined.observed_NTD[:6], data.train.observed_NTD)
    expected = (before[:, 0] - data.scaler.mean_D) / data.scaler.deviation_D
    np.testing.assert_allclose(joined.values_NTD[6:16, 0], expected, rtol=1e-5)
    assert not joined.values_NTD[6:16, 1:3].any()
    assert not joined.observed_NTD[6:16, 1:3].any()
    assert torch.equal(joined.values_NTD[16 + FOLD.train], data.train.values_NTD)
    np.testing.assert_array_equal(one.values_NTD, before)


def test_a_split_reads_the_mapped_file(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """A split of a cohort that was read has no values of its own: a batch comes from the file's pages."""
    made = make_cohort(10, 4)
    made = replace(made, values_NTD=np.tile(made.values_NTD, (1, 12, 1)))  # a cohort on disk has 48 hours
    write_cohort(made, tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    data = fit_and_split(cohort, FOLD, 0.1)
    for split in (data.train, data.validation, data.test, *with_further(data.train, [cohort], data.scaler).parts):
        assert np.shares_memory(split.recorded_CTD, cohort.values_NTD)
    values, _ = data.test.batch(torch.tensor([1]))
    assert torch.equal(values, fit_and_split(made, FOLD, 0.1).test.values_NTD[1:])


def test_joined_records_in_any_order(make_cohort: MakeCohort) -> None:
    """A batch of joined records has the stays of all parts in the order asked for."""
    cohort = make_cohort(10, 4)
    data = fit_and_split(cohort, FOLD, 0.0)
    joined = with_further(data.train, (cohort,), data.scaler)
    order = torch.tensor([15, 2, 6, 0, 9, 2])
    values, observed = joined.batch(order)
    assert torch.equal(values, joined.values_NTD[order])
    assert torch.equal(observed.bool(), joined.observed_NTD[order])
    expected = fit_and_split(cohort, FOLD, 0.0).train.values_NTD
    assert torch.equal(values[[1, 3]], expected[[2, 0]])


def test_what_is_counted_of_training_stays(make_cohort: MakeCohort) -> None:
    """Observed cells of each variable, in training stays only."""
    cohort = make_cohort(10, 4)
    expected = (~np.isnan(cohort.values_NTD[FOLD.train])).sum(axis=(0, 1))
    assert fit_and_split(cohort, FOLD, 0.0).observed_count_D.tolist() == expected.tolist()
