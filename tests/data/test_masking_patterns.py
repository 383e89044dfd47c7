from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from imputune.data.masking_patterns import LABELS, held_out_cells
from imputune.settings.imputer_sections import Assess

SETTINGS = Assess(pattern=tuple(LABELS), rates=(0.1,), block_hours=6, block_variables=7)


@pytest.fixture
def draw() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Draw what is hidden of 300 stays of 48 hours and 20 variables, of which from 5 to 90 % are observed."""
    shares_D = torch.linspace(0.05, 0.9, 20)
    observed_NTD = torch.rand(300, 48, 20, generator=torch.Generator().manual_seed(1)) < shares_D

    def make(pattern: str, rate: float, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
        rate_D = torch.full((20,), rate)
        return observed_NTD, held_out_cells(
            observed_NTD, pattern, rate, rate_D, SETTINGS, torch.Generator().manual_seed(seed)
        )

    return make


@pytest.mark.parametrize("pattern", LABELS)
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_every_way_hides_its_share_of_observed_cells(draw, pattern, rate):
    """Only observed cells are masked, and as large a rate of them as was asked for."""
    observed, hidden = draw(pattern, rate)
    assert not (hidden & ~observed).any()
    assert hidden.sum() / observed.sum() == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize("pattern", LABELS)
def test_the_same_seed_hides_the_same_cells(draw, pattern):
    """A generator's seed decides what is hidden."""
    assert torch.equal(draw(pattern, 0.3)[1], draw(pattern, 0.3)[1])
    assert not torch.equal(draw(pattern, 0.3)[1], draw(pattern, 0.3, seed=3)[1])


def test_whole_hours_are_hidden_or_shown(draw):
    """An hour of a stay is hidden in all its observed variables or in none."""
    observed, hidden = draw("hours", 0.3)
    shown = (observed & ~hidden).any(dim=2)
    assert not (shown & hidden.any(dim=2)).any()


def test_from_some_hour_on_nothing_is_shown(draw):
    """Where a variable of a stay is hidden once, it is hidden ever after; some series are cut, others are not."""
    observed, hidden = draw("onward", 0.3)
    gone = hidden.long().cumsum(dim=1) > 0
    assert not (observed & ~hidden & gone).any()
    cut = hidden.any(dim=1) & observed.any(dim=1)
    assert 0.4 < cut.float().mean() < 0.7


def test_a_lone_observation_is_hidden_as_often_as_any():
    """Series observed once keep it or lose it: a rate of one half cuts all series, and masks half of such cells."""
    observed = torch.zeros(400, 48, 20, dtype=torch.bool)
    observed[:, 7] = True
    rate = torch.full((20,), 0.5)
    hidden = held_out_cells(observed, "onward", 0.5, rate, SETTINGS, torch.Generator().manual_seed(5))
    assert hidden.sum() / observed.sum() == pytest.approx(0.5, abs=0.02)


def test_blocks_are_hours_by_variables(draw):
    """With everything observed, what is hidden falls into tiles of 6 hours by 7 variables, the last smaller."""
    observed = torch.ones(4, 48, 14, dtype=torch.bool)
    rate = torch.full((14,), 0.4)
    hidden = held_out_cells(observed, "blocks", 0.4, rate, SETTINGS, torch.Generator().manual_seed(5))
    steps = set()
    for stay in hidden:
        columns = Counter(tuple(column.tolist()) for column in stay.T)
        assert set(columns.values()) == {7}  # two groups of seven variables, alike within
        turns = {hour for column in columns for hour in range(1, 48) if column[hour] != column[hour - 1]}
        steps |= {later - hour for hour, later in pairwise(sorted(turns))}
    assert min(steps) == 6  # hours from tile to tile
    assert all(step % 6 == 0 for step in steps)
    assert 0.2 < hidden.float().mean() < 0.6
