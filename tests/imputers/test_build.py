import numpy as np
import pytest
import torch

from imputune.data.splits import fit_and_split
from imputune.imputers.build import new_csai, new_imputer, represent, saved_imputer
from imputune.models.weights import module_weights
from imputune.training.pretrain import PretrainJob, pretrain_fold


def test_a_saved_imputer_is_the_one_that_was_pretrained(cohort, folds, make_params, recorder):
    """Loading puts the saved weights into a new CSAI, and draws nothing from the global generator."""
    params = make_params()
    result = pretrain_fold(PretrainJob(cohort=cohort, fold=folds[0], params=params), recorder)
    weights = {name: torch.from_numpy(array) for name, array in result.weights.items()}
    torch.manual_seed(7)
    loaded = saved_imputer("csai", cohort.values_NTD.shape, params, weights)
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(7)))
    for name, array in module_weights("imputer", loaded.module).items():
        np.testing.assert_array_equal(array, result.weights[name])
    visible = represent(loaded, fit_and_split(cohort, folds[0], 0.001).test)
    assert visible.imputed_BTD.shape == (18, 6, 4)
    assert visible.hidden_BH.shape == (18, 8)


def test_sizes_in_params_reach_the_networks_of_pypots(cohort, folds, make_params):
    """SAITS is built with the sizes of its section, BRITS with CSAI's hidden size."""
    pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")
    saits = {"n_layers": 1, "n_heads": 3, "d_k": 4, "d_v": 4, "d_ffn": 10}
    params = make_params(pypots={"saits": saits})
    data = fit_and_split(cohort, folds[0], 0.001)
    built = new_imputer("saits", data, params).model
    assert {name: getattr(built, name) for name in saits} == saits
    assert built.d_model == 12
    assert new_imputer("brits", data, params).model.rnn_hidden_size == params.csai.hidden_size == 8


def test_initial_weights_depend_on_the_fold_and_nothing_else(cohort, folds, make_params):
    """The same fold gives the same initial weights whatever was drawn before; another fold gives others."""
    params = make_params()
    first, again, other = (
        new_csai(fit_and_split(cohort, folds[fold], 0.001), params).history.tolist() for fold in (0, 0, 1)
    )
    assert first == again != other


def test_only_visible_cells_are_represented(cohort, folds, make_params):
    """With a mask of visible cells, the other observed cells have no effect."""
    data = fit_and_split(cohort, folds[0], 0.001)
    imputer = new_imputer("csai", data, make_params())
    visible_NTD = data.test.observed_NTD.clone()
    visible_NTD[:, 2] = False
    before = represent(imputer, data.test, visible_NTD)
    data.test.values_NTD[:, 2] = 9.0
    assert torch.equal(represent(imputer, data.test, visible_NTD).imputed_BTD, before.imputed_BTD)
    assert not torch.equal(represent(imputer, data.test).imputed_BTD, before.imputed_BTD)
