from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from imputune.data.splits import fit_and_split
from imputune.errors import UserError
from imputune.imputers.build import new_csai, represent, saved_imputer
from imputune.models.weights import module_weights
from imputune.protocol.imputers import IMPUTERS
from imputune.runtime.workers import LocalPool, run_fold_jobs
from imputune.training.pretrain import PretrainJob, pretrain_fold


@pytest.fixture
def make_pretrain_job(cohort, folds, make_params):
    """Make the job of pretraining an imputer on a fold of the cohort."""

    def make(params=None, imputer="csai", fold=0, cohort=cohort):
        return PretrainJob(cohort=cohort, fold=folds[fold], params=params or make_params(), imputer=imputer)

    return make


def test_same_seed_same_bits_and_every_epoch_reported(make_pretrain_job, recorder):
    """Two trainings agree in every weight and score; the recorder gets each epoch."""
    job = make_pretrain_job(fold=1)
    first, second = pretrain_fold(job, recorder), pretrain_fold(job, recorder)
    for name, array in first.weights.items():
        np.testing.assert_array_equal(array, second.weights[name], err_msg=name)
    assert first.scores == second.scores
    assert [(fold, epoch) for fold, epoch, _ in recorder.epochs] == [(1, 0), (1, 1), (1, 2)] * 2


def test_training_lowers_the_error_and_keeps_the_best_epoch(make_pretrain_job, make_params, recorder):
    """Validation error falls, and the reported score is its minimum."""
    params = make_params(pretrain_epochs=30, pretrain={"batch_size": 16, "learning_rate": 0.01})
    result = pretrain_fold(make_pretrain_job(params), recorder)
    errors = [row["validation_mae"] for row in result.history]
    assert errors[-1] < 0.7 * errors[0]
    assert result.scores["validation_mae_non_uniform"] == pytest.approx(min(errors), rel=1e-5)
    assert result.best_epoch == int(np.argmin(errors))


@pytest.mark.parametrize("imputer", ["csai", "csai_shuffled", "grud", "saits"])
def test_test_stays_change_neither_weights_nor_choice(make_pretrain_job, cohort, folds, make_params, recorder, imputer):
    """With other values in the test stays, every weight, curve and choice is the same; only test scores move."""
    if IMPUTERS[imputer].family == "pypots":
        pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")
    other = cohort.values_NTD.copy()
    other[folds[0].test] *= -3
    params = make_params()
    ours = pretrain_fold(make_pretrain_job(params, imputer), recorder)
    theirs = pretrain_fold(make_pretrain_job(params, imputer, cohort=replace(cohort, values_NTD=other)), recorder)
    for name, array in ours.weights.items():
        np.testing.assert_array_equal(array, theirs.weights[name], err_msg=name)
    assert (ours.history, ours.best_epoch) == (theirs.history, theirs.best_epoch)
    assert ours.scores["test_mae_uniform"] != theirs.scores["test_mae_uniform"]


def test_imputers_are_scored_on_the_same_cells(make_pretrain_job, recorder):
    """In each split and masking pattern, CSAI and the plain imputers are scored on the same cells, by variable too."""
    result = pretrain_fold(make_pretrain_job(), recorder)
    for split, pattern in product(("validation", "test"), ("uniform", "non_uniform")):
        errors = {each.imputer: each for each in result.imputation if (each.split, each.pattern) == (split, pattern)}
        assert set(errors) == {"csai", "mean", "locf", "linear"}
        cells = {imputer: {v: e.cells for v, e in each.by_variable.items()} for imputer, each in errors.items()}
        assert errors["csai"].overall.cells == sum(cells["csai"].values()) > 0
        assert all(counted == cells["csai"] for counted in cells.values())
        assert errors["mean"].overall.mre == 1
        assert result.scores[f"{split}_mae_{pattern}"] == errors["csai"].overall.mae
        assert result.scores[f"{split}_mre_{pattern}"] == errors["csai"].overall.mre


@pytest.mark.slow
def test_number_of_workers_changes_nothing(make_pretrain_job, recorder):
    """Two folds trained one after the other and side by side agree in every weight, curve and score."""
    jobs = [make_pretrain_job(fold=fold) for fold in range(2)]
    alone, together = (run_fold_jobs(pretrain_fold, jobs, recorder, LocalPool(workers)) for workers in (1, 2))
    for one, other in zip(alone, together, strict=True):
        for name, array in one.weights.items():
            np.testing.assert_array_equal(array, other.weights[name], err_msg=name)
        assert (one.fold, one.history, one.scores) == (other.fold, other.history, other.scores)
    assert not np.array_equal(alone[0].weights["imputer.history"], alone[1].weights["imputer.history"])


@pytest.mark.parametrize("name", ["mean", "locf", "linear", "csai_untrained"])
def test_an_imputer_that_learns_nothing_is_scored_alone(cohort, folds, make_params, make_pretrain_job, recorder, name):
    """It has no epochs and no curves, but errors on masked cells; untrained CSAI keeps its initial weights."""
    params = make_params()
    result = pretrain_fold(make_pretrain_job(params, name), recorder)
    assert (result.history, recorder.epochs) == ([], [])
    assert result.scores["test_mae_non_uniform"] > 0
    assert {errors.imputer for errors in result.imputation} == {name}
    if name == "csai_untrained":
        initial = new_csai(fit_and_split(cohort, folds[0], 0.001), params)
        for weight, array in module_weights("imputer", initial).items():
            np.testing.assert_array_equal(result.weights[weight], array)


@pytest.mark.parametrize(("batch_size", "epochs"), [(16, 3), (64, 3), (64, 1)])
def test_divergence_is_a_user_error_that_names_the_fold(make_pretrain_job, make_params, recorder, batch_size, epochs):
    """If a loss is not finite, training stops and names the fold, the epoch and the setting to lower."""
    params = make_params(epochs, pretrain={"learning_rate": 1e30, "batch_size": batch_size})
    with pytest.raises(UserError, match=r"fold 2 diverged in epoch [01]: lower pretrain\.learning_rate in params"):
        pretrain_fold(make_pretrain_job(params, fold=2), recorder)


def test_an_imputer_of_pypots_is_pretrained_like_the_others(make_pretrain_job, cohort, folds, make_params, recorder):
    """Its curve has a validation error for each epoch; the best epoch is kept; a second training gives the same."""
    pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")
    params = make_params(pretrain_epochs=3)
    job = make_pretrain_job(params, "grud")
    result, again = pretrain_fold(job, recorder), pretrain_fold(job, recorder)
    errors = [row["validation_mae"] for row in result.history]
    assert len(errors) == 3
    assert result.best_epoch == int(np.argmin(errors))
    assert result.scores["validation_mae_non_uniform"] == pytest.approx(min(errors), abs=1e-5)
    assert result.scores == again.scores
    weights = {name: torch.from_numpy(array) for name, array in result.weights.items()}
    loaded = saved_imputer("grud", cohort.values_NTD.shape, params, weights)
    assert torch.isfinite(represent(loaded, fit_and_split(cohort, folds[0], 0.001).test).imputed_BTD).all()


def test_further_stays_train_and_nothing_else_of_them_counts(make_pretrain_job, cohort, recorder):
    """Weights differ with further stays and with other values of one, but not with their outcomes; scaling stays."""
    more = replace(cohort, values_NTD=cohort.values_NTD[:40] + 1, stay_ids_N=np.arange(40), outcome_N=np.zeros(40))
    last = more.values_NTD.copy()
    last[-1] -= 3
    alone, ours, flipped, moved, twice = (
        pretrain_fold(replace(make_pretrain_job(imputer="csai_more"), further=further), recorder)
        for further in (
            (),
            (more,),
            (replace(more, outcome_N=np.ones(40)),),
            (replace(more, values_NTD=last),),
            (more, replace(more, values_NTD=more.values_NTD + 5)),
        )
    )
    default = pretrain_fold(make_pretrain_job(), recorder)
    for name, array in ours.weights.items():
        np.testing.assert_array_equal(array, flipped.weights[name], err_msg=name)
        np.testing.assert_array_equal(alone.weights[name], default.weights[name], err_msg=name)
    for other in (alone, moved, twice):
        assert not np.array_equal(ours.weights["imputer.history"], other.weights["imputer.history"])
        for name in ("scaler.mean", "scaler.lowest", "imputer.median_gap_hours_D"):
            np.testing.assert_array_equal(ours.weights[name], other.weights[name])
    cells = [
        [(each.split, each.pattern, each.overall.cells) for each in result.imputation if each.imputer == name]
        for result, name in ((ours, "csai_more"), (default, "csai"))
    ]
    assert cells[0] == cells[1]
