from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from imputune.data.batches import in_order
from imputune.data.splits import fit_and_divide
from imputune.errors import UserError
from imputune.imputers.build import new_csai
from imputune.models.csai import Reconstruction
from imputune.protocol.imputers import IMPUTERS
from imputune.runtime.workers import run_folds
from imputune.training import pretrain
from imputune.training.pretrain import Pretraining, PretrainJob, pretrain_fold
from imputune.training.reconstruction import reconstruction_loss


def test_loss_by_hand(make_params):
    """Visible error 1, hidden error 3, history error 2, difference between readings 2: each times its weight."""
    combined = torch.tensor([[[[1.0], [4.0]]], [[[3.0], [6.0]]]])
    history = torch.full((2, 1, 2, 1), 3.0)
    reconstruction = Reconstruction(combined, history, torch.zeros(1, 2, 1), torch.zeros(2, 1, 2, 8))
    values = torch.tensor([[[1.0], [2.0]]])
    visible = torch.tensor([[[1.0], [0.0]]])
    settings = make_params(
        pretrain={"imputation_weight": 10.0, "history_weight": 100.0, "consistency_weight": 1000.0}
    ).pretrain
    loss = reconstruction_loss(reconstruction, values, visible, 1 - visible, settings)
    assert loss.item() == 1 + 10 * 3 + 100 * 2 + 1000 * 2


def test_train_epoch_takes_a_step_on_every_batch(cohort, folds, make_params):
    """54 training stays in batches of 16 are four losses; every weight moves, and the rate ends at 0."""
    params = make_params(pretrain_epochs=2, pretrain={"batch_size": 16})
    data = fit_and_divide(cohort, folds[0], 0.001)
    training = Pretraining(new_csai(data, params), data, params)
    before = [weight.detach().clone() for weight in training.weights]
    losses = [training.train_epoch() for _ in range(2)]
    assert [len(epoch) for epoch in losses] == [4, 4]
    assert not any(torch.equal(*pair) for pair in zip(before, training.weights, strict=True))
    assert training.optimizer.param_groups[0]["lr"] == 0


def test_each_epoch_hides_other_cells(cohort, folds, make_params, monkeypatch):
    """With all stays in one batch, in one order, and weights that stay as they are, each epoch has another loss."""
    monkeypatch.setattr(pretrain, "shuffled", lambda stays, batch_size, order: in_order(stays, batch_size))
    params = make_params(pretrain={"batch_size": 64, "learning_rate": 1e-30})
    data = fit_and_divide(cohort, folds[0], 0.001)
    training = Pretraining(new_csai(data, params), data, params)
    [first], [second] = (training.train_epoch() for _ in range(2))
    assert first != pytest.approx(second, rel=1e-4)


class Replayed(torch.autograd.Function):
    """A loss that lies where the last one lay, as what a CUDA graph returns does."""

    memory = torch.zeros(())

    @staticmethod
    def forward(ctx, loss):
        """Overwrite the memory."""
        return Replayed.memory.copy_(loss).detach()

    @staticmethod
    def backward(ctx, gradient):
        """Pass the gradient on."""
        return gradient


def test_losses_outlive_the_memory_of_a_graph(cohort, folds, make_params, monkeypatch):
    """Losses that each call writes to the same memory come out of an epoch as those that lie apart do."""
    params = make_params(pretrain={"batch_size": 16})
    data = fit_and_divide(cohort, folds[0], 0.001)
    apart = Pretraining(new_csai(data, params), data, params).train_epoch()
    training = Pretraining(new_csai(data, params), data, params)
    learn = training.learner
    monkeypatch.setattr(training, "learner", lambda *cells: (Replayed.apply(learn(*cells)[0]), None))
    assert training.train_epoch() == apart


def test_same_seed_same_bits_and_every_epoch_reported(cohort, folds, make_params, heard):
    """Two trainings agree in every weight and score; the recorder hears each epoch."""
    job = PretrainJob(cohort, folds[1], make_params())
    first, second = pretrain_fold(job, heard), pretrain_fold(job, heard)
    for name, array in first.weights.items():
        np.testing.assert_array_equal(array, second.weights[name], err_msg=name)
    assert first.scores == second.scores
    assert [(fold, epoch) for fold, epoch, _ in heard.epochs] == [(1, 0), (1, 1), (1, 2)] * 2


def test_training_lowers_the_error_and_keeps_the_best_epoch(cohort, folds, make_params, heard):
    """Validation error falls, and the reported score is its minimum."""
    params = make_params(pretrain_epochs=30, pretrain={"batch_size": 16, "learning_rate": 0.01})
    result = pretrain_fold(PretrainJob(cohort, folds[0], params), heard)
    errors = [row["validation_mae"] for row in result.history]
    assert errors[-1] < 0.7 * errors[0]
    assert result.scores["validation_mae_non_uniform"] == pytest.approx(min(errors), rel=1e-5)
    assert result.best_epoch == int(np.argmin(errors))


@pytest.mark.parametrize("imputer", ["csai", "csai_shuffled", "grud", "saits"])
def test_test_stays_change_neither_weights_nor_choice(cohort, folds, make_params, heard, imputer):
    """With other values in the test stays, every weight, curve and choice is the same; only test scores move."""
    if IMPUTERS[imputer].family == "pypots":
        pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")
    other = cohort.values_NTD.copy()
    other[folds[0].test] *= -3
    params = make_params()
    ours = pretrain_fold(PretrainJob(cohort, folds[0], params, imputer), heard)
    theirs = pretrain_fold(PretrainJob(replace(cohort, values_NTD=other), folds[0], params, imputer), heard)
    for name, array in ours.weights.items():
        np.testing.assert_array_equal(array, theirs.weights[name], err_msg=name)
    assert (ours.history, ours.best_epoch) == (theirs.history, theirs.best_epoch)
    assert ours.scores["test_mae_uniform"] != theirs.scores["test_mae_uniform"]


def test_imputers_are_scored_on_the_same_cells(cohort, folds, make_params, heard):
    """Each way of hiding, in each part, scores CSAI and the simple imputers on equally many cells, by variable too."""
    result = pretrain_fold(PretrainJob(cohort, folds[0], make_params()), heard)
    for partition, hiding in product(("validation", "test"), ("uniform", "non_uniform")):
        rows = [row for row in result.imputation if (row["partition"], row["hiding"]) == (partition, hiding)]
        cells = {
            imputer: {row["variable"]: row["cells"] for row in rows if row["imputer"] == imputer}
            for imputer in ("csai", "mean", "locf", "linear")
        }
        assert cells["csai"]["all"] == sum(cells["csai"].values()) / 2 > 0
        assert all(counted == cells["csai"] for counted in cells.values())
        [mean] = [row for row in rows if (row["imputer"], row["variable"]) == ("mean", "all")]
        assert mean["mre"] == 1
        [csai] = [row for row in rows if (row["imputer"], row["variable"]) == ("csai", "all")]
        assert result.scores[f"{partition}_mae_{hiding}"] == csai["mae"]


def test_number_of_workers_changes_nothing(cohort, folds, make_params, heard):
    """Two folds trained one after the other and side by side agree in every weight, curve and score."""
    jobs = [PretrainJob(cohort, fold, make_params()) for fold in folds[:2]]
    alone, together = (run_folds(pretrain_fold, jobs, heard, workers) for workers in (1, 2))
    for one, other in zip(alone, together, strict=True):
        for name, array in one.weights.items():
            np.testing.assert_array_equal(array, other.weights[name], err_msg=name)
        assert (one.fold, one.history, one.scores) == (other.fold, other.history, other.scores)
    assert not np.array_equal(alone[0].weights["imputer.history"], alone[1].weights["imputer.history"])


def test_hidden_cells_do_not_depend_on_how_many_stays_are_drawn_at_once(cohort, folds, make_params, monkeypatch):
    """A part's fixed mask is one stream of draws, and never hides what was not observed."""
    data = fit_and_divide(cohort, folds[0], 0.001)
    masks = []
    for at_once in (256, 7):
        monkeypatch.setattr(pretrain, "in_order", partial(in_order, batch_size=at_once))
        masks.append(pretrain.fixed_mask(data, "test", make_params(masking={"share": 0.4}), "uniform"))
    assert torch.equal(*masks)
    assert 0.3 < masks[0].sum() / data.test.observed_NTD.sum() < 0.5
    assert not (masks[0] & ~data.test.observed_NTD).any()


@pytest.mark.parametrize(("batch_size", "epochs"), [(16, 3), (64, 3), (64, 1)])
def test_divergence_is_a_user_error_that_names_the_fold(cohort, folds, make_params, heard, batch_size, epochs):
    """Training whose loss is no number any more stops with the fold, the epoch and the setting to lower."""
    params = make_params(epochs, pretrain={"learning_rate": 1e30, "batch_size": batch_size})
    with pytest.raises(UserError, match=r"fold 2 diverged in epoch [01]: lower pretrain\.learning_rate in params"):
        pretrain_fold(PretrainJob(cohort, folds[2], params), heard)
