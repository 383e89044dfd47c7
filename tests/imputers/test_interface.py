import pytest
import torch

from imputune.errors import UserError
from imputune.imputers.interface import checked_representation


def test_values_that_are_not_finite_are_refused():
    """NaN in a missing cell, or infinity in a hidden state, is an error; NaN under an observed cell is not."""
    values, observed = torch.ones(1, 2, 1), torch.tensor([[[1.0], [0.0]]])
    estimate = torch.tensor([[[torch.nan], [2.0]]])
    assert checked_representation("saits", values, observed, estimate).imputed_BTD.flatten().tolist() == [1.0, 2.0]
    with pytest.raises(UserError, match="imputer saits gave values that are not finite"):
        checked_representation("saits", values, observed, estimate.flip(1))
    with pytest.raises(UserError, match="imputer saits gave values that are not finite"):
        checked_representation("saits", values, observed, torch.ones(1, 2, 1), torch.tensor([[torch.inf]]))
