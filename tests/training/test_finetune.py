from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.data.views import Views
from imputune.errors import UserError
from imputune.training import finetune
from imputune.training.finetune import Cell, FinetuneJob, finetune_fold
from imputune.training.pretrain import PretrainJob, pretrain_fold
from imputune.training.schedules import PlateauSchedule

CELLS = {mode: Cell("mlp2", mode, "plateau") for mode in ("frozen", "unfrozen")}


@pytest.fixture
def pretrained(cohort, folds, make_params, heard):
    """Weights of an imputer pretrained on fold 0."""
    weights = pretrain_fold(PretrainJob(cohort, folds[0], make_params()), heard).weights
    heard.epochs.clear()
    return {name: torch.from_numpy(array) for name, array in weights.items()}


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_frozen_imputer_stays_bit_equal_and_unfrozen_moves(cohort, folds, make_params, pretrained, heard, mode):
    """Fine-tuning leaves a frozen imputer as it was pretrained; unfrozen, each of its weights moves."""
    result = finetune_fold(FinetuneJob(cohort, folds[0], make_params(), CELLS[mode], pretrained), heard)
    same = {
        name: np.array_equal(array, pretrained[name])
        for name, array in result.weights.items()
        if name.startswith("imputer.")
    }
    buffers = {name for name in same if "median_gap" in name or "positions" in name}
    moved = {name for name, equal in same.items() if not equal}
    assert moved == (set() if mode == "frozen" else set(same) - buffers)


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_learns_and_predicts_what_it_scored(cohort, folds, make_params, pretrained, heard, mode):
    """A plain signal is learnt; the scores are those of the predictions, and of the best validation epoch."""
    params = make_params(finetune_epochs=40, finetune={"batch_size": 16})
    result = finetune_fold(FinetuneJob(cohort, folds[0], params, CELLS[mode], pretrained), heard)
    assert result.scores["test_auc"] > 0.8
    best = max(row["validation_auc"] for row in result.history)
    assert result.scores["validation_auc"] == pytest.approx(best, abs=1e-12)
    test = result.predictions[result.predictions["partition"] == "test"]
    assert test["stay_id"].tolist() == cohort.stay_ids_N[folds[0].test].tolist()
    assert np.mean((test["risk"] - test["died"]) ** 2) == pytest.approx(result.scores["test_brier"])
    assert len(heard.epochs) == len(result.history)


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_test_stays_change_neither_weights_nor_choice(cohort, folds, make_params, pretrained, heard, mode):
    """With other values and outcomes in the test stays, all that training decides is the same."""
    other_values, other_died = cohort.values_NTD.copy(), cohort.died_N.copy()
    other_values[folds[0].test] *= -3
    other_died[folds[0].test] = 1 - other_died[folds[0].test]
    other = replace(cohort, values_NTD=other_values, died_N=other_died)
    params = make_params()
    ours = finetune_fold(FinetuneJob(cohort, folds[0], params, CELLS[mode], pretrained), heard)
    theirs = finetune_fold(FinetuneJob(other, folds[0], params, CELLS[mode], pretrained), heard)
    for name, array in ours.weights.items():
        np.testing.assert_array_equal(array, theirs.weights[name], err_msg=name)
    assert (ours.history, ours.best_epoch) == (theirs.history, theirs.best_epoch)
    assert ours.scores["test_auc"] != theirs.scores["test_auc"]


def test_cached_representation_gives_what_recomputing_it_gives(
    cohort, folds, make_params, pretrained, heard, monkeypatch
):
    """Reading each stay once and training on what came out predicts as reading it anew for every batch does."""

    class Recomputing(finetune._FrozenTrainer):
        def __init__(self, classifier, *rest):
            super().__init__(classifier, *rest)
            self.classifier, self.represented = classifier, None

        def read(self, part, stays):
            with torch.no_grad():
                return self.classifier.represent(Views.read(*part.batch(stays)))

        def loss(self, part, stays):
            logits = self.module(self.read(part, stays))
            return binary_cross_entropy_with_logits(logits, part.died_N[stays]), logits

        def logits(self, module, part):
            return module(self.read(part, torch.arange(len(part))))

    job = FinetuneJob(cohort, folds[0], make_params(finetune={"batch_size": 16}), CELLS["frozen"], pretrained)
    cached = finetune_fold(job, heard)
    monkeypatch.setattr(finetune, "_FrozenTrainer", Recomputing)
    recomputed = finetune_fold(job, heard)
    assert (cached.best_epoch, len(cached.history)) == (recomputed.best_epoch, len(recomputed.history))
    assert cached.predictions["risk"].std() > 1e-3
    np.testing.assert_allclose(cached.predictions["risk"], recomputed.predictions["risk"], rtol=0, atol=1e-6)


def test_stops_when_validation_stops_improving(cohort, folds, make_params, pretrained, heard):
    """With patience 2 training ends two epochs after the best one."""
    params = make_params(finetune_epochs=300, finetune={"patience": 2})
    result = finetune_fold(FinetuneJob(cohort, folds[0], params, CELLS["frozen"], pretrained), heard)
    assert len(result.history) == result.best_epoch + 3 < 300


def test_learning_rate_falls_on_a_plateau(make_params):
    """The plateau schedule starts at its rate, and cuts it by its factor, never under its minimum."""
    plateau = {"learning_rate": 2e-3, "factor": 0.2, "patience": 1, "min_learning_rate": 1e-4}
    schedules = make_params().schedules
    schedules = schedules.model_copy(update={"plateau": schedules.plateau.model_copy(update=plateau)})
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = PlateauSchedule(optimizer, schedules, rate_share=0.5)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.epoch_ended(validation_loss=1.0)
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 2e-4, 2e-4, 1e-4])


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_same_seed_same_bits(cohort, folds, make_params, pretrained, heard, mode):
    """Two fine-tunings agree in every weight, curve, score and risk, whatever was drawn in between."""
    job = FinetuneJob(cohort, folds[0], make_params(), CELLS[mode], pretrained)
    first = finetune_fold(job, heard)
    torch.rand(3)
    second = finetune_fold(job, heard)
    for name, array in first.weights.items():
        np.testing.assert_array_equal(array, second.weights[name], err_msg=name)
    assert (first.history, first.scores) == (second.history, second.scores)
    pd.testing.assert_frame_equal(first.predictions, second.predictions, check_exact=True)


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
@pytest.mark.parametrize("batch_size", [16, 64])
def test_divergence_is_a_user_error_that_names_the_fold(
    cohort, folds, make_params, pretrained, heard, mode, batch_size
):
    """Training whose loss is no number any more stops with the fold, the epoch and the setting to lower."""
    params = make_params(finetune={"batch_size": batch_size})
    plateau = params.schedules.plateau.model_copy(update={"learning_rate": 1e30})
    params = params.model_copy(update={"schedules": params.schedules.model_copy(update={"plateau": plateau})})
    with pytest.raises(UserError, match=r"fold 0 diverged in epoch [01]: lower the schedule's learning_rate in params"):
        finetune_fold(FinetuneJob(cohort, folds[0], params, CELLS[mode], pretrained), heard)
