from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.data.directions import Views
from imputune.errors import UserError
from imputune.protocol.variants import make_cell
from imputune.training import finetune, trainers
from imputune.training.finetune import FinetuneJob, finetune_fold
from imputune.training.non_neural import baseline_fold
from imputune.training.pretrain import PretrainJob, pretrain_fold

CELLS = {mode: make_cell("mlp2", mode) for mode in ("frozen", "unfrozen")}


@pytest.fixture
def pretrained(cohort, folds, make_params, heard):
    """Weights of an imputer pretrained on fold 0."""
    weights = pretrain_fold(PretrainJob(cohort, folds[0], make_params()), heard).weights
    heard.epochs.clear()
    return {name: torch.from_numpy(array) for name, array in weights.items()}


@pytest.fixture
def job_of(cohort, folds, make_params, pretrained, tmp_path):
    """Return fold 0 of a cell as a job, with the project's parameters or others."""

    def make(cell, params=None, **rest):
        return FinetuneJob(cohort, folds[0], params or make_params(), cell, pretrained, tmp_path, **rest)

    return make


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_frozen_imputer_stays_bit_equal_and_unfrozen_moves(cohort, folds, make_params, pretrained, job_of, heard, mode):
    """Fine-tuning leaves a frozen imputer as it was pretrained; unfrozen, each of its weights moves."""
    result = finetune_fold(job_of(CELLS[mode]), heard)
    same = {
        name: np.array_equal(array, pretrained[name])
        for name, array in result.weights.items()
        if name.startswith("imputer.")
    }
    buffers = {name for name in same if "median_gap" in name or "positions" in name}
    moved = {name for name, equal in same.items() if not equal}
    assert moved == (set() if mode == "frozen" else set(same) - buffers)


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_learns_and_predicts_what_it_scored(cohort, folds, make_params, pretrained, job_of, heard, mode):
    """A plain signal is learnt; the scores are those of the predictions, and of the best validation epoch."""
    params = make_params(finetune_epochs=40, finetune={"batch_size": 16})
    result = finetune_fold(job_of(CELLS[mode], params), heard)
    assert result.scores["test_auc"] > 0.8
    best = max(row["validation_auc"] for row in result.history)
    assert result.scores["validation_auc"] == pytest.approx(best, abs=1e-12)
    test = result.predictions[result.predictions["partition"] == "test"]
    assert test["stay_id"].tolist() == cohort.stay_ids_N[folds[0].test].tolist()
    assert np.mean((test["risk"] - cohort.died(test["stay_id"].to_numpy())) ** 2) == pytest.approx(
        result.scores["test_brier"]
    )
    assert len(heard.epochs) == len(result.history)


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_test_stays_change_neither_weights_nor_choice(cohort, folds, make_params, pretrained, job_of, heard, mode):
    """With other values and outcomes in the test stays, all that training decides is the same."""
    other_values, other_died = cohort.values_NTD.copy(), cohort.died_N.copy()
    other_values[folds[0].test] *= -3
    other_died[folds[0].test] = 1 - other_died[folds[0].test]
    other = replace(cohort, values_NTD=other_values, died_N=other_died)
    params = make_params()
    ours = finetune_fold(job_of(CELLS[mode], params), heard)
    theirs = finetune_fold(replace(job_of(CELLS[mode], params), cohort=other), heard)
    for name, array in ours.weights.items():
        np.testing.assert_array_equal(array, theirs.weights[name], err_msg=name)
    assert (ours.history, ours.best_epoch) == (theirs.history, theirs.best_epoch)
    assert ours.scores["test_auc"] != theirs.scores["test_auc"]


def test_cached_representation_gives_what_recomputing_it_gives(cohort, folds, make_params, job_of, heard, monkeypatch):
    """Reading each stay once and training on what came out predicts as reading it anew for every batch does."""

    class Recomputing(trainers.FrozenTrainer):
        def __init__(self, *parts):
            super().__init__(*parts)
            self.classifier, self.represented = finetune._Attempts(job, parts[1])._new_classifier(), None

        def read(self, part, stays):
            with torch.no_grad():
                return self.classifier.represent(Views.read(*part.batch(stays)))

        def loss(self, part, stays):
            logits = self.module(*self.read(part, stays))
            return binary_cross_entropy_with_logits(logits, part.died_N[stays]), logits

        def risk(self, part, module=None):
            with torch.no_grad():
                return torch.sigmoid((module or self.module).eval()(*self.read(part, torch.arange(len(part))))).numpy()

    for head in ("mlp2", "gru"):
        job = job_of(make_cell(head), make_params(finetune={"batch_size": 16}))
        cached = finetune_fold(job, heard)
        with monkeypatch.context() as patched:
            patched.setattr(finetune, "FrozenTrainer", Recomputing)
            recomputed = finetune_fold(job, heard)
        assert (cached.best_epoch, len(cached.history)) == (recomputed.best_epoch, len(recomputed.history))
        assert cached.predictions["risk"].std() > 1e-3
        np.testing.assert_allclose(cached.predictions["risk"], recomputed.predictions["risk"], rtol=0, atol=1e-6)


def test_stops_when_validation_stops_improving(cohort, folds, make_params, pretrained, job_of, heard):
    """With patience 2 training ends two epochs after the best one."""
    params = make_params(finetune_epochs=300, finetune={"patience": 2})
    result = finetune_fold(job_of(CELLS["frozen"], params), heard)
    assert len(result.history) == result.best_epoch + 3 < 300


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_same_seed_same_bits(cohort, folds, make_params, pretrained, job_of, heard, mode):
    """Two fine-tunings agree in every weight, curve, score and risk, whatever was drawn in between."""
    job = job_of(CELLS[mode])
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
    cohort, folds, make_params, pretrained, job_of, heard, mode, batch_size
):
    """Training whose loss is no number any more stops with the fold, the epoch and the setting to lower."""
    params = make_params(finetune={"batch_size": batch_size})
    plateau = params.schedules.plateau.model_copy(update={"learning_rate": 1e30})
    params = params.model_copy(update={"schedules": params.schedules.model_copy(update={"plateau": plateau})})
    with pytest.raises(UserError, match=r"fold 0 diverged in epoch [01]: lower the rates of schedules\.plateau"):
        finetune_fold(job_of(CELLS[mode], params), heard)


EVERY_HEAD = [("mlp5", "hidden"), ("lstm", "imputed"), ("lstm", "raw"), ("gru", "imputed"), ("gru", "raw")]


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
@pytest.mark.parametrize(("head", "reads"), EVERY_HEAD)
def test_every_head_learns_in_both_modes(cohort, job_of, make_params, heard, head, reads, mode):
    """A plain signal is learnt by every head; a frozen imputer stays as it was, an unfrozen one moves."""
    params = make_params(finetune_epochs=30, finetune={"batch_size": 16})
    job = job_of(make_cell(head, mode, reads), params)
    result = finetune_fold(job, heard)
    assert result.scores["test_auc"] > 0.75
    same = [
        np.array_equal(array, job.pretrained[name])
        for name, array in result.weights.items()
        if name.startswith("imputer.") and "median_gap" not in name and "positions" not in name
    ]
    assert all(same) if mode == "frozen" else not any(same)


def test_unfrozen_training_starts_from_the_frozen_cells_head(job_of, make_params, heard):
    """Given the frozen cell's result or left to train that head itself, unfrozen training is bit for bit the same."""
    frozen = finetune_fold(job_of(CELLS["frozen"]), heard)
    given = finetune_fold(job_of(CELLS["unfrozen"], frozen=frozen), heard)
    alone = finetune_fold(job_of(CELLS["unfrozen"]), heard)
    for name, array in given.weights.items():
        np.testing.assert_array_equal(array, alone.weights[name], err_msg=name)
    assert given.history == alone.history
    assert given.seconds > frozen.seconds
    other = {name: array + 1 if name.startswith("head.") else array for name, array in frozen.weights.items()}
    changed = finetune_fold(job_of(CELLS["unfrozen"], frozen=replace(frozen, weights=other)), heard)
    assert changed.history != given.history


def test_without_early_stopping_every_epoch_is_trained(job_of, make_params, heard):
    """The whole budget runs, whatever patience says; the kept epoch is still the best on validation."""
    params = make_params(finetune_epochs=30, finetune={"patience": 1})
    result = finetune_fold(job_of(CELLS["frozen"], params, early_stopping=False), heard)
    assert len(result.history) == 30
    assert result.scores["validation_auc"] == pytest.approx(max(row["validation_auc"] for row in result.history))


@pytest.mark.parametrize("mode", ["frozen", "unfrozen"])
def test_search_reports_its_trials_and_trains_at_the_rate_it_found(job_of, make_params, heard, tmp_path, mode):
    """Every trial is heard with its curve; the rate of the lowest validation loss trains the fold, and is kept."""
    params = make_params(finetune_epochs=9)
    optuna = params.schedules.optuna.model_copy(update={"trials": 6})
    params = params.model_copy(update={"schedules": params.schedules.model_copy(update={"optuna": optuna})})
    cell = make_cell("mlp2", mode, None, "optuna")
    result = finetune_fold(job_of(cell, params), heard)
    assert [trial.number for _, trial in heard.trials] == list(range(6))
    assert result.trials == [trial for _, trial in heard.trials]
    assert result.learning_rate == min(result.trials, key=lambda trial: trial.validation_loss).learning_rate
    given = finetune_fold(job_of(cell, params, learning_rate=result.learning_rate), heard)
    assert (given.history, given.trials) == (result.history, [])


@pytest.mark.parametrize("head", ["xgboost", "svm"])
@pytest.mark.parametrize("reads", ["hidden", "imputed", "summary"])
def test_shallow_heads_learn_and_never_see_test_outcomes(cohort, folds, job_of, make_params, heard, head, reads):
    """A plain signal is learnt from each input; other outcomes of the test stays change their scores alone."""
    job = job_of(make_cell(head, None, reads))
    result = baseline_fold(job, heard)
    assert result.scores["test_auc"] > 0.75
    risk = result.predictions["risk"]
    assert risk.between(0, 1).all()
    assert abs(risk.mean() - cohort.died_N.mean()) < 0.15
    other_died = cohort.died_N.copy()
    other_died[folds[0].test] = 1 - other_died[folds[0].test]
    other = baseline_fold(replace(job, cohort=replace(cohort, died_N=other_died)), heard)
    assert other.predictions["risk"].tolist() == risk.tolist()
    assert other.scores["test_auc"] == pytest.approx(1 - result.scores["test_auc"])


def test_shallow_heads_on_statistics_do_not_read_the_imputer(job_of, heard):
    """Input `summary` gives the same risks on an imputer of other weights, input `hidden` does not."""
    for reads, same in (("summary", True), ("hidden", False)):
        job = job_of(make_cell("svm", None, reads))
        other = {name: tensor * 1.5 if name == "imputer.history" else tensor for name, tensor in job.pretrained.items()}
        risks = [baseline_fold(each, heard).predictions["risk"] for each in (job, replace(job, pretrained=other))]
        assert risks[0].equals(risks[1]) == same
