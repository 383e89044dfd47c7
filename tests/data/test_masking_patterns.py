from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from imputune.data.masking_patterns import LABELS, held_out_cells
from imputune.settings.imputer_sections import Assess, Ranking

SETTINGS = Assess(
    patterns=tuple(LABELS),
    rates=(0.1,),
    ranking=Ranking(pattern="uniform", rate=0.1),
    block_hours=6,
    block_variables=7,
)


@pytest.fixture
def draw() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Draw held-out cells of 300 stays of 48 hours and 20 variables, observed in 5 to 90 % of the hours."""
    fraction_D = torch.linspace(0.05, 0.9, 20)
    observed_NTD = torch.rand(300, 48, 20, generator=torch.Generator().manual_seed(1)) < fraction_D

    def make(pattern: str, rate: float, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
        rate_D = torch.full((20,), rate)
        return observed_NTD, held_out_cells(
            observed_NTD, pattern, rate, rate_D, SETTINGS, torch.Generator().manual_seed(seed)
        )

    return make


@pytest.mark.parametrize("pattern", LABELS)
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_every_pattern_masks_its_rate_of_observed_cells(draw, pattern, rate):
    """Only observed cells are held out, and the fraction of them is the given rate."""
    observed, held_out = draw(pattern, rate)
    assert not (held_out & ~observed).any()
    assert held_out.sum() / observed.sum() == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize("pattern", LABELS)
def test_the_same_seed_holds_out_the_same_cells(draw, pattern):
    """The seed of the generator decides which cells are held out."""
    assert torch.equal(draw(pattern, 0.3)[1], draw(pattern, 0.3)[1])
    assert not torch.equal(draw(pattern, 0.3)[1], draw(pattern, 0.3, seed=3)[1])


def test_whole_hours_are_held_out_or_visible(draw):
    """An hour of a stay is held out in all its observed variables or in none."""
    observed, held_out = draw("hours", 0.3)
    visible = (observed & ~held_out).any(dim=2)
    assert not (visible & held_out.any(dim=2)).any()


def test_onward_nothing_is_visible_after_the_first_held_out_cell(draw):
    """After its first held-out cell, a series has no visible cell; some series are cut, others are not."""
    observed, held_out = draw("onward", 0.3)
    is_cut = held_out.long().cumsum(dim=1) > 0
    assert not (observed & ~held_out & is_cut).any()
    cut = held_out.any(dim=1) & observed.any(dim=1)
    assert 0.4 < cut.float().mean() < 0.7


def test_a_single_observation_is_held_out_as_often_as_any():
    """A rate of one half cuts all series; of series with one observation, it holds out half of the observations."""
    observed = torch.zeros(400, 48, 20, dtype=torch.bool)
    observed[:, 7] = True
    rate = torch.full((20,), 0.5)
    held_out = held_out_cells(observed, "onward", 0.5, rate, SETTINGS, torch.Generator().manual_seed(5))
    assert held_out.sum() / observed.sum() == pytest.approx(0.5, abs=0.02)


def test_blocks_are_hours_by_variables(draw):
    """With everything observed, held-out cells form blocks of 6 hours by 7 variables; the last one may be smaller."""
    observed = torch.ones(4, 48, 14, dtype=torch.bool)
    rate = torch.full((14,), 0.4)
    held_out = held_out_cells(observed, "blocks", 0.4, rate, SETTINGS, torch.Generator().manual_seed(5))
    lengths = set()
    for stay in held_out:
        columns = Counter(tuple(column.tolist()) for column in stay.T)
        assert set(columns.values()) == {7}  # two groups of seven variables with the same hours
        changes = {hour for column in columns for hour in range(1, 48) if column[hour] != column[hour - 1]}
        lengths |= {later - hour for hour, later in pairwise(sorted(changes))}
    assert min(lengths) == 6  # hours of a block
    assert all(length % 6 == 0 for length in lengths)
    assert 0.2 < held_out.float().mean() < 0.6


def test_blocks_in_longer_bins_have_the_bins_of_their_hours():
    """Blocks of 6 hours are two bins of 4 hours: a stay's series change at even bins only, or at odd ones only."""
    observed, rate = torch.ones(20, 12, 14, dtype=torch.bool), torch.full((14,), 0.4)
    held_out = held_out_cells(observed, "blocks", 0.4, rate, SETTINGS, torch.Generator().manual_seed(5), bin_hours=4)
    changes = held_out[:, 1:] != held_out[:, :-1]
    for stay in changes.any(dim=2):
        assert len({bin % 2 for bin in torch.nonzero(stay)[:, 0].tolist()}) <= 1
    assert changes.any(dim=2).sum() > 50
