import numpy as np
import pytest
import torch

from imputune.imputers.plain import PlainImputer
from imputune.models.plain_rules import PLAIN_RULES


@pytest.mark.parametrize("name", PLAIN_RULES)
def test_represents_the_series_as_its_rule_fills_it(name):
    """Observed cells stay, missing cells follow the rule, and values under observed = 0 have no effect."""
    random = np.random.default_rng(0)
    values = torch.from_numpy(random.normal(size=(5, 8, 3)).astype(np.float32))
    observed = torch.from_numpy((random.random((5, 8, 3)) < 0.5).astype(np.float32))
    representation = PlainImputer(name).represent(values, observed)
    with_nan = np.where(observed > 0, values, np.nan)
    np.testing.assert_array_equal(
        representation.imputed_BTD, np.where(observed > 0, values, PLAIN_RULES[name](with_nan))
    )
    assert representation.hidden_BH is None
    other = torch.where(observed > 0, values, 99.0)
    assert torch.equal(PlainImputer(name).represent(other, observed).imputed_BTD, representation.imputed_BTD)


@pytest.mark.parametrize("name", PLAIN_RULES)
def test_a_stay_with_nothing_observed_is_all_training_means(name):
    """A stay without observations becomes 0, the training mean of standardised values."""
    representation = PlainImputer(name).represent(torch.full((1, 8, 3), 7.0), torch.zeros(1, 8, 3))
    assert torch.equal(representation.imputed_BTD, torch.zeros(1, 8, 3))
