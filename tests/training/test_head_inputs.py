import pytest
import torch

from imputune.data.splits import fit_and_split
from imputune.imputers.interface import Representation
from imputune.protocol.variants import make_variant
from imputune.training.head_inputs import head_inputs, hidden_states


def test_each_head_reads_its_input(cohort, folds):
    """MLPs read hidden states or flattened series; recurrent heads a series, and hidden states or zeros."""
    values = fit_and_split(cohort, folds[0], 0.001).test.values_NTD
    with_hidden = Representation(torch.full((18, 6, 4), 2.0), torch.ones(18, 8))
    without_hidden = Representation(with_hidden.imputed_BTD)

    def read(head, reads, imputer, representation):
        return head_inputs(make_variant(head, input=reads, imputer=imputer), representation, values, 8)

    assert read("mlp2", "hidden", "csai", with_hidden)[0] is with_hidden.hidden_BH
    [flat] = read("mlp2", "imputed", "mean", without_hidden)
    assert flat.shape == (18, 24)
    hidden, series = read("gru", "imputed", "mean", without_hidden)
    assert torch.equal(hidden, torch.zeros(18, 8))
    assert series is with_hidden.imputed_BTD
    hidden, series = read("gru", "raw", "csai", with_hidden)
    assert hidden is with_hidden.hidden_BH
    assert series is values
    with pytest.raises(ValueError, match="saits must have a hidden state"):
        hidden_states(make_variant("mlp2", imputer="saits"), without_hidden)
