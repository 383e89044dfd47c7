import numpy as np
import pytest
import torch

from imputune.data.splits import dealt_anew, fit_and_divide
from imputune.imputers.build import (
    new_csai,
    new_imputer,
    represent,
    saved_imputer,
)
from imputune.imputers.interface import Representation
from imputune.models.weights import module_weights
from imputune.protocol.variants import make_cell
from imputune.training.head_inputs import hidden_of, read_by
from imputune.training.pretrain import PretrainJob, pretrain_fold, training_of


@pytest.fixture
def data(cohort, folds):
    """The first fold."""
    return fit_and_divide(cohort, folds[0], 0.001)


def test_each_head_reads_its_input(data):
    """Perceptrons read hidden states or flat series, recurrent heads a series begun in hidden states or in zeros."""
    part = data.test
    made = Representation(torch.full((18, 6, 4), 2.0), torch.ones(18, 8))
    without = Representation(made.imputed_BTD)

    def read(head, reads, imputer, representation):
        return read_by(make_cell(head, input=reads, imputer=imputer), representation, part, 8)

    assert read("mlp2", "hidden", "csai", made)[0] is made.hidden_BH
    [flat] = read("mlp2", "imputed", "mean", without)
    assert flat.shape == (18, 24)
    hidden, series = read("gru", "imputed", "mean", without)
    assert torch.equal(hidden, torch.zeros(18, 8))
    assert series is made.imputed_BTD
    hidden, series = read("gru", "raw", "csai", made)
    assert hidden is made.hidden_BH
    assert series is part.values_NTD
    with pytest.raises(ValueError, match="saits must have a hidden state"):
        hidden_of(make_cell("mlp2", imputer="saits"), without)


def test_a_saved_imputer_is_the_one_that_was_pretrained(cohort, folds, data, make_params, heard):
    """Loaded from its weights, CSAI represents stays as before; loading draws from no generator that others use."""
    params = make_params()
    result = pretrain_fold(PretrainJob(cohort, folds[0], params), heard)
    weights = {name: torch.from_numpy(array) for name, array in result.weights.items()}
    torch.manual_seed(7)
    loaded = saved_imputer("csai", cohort.values_NTD.shape, params, weights)
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(7)))
    for name, array in module_weights("imputer", loaded.module).items():
        np.testing.assert_array_equal(array, result.weights[name])
    visible = represent(loaded, data.test)
    assert visible.imputed_BTD.shape == (18, 6, 4)
    assert visible.hidden_BH.shape == (18, 8)


@pytest.mark.parametrize("name", ["mean", "locf", "linear", "csai_untrained"])
def test_what_learns_nothing_is_scored_alone(cohort, folds, data, make_params, heard, name):
    """It has no epochs and no curves, but errors on held-out cells; untrained CSAI keeps its first weights."""
    params = make_params()
    result = pretrain_fold(PretrainJob(cohort, folds[0], params, name), heard)
    assert (result.history, heard.epochs) == ([], [])
    assert result.scores["test_mae_non_uniform"] > 0
    assert {row["imputer"] for row in result.imputation} == {name}
    if name == "csai_untrained":
        for weight, array in module_weights("imputer", new_csai(data, params)).items():
            np.testing.assert_array_equal(result.weights[weight], array)


def test_shuffled_stays_keep_each_variable_and_lose_the_patient(data):
    """Every variable's series are the same ones, with other stays' beside them; a deal is its generator's."""
    dealt = dealt_anew(data.train, torch.Generator().manual_seed(1))
    for d in range(4):
        before, after = (sorted(map(tuple, part.values_NTD[..., d].tolist())) for part in (data.train, dealt))
        assert before == after
    first, second = (
        [data.train.values_NTD[..., d].tolist().index(series) for series in dealt.values_NTD[:, :, d].tolist()]
        for d in (0, 1)
    )
    assert sum(one == other for one, other in zip(first, second, strict=True)) < len(first) / 4
    assert torch.equal(dealt.died_N, data.train.died_N)


def test_the_shuffled_control_trains_and_chooses_on_dealt_stays_alone(data, make_params):
    """Neither the stays it learns from nor those that choose its epoch are patients; the fold stays as it was."""
    params = make_params()
    training = training_of("csai_shuffled", new_imputer("csai_shuffled", data, params), data, params)
    for mine, real in ((training.train, data.train), (training.validation, data.validation)):
        assert not torch.equal(mine.values_NTD, real.values_NTD)
        assert torch.equal(mine.observed_NTD.sum(dim=(0, 1)), real.observed_NTD.sum(dim=(0, 1)))
    csai = training_of("csai", new_imputer("csai", data, params), data, params)
    assert csai.train is data.train


def test_an_imputer_of_pypots_learns_through_the_same_door(cohort, folds, make_params, heard):
    """Its curve has a validation error for every epoch; the best epoch's weights are kept, and give the same again."""
    pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")
    params = make_params(pretrain_epochs=3)
    job = PretrainJob(cohort, folds[0], params, "grud")
    result, again = pretrain_fold(job, heard), pretrain_fold(job, heard)
    errors = [row["validation_mae"] for row in result.history]
    assert len(errors) == 3
    assert result.best_epoch == int(np.argmin(errors))
    assert result.scores["validation_mae_non_uniform"] == pytest.approx(min(errors), abs=1e-5)
    assert result.scores == again.scores
    weights = {name: torch.from_numpy(array) for name, array in result.weights.items()}
    loaded = saved_imputer("grud", cohort.values_NTD.shape, params, weights)
    assert torch.isfinite(represent(loaded, fit_and_divide(cohort, folds[0], 0.001).test).imputed_BTD).all()
