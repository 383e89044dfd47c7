import pytest
import torch

from imputune.errors import UserError
from imputune.imputers.interface import sealed


def test_what_is_no_number_is_refused():
    """An estimate that is no number in a hole is an error that names the imputer; under an observed cell it is none."""
    values, observed = torch.ones(1, 2, 1), torch.tensor([[[1.0], [0.0]]])
    estimate = torch.tensor([[[torch.nan], [2.0]]])
    assert sealed("saits", values, observed, estimate).imputed_BTD.flatten().tolist() == [1.0, 2.0]
    with pytest.raises(UserError, match="imputer saits gave values that are no numbers"):
        sealed("saits", values, observed, estimate.flip(1))
    with pytest.raises(UserError, match="imputer saits gave values that are no numbers"):
        sealed("saits", values, observed, torch.ones(1, 2, 1), torch.tensor([[torch.inf]]))
