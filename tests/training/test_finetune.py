import math
from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.data.directions import Directions
from imputune.errors import UserError
from imputune.protocol.variants import make_variant
from imputune.training import finetune, trainers
from imputune.training.finetune import finetune_fold

VARIANTS = {mode: make_variant("mlp2", mode) for mode in ("frozen", "unfrozen")}


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_frozen_imputer_stays_bit_equal_and_unfrozen_moves(pretrained, make_finetune_job, recorder, mode):
    """Fine-tuning leaves a frozen imputer as it was pretrained; unfrozen, each of its weights moves."""
    result = finetune_fold(make_finetune_job(VARIANTS[mode]), recorder)
    same = {
        name: np.array_equal(array, pretrained[name])
        for name, array in result.weights.items()
        if name.startswith("imputer.")
    }
    buffers = {name for name in same if "median_gap" in name or "positions" in name}
    moved = {name for name, equal in same.items() if not equal}
    assert moved == (set() if mode == "frozen" else set(same) - buffers)


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_learns_and_predicts_what_it_scored(cohort, folds, make_params, make_finetune_job, recorder, mode):
    """A clear signal is learned; the scores belong to the predictions, and to the best validation epoch."""
    params = make_params(finetune_epochs=40, finetune={"batch_size": 16})
    result = finetune_fold(make_finetune_job(VARIANTS[mode], params), recorder)
    assert result.scores["test_auc"] > 0.8
    best = max(row["validation_auc"] for row in result.history)
    assert result.scores["validation_auc"] == pytest.approx(best, abs=1e-12)
    test = result.predictions[result.predictions["split"] == "test"]
    assert test["stay_id"].tolist() == cohort.stay_ids_N[folds[0].test].tolist()
    assert np.mean((test["risk"] - cohort.outcome_of(test["stay_id"].to_numpy())) ** 2) == pytest.approx(
        result.scores["test_brier"]
    )
    assert len(recorder.epochs) == len(result.history)


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_test_stays_change_neither_weights_nor_choice(cohort, folds, make_params, make_finetune_job, recorder, mode):
    """Other values and outcomes in the test stays change no weight, curve or choice."""
    other_values, other_outcome = cohort.values_NTD.copy(), cohort.outcome_N.copy()
    other_values[folds[0].test] *= -3
    other_outcome[folds[0].test] = 1 - other_outcome[folds[0].test]
    other = replace(cohort, values_NTD=other_values, outcome_N=other_outcome)
    params = make_params()
    ours = finetune_fold(make_finetune_job(VARIANTS[mode], params), recorder)
    theirs = finetune_fold(replace(make_finetune_job(VARIANTS[mode], params), cohort=other), recorder)
    for name, array in ours.weights.items():
        np.testing.assert_array_equal(array, theirs.weights[name], err_msg=name)
    assert (ours.history, ours.best_epoch) == (theirs.history, theirs.best_epoch)
    assert ours.scores["test_auc"] != theirs.scores["test_auc"]


@pytest.mark.parametrize("head", ["mlp2", "gru"])
def test_inputs_computed_once_give_what_computing_them_for_every_batch_gives(
    make_params, make_finetune_job, recorder, monkeypatch, head
):
    """Representing each stay once and training on the result predicts like representing it anew for every batch."""
    job = make_finetune_job(make_variant(head), make_params(finetune={"batch_size": 16}))

    class Recomputing(trainers.FrozenTrainer):
        def __init__(self, *, data, **others):
            super().__init__(data=data, **others)
            self.classifier, self.inputs = finetune._FoldAttempts(job, data)._new_classifier(), None

        def read(self, split, stays):
            with torch.no_grad():
                return self.classifier.represent(Directions.of(*split.batch(stays)))

        def loss(self, split, stays):
            logits = self.module(*self.read(split, stays))
            return binary_cross_entropy_with_logits(logits, split.outcome_N[stays]), logits

        def risk(self, split, module=None):
            with torch.no_grad():
                return torch.sigmoid(
                    (module or self.module).eval()(*self.read(split, torch.arange(len(split))))
                ).numpy()

    once = finetune_fold(job, recorder)
    monkeypatch.setattr(finetune, "FrozenTrainer", Recomputing)
    recomputed = finetune_fold(job, recorder)
    assert (once.best_epoch, len(once.history)) == (recomputed.best_epoch, len(recomputed.history))
    assert once.predictions["risk"].std() > 1e-3
    np.testing.assert_allclose(once.predictions["risk"], recomputed.predictions["risk"], rtol=0, atol=1e-6)


def test_of_epochs_with_an_equal_auc_the_lowest_loss_is_kept(cohort, make_params, make_finetune_job, recorder):
    """On records that are easy to tell apart, training goes on while the loss falls, and the risks are learned."""
    values_NTD = cohort.values_NTD.copy()
    values_NTD[:, :, 0] = np.where(cohort.outcome_N == 1, 30, 5)[:, None]
    job = make_finetune_job(VARIANTS["frozen"], make_params(finetune_epochs=60, finetune={"patience": 3}))
    result = finetune_fold(replace(job, cohort=replace(cohort, values_NTD=values_NTD)), recorder)
    perfect = [row for row in result.history if row["validation_auc"] == 1]
    assert len(perfect) > 10
    assert result.history[result.best_epoch] == min(perfect, key=lambda row: row["validation_loss"])
    assert result.history[result.best_epoch]["validation_loss"] < 0.9 * perfect[0]["validation_loss"]
    assert len(result.history) == min(result.best_epoch + 4, 60)


def test_stops_when_validation_stops_improving(make_params, make_finetune_job, recorder):
    """With patience 2 training ends two epochs after the best one."""
    params = make_params(finetune_epochs=300, finetune={"patience": 2})
    result = finetune_fold(make_finetune_job(VARIANTS["frozen"], params), recorder)
    assert len(result.history) == result.best_epoch + 3 < 300


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_same_seed_same_bits(make_finetune_job, recorder, mode):
    """Two fine-tunings agree in every weight, curve, score and risk, whatever was drawn in between."""
    job = make_finetune_job(VARIANTS[mode])
    first = finetune_fold(job, recorder)
    torch.rand(3)
    second = finetune_fold(job, recorder)
    for name, array in first.weights.items():
        np.testing.assert_array_equal(array, second.weights[name], err_msg=name)
    assert (first.history, first.scores) == (second.history, second.scores)
    pd.testing.assert_frame_equal(first.predictions, second.predictions, check_exact=True)


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
@pytest.mark.parametrize("batch_size", [16, 64])
def test_divergence_is_a_user_error_that_names_the_fold(make_params, make_finetune_job, recorder, mode, batch_size):
    """If a loss is not finite, training stops and names the fold, the epoch and the setting to lower."""
    params = make_params(finetune={"batch_size": batch_size})
    plateau = params.schedules.plateau.model_copy(update={"learning_rate": 1e30})
    params = params.model_copy(update={"schedules": params.schedules.model_copy(update={"plateau": plateau})})
    with pytest.raises(UserError, match=r"fold 0 diverged in epoch [01]: lower the rates of schedules\.plateau"):
        finetune_fold(make_finetune_job(VARIANTS[mode], params), recorder)


def test_a_search_passes_over_rates_at_which_training_diverges(make_params, make_finetune_job, recorder):
    """Some of the trials diverge and are recorded as pruned; the head is trained at the best of the other rates."""
    params = make_params()
    wide = params.schedules.optuna.model_copy(update={"lowest_rate": 1e-3, "highest_rate": 1e30, "trials": 6})
    params = params.model_copy(update={"schedules": params.schedules.model_copy(update={"optuna": wide})})
    result = finetune_fold(make_finetune_job(make_variant("mlp2", "frozen", None, "optuna"), params), recorder)
    diverged = [trial for trial in result.trials if trial.validation_loss == math.inf]
    assert {trial.state for trial in diverged} == {"pruned"}
    assert 0 < len(diverged) < len(result.trials) == len(recorder.trials)
    assert result.learning_rate in {trial.learning_rate for trial in result.trials if trial not in diverged}


EVERY_HEAD = [("mlp5", "hidden"), ("lstm", "imputed"), ("lstm", "raw"), ("gru", "imputed"), ("gru", "raw")]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
@pytest.mark.parametrize(("head", "reads"), EVERY_HEAD)
def test_every_head_learns_in_both_modes(make_finetune_job, make_params, recorder, head, reads, mode):
    """Every head learns a clear signal; a frozen imputer stays as it was, an unfrozen one moves."""
    params = make_params(finetune_epochs=30, finetune={"batch_size": 16})
    job = make_finetune_job(make_variant(head, mode, reads), params)
    result = finetune_fold(job, recorder)
    assert result.scores["test_auc"] > 0.75
    same = [
        np.array_equal(array, job.pretrained[name])
        for name, array in result.weights.items()
        if name.startswith("imputer.") and "median_gap" not in name and "positions" not in name
    ]
    assert all(same) if mode == "frozen" else not any(same)


@pytest.mark.parametrize(("reads", "size"), [("hidden_both", 16), ("hidden_pooled", 32)])
def test_frozen_and_unfrozen_heads_read_the_same_further_state(make_finetune_job, make_params, recorder, reads, size):
    """A frozen head learns a clear signal; at a rate of almost 0, unfrozen training predicts what it started from."""
    keys = {"batch_size": 16, "unfrozen_rate_factor": 1e-9, "unfrozen_average_decay": 0.0}
    params = make_params(finetune_epochs=30, finetune=keys)
    frozen_variant, unfrozen_variant = (make_variant("mlp2", mode, reads) for mode in ("frozen", "unfrozen"))
    frozen = finetune_fold(make_finetune_job(frozen_variant, params), recorder)
    assert frozen.weights["head.layers.0.weight"].shape[1] == size
    assert frozen.scores["validation_auc"] + frozen.scores["test_auc"] > 2 * 0.75  # 36 stays; 18 alone vary too much
    unfrozen = finetune_fold(make_finetune_job(unfrozen_variant, params, frozen=frozen), recorder)
    np.testing.assert_allclose(unfrozen.predictions["risk"], frozen.predictions["risk"], atol=1e-4)


def test_unfrozen_training_masks_whole_variables_by_its_setting(make_finetune_job, make_params, recorder):
    """It changes unfrozen training, and frozen training not at all."""
    for mode, same in (("frozen", True), ("unfrozen", False)):
        without, masked = (
            finetune_fold(make_finetune_job(VARIANTS[mode], make_params(finetune=keys)), recorder).history
            for keys in ({}, {"variable_masking": 0.3})
        )
        assert (without == masked) == same


def test_unfrozen_training_starts_from_the_frozen_variants_head(make_finetune_job, recorder):
    """Unfrozen training gives the same bits whether it gets the frozen variant's result or trains that head itself."""
    frozen = finetune_fold(make_finetune_job(VARIANTS["frozen"]), recorder)
    given = finetune_fold(make_finetune_job(VARIANTS["unfrozen"], frozen=frozen), recorder)
    alone = finetune_fold(make_finetune_job(VARIANTS["unfrozen"]), recorder)
    for name, array in given.weights.items():
        np.testing.assert_array_equal(array, alone.weights[name], err_msg=name)
    assert given.history == alone.history
    assert given.seconds > frozen.seconds
    other = {name: array + 1 if name.startswith("head.") else array for name, array in frozen.weights.items()}
    changed = finetune_fold(make_finetune_job(VARIANTS["unfrozen"], frozen=replace(frozen, weights=other)), recorder)
    assert changed.history != given.history


def test_without_early_stopping_every_epoch_is_trained(make_finetune_job, make_params, recorder):
    """Every epoch of the budget is trained despite patience 1; the kept epoch is still the best on validation."""
    params = make_params(finetune_epochs=30, finetune={"patience": 1})
    result = finetune_fold(make_finetune_job(VARIANTS["frozen"], params, early_stopping=False), recorder)
    assert len(result.history) == 30
    assert result.scores["validation_auc"] == pytest.approx(max(row["validation_auc"] for row in result.history))


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_search_reports_its_trials_and_trains_at_the_rate_it_found(
    make_finetune_job, make_params, recorder, monkeypatch, mode
):
    """The recorder gets every trial; the rate of the lowest validation loss trains the fold.

    The study's name decides the Hyperband brackets, and so the results.
    """
    params = make_params(finetune_epochs=9)
    fewer = params.schedules.optuna.model_copy(update={"trials": 6})
    params = params.model_copy(update={"schedules": params.schedules.model_copy(update={"optuna": fewer})})
    variant = make_variant("mlp2", mode, None, "optuna")
    names = []

    def create_study(**options):
        names.append(options["study_name"])
        return created(**options)

    created = optuna.create_study
    monkeypatch.setattr(optuna, "create_study", create_study)
    result = finetune_fold(make_finetune_job(variant, params), recorder)
    assert [trial.number for _, trial in recorder.trials] == list(range(6))
    assert result.trials == [trial for _, trial in recorder.trials]
    assert result.learning_rate == min(result.trials, key=lambda trial: trial.validation_loss).learning_rate
    assert names[-1:] == [f"mlp2-{mode}-hidden-optuna-fold-0"]
    given = finetune_fold(make_finetune_job(variant, params, learning_rate=result.learning_rate), recorder)
    assert (given.history, given.trials) == (result.history, [])
