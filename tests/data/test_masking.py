import numpy as np
import pytest
import torch

from imputune.data.masking import draw_mask, draw_variable_mask, masking_rates

OBSERVED_COUNTS = [10, 20, 60]


def test_non_uniform_rates_by_hand() -> None:
    """With 10, 20 and 60 observations the formula gives 0.15, 0.075 and 0.4, all then scaled by 1 / 3."""
    # mean 30: 0.1 * (30/10) * 0.5 = 0.15; 0.1 * (30/20) * 0.5 = 0.075; 0.1 * (60/30) / 0.5 = 0.4.
    # Expected rate (0.15 * 10 + 0.075 * 20 + 0.4 * 60) / 90 = 0.3, so a third of each gives 0.1.
    rate_D = masking_rates(np.array(OBSERVED_COUNTS), "non_uniform", 0.1, 0.5)
    np.testing.assert_allclose(rate_D, [0.05, 0.025, 0.4 / 3], rtol=1e-12)


def test_variable_observed_as_often_as_the_mean_counts_as_frequent() -> None:
    """At n_v = n the rule is p * (n_v / n) / f: with 10, 20, 30 observations the rates are as 0.1, 0.2 and 0.3."""
    rate_D = masking_rates(np.array([10, 20, 30]), "non_uniform", 0.1, 0.5)
    np.testing.assert_allclose(rate_D / rate_D[1], [0.5, 1, 1.5], rtol=1e-12)


@pytest.mark.parametrize("counts", [[10, 20, 60], [1, 1, 1], [1, 2, 1000], [1000, 1000, 1], [0, 5, 700], [3, 0, 0]])
@pytest.mark.parametrize("pattern", ["non_uniform", "uniform"])
def test_expected_rate_is_exact(counts: list[int], pattern: str) -> None:
    """Whatever the counts, the expected fraction of masked cells is 0.10, and every rate is in [0, 1]."""
    rate_D = masking_rates(np.array(counts), pattern, 0.1, 0.5)
    assert (rate_D * counts).sum() / sum(counts) == pytest.approx(0.1, abs=1e-9)
    assert rate_D.min() >= 0
    assert rate_D.max() <= 1


def test_rates_are_cut_at_1_and_the_others_raised() -> None:
    """With rate 0.8 the frequent variable is masked completely, and the other two give the rest."""
    # mean 30: min(1.2, 1) = 1, 0.6 and 3.2, scaled by 72 / (10 + 12 + 192) to 0.336, 0.202 and 1.077, which is cut.
    # Left to mask are 72 - 60 = 12 of 10 * 1 + 20 * 0.6 = 22: a factor of 6 / 11.
    rate_D = masking_rates(np.array(OBSERVED_COUNTS), "non_uniform", 0.8, 0.5)
    np.testing.assert_allclose(rate_D, [6 / 11, 3.6 / 11, 1], rtol=1e-12)


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("counts", [[1, 30, 40, 1000], [900, 950, 1000], [0, 1, 999]])
def test_large_rates_are_exact(counts: list[int], rate: float) -> None:
    """However large the rate, the expected fraction is exact and every rate is in [0, 1]."""
    rate_D = masking_rates(np.array(counts), "non_uniform", rate, 0.5)
    assert rate_D.min() >= 0
    assert rate_D.max() <= 1
    assert (rate_D * counts).sum() / sum(counts) == pytest.approx(rate, abs=1e-9)


def test_uniform_rates_are_the_rate() -> None:
    """The uniform pattern gives each observed variable the rate itself, and a variable never observed 0."""
    assert masking_rates(np.array([10, 0, 60]), "uniform", 0.1, 0.5).tolist() == [0.1, 0, 0.1]


@pytest.mark.parametrize("pattern", ["non_uniform", "uniform"])
def test_never_observed_variable_has_rate_0(pattern: str) -> None:
    """A variable never observed in training is never masked; with nothing observed, all rates are 0."""
    rate_D = masking_rates(np.array([10, 0, 60]), pattern, 0.1, 0.5)
    assert rate_D[1] == 0
    assert np.isfinite(rate_D).all()
    assert masking_rates(np.array([0, 0]), pattern, 0.1, 0.5).tolist() == [0, 0]


def test_only_observed_cells_are_masked() -> None:
    """A masked cell is observed: rate 1 masks exactly the observed cells, rate 0 none."""
    observed = (torch.rand((5, 7, 3), generator=torch.Generator().manual_seed(0)) < 0.5).float()
    mask = draw_mask(observed, torch.tensor([1.0, 0.0, 0.5]), torch.Generator().manual_seed(1))
    assert torch.equal(mask[..., 0], observed[..., 0])
    assert mask[..., 1].sum() == 0
    assert 0 < mask[..., 2].sum() < observed[..., 2].sum()
    assert (mask * (1 - observed)).sum() == 0
    assert mask.dtype == observed.dtype


def test_same_generator_same_masks() -> None:
    """The same seed gives the same sequence of different masks; another seed gives other masks."""
    observed, rate_D = torch.ones((10, 20, 2)), torch.tensor([0.3, 0.6])
    first, again, other = (torch.Generator().manual_seed(seed) for seed in (7, 7, 8))
    masks, repeated = ([draw_mask(observed, rate_D, generator) for _ in range(2)] for generator in (first, again))
    assert torch.equal(masks[0], repeated[0])
    assert torch.equal(masks[1], repeated[1])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], draw_mask(observed, rate_D, other))


def test_masking_does_not_use_the_global_generator() -> None:
    """Drawing masks uses only the given generator."""
    before = torch.get_rng_state()
    draw_mask(torch.ones((3, 4, 2)), torch.tensor([0.3, 0.6]), torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_masked_fractions_are_the_rates() -> None:
    """Over 100,000 observed cells per variable, the masked fraction is its rate to within five standard errors."""
    rate_D = torch.tensor([0.02, 0.1, 0.7])
    mask = draw_mask(torch.ones((2000, 50, 3)), rate_D, torch.Generator().manual_seed(2012))
    error = (mask.mean(dim=(0, 1)) - rate_D).abs()
    assert (error < 5 * (rate_D * (1 - rate_D) / 100_000).sqrt()).all()


def test_whole_variables_of_a_stay_are_masked() -> None:
    """All observed cells of a series are masked or none, at the rate; rate 0 masks none."""
    observed = (torch.rand((500, 7, 20), generator=torch.Generator().manual_seed(0)) < 0.6).float()
    mask = draw_variable_mask(observed, 0.2, torch.Generator().manual_seed(1))
    of_series = mask.sum(dim=1) / observed.sum(dim=1)
    assert set(of_series[observed.sum(dim=1) > 0].tolist()) == {0.0, 1.0}
    assert (mask * (1 - observed)).sum() == 0
    assert mask.dtype == observed.dtype
    assert of_series.nanmean().item() == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / 10_000) ** 0.5)
    assert draw_variable_mask(observed, 0.0, torch.Generator().manual_seed(1)).sum() == 0
