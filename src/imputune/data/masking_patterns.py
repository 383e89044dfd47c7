"""Ways to hide observed cells of a record, to score imputers on: at random, and as records really have their holes.

Letters: N stays, T hours, D variables. PyGrinder, the field's library for this, counts its shares over cells that were
never observed too, and its blocks run on from one variable into the next; here every way hides an expected share of the
observed cells.
"""

from collections.abc import Callable, Mapping

import torch

from imputune.data.masking import hide
from imputune.settings.names import Hiding
from imputune.settings.schema import Assess

LABELS: Mapping[Hiding, str] = {
    "uniform": "at random",
    "non_uniform": "non-uniform",
    "hours": "whole hours",
    "onward": "a variable from some hour on",
    "blocks": "blocks",
}


def hidden_cells(
    observed_NTD: torch.Tensor,
    hiding: Hiding,
    share: float,
    rate_D: torch.Tensor,
    settings: Assess,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw which observed cells are held out, each way an expected `share` of them.

    `uniform` and `non_uniform` draw every cell by itself, at its variable's rate `rate_D`. `hours` hides whole hours of
    a stay. `onward` hides a variable of a stay from some observation on, drawn evenly, in twice `share` of all series
    (above a share of one half, in all of them, some from the start). `blocks` cuts a stay into tiles of `block_hours`
    by `block_variables`, hours side by side and variables drawn together at random, and hides whole tiles.

    Shapes: observed_NTD boolean (N, T, D), rate_D (D,); boolean (N, T, D) out, true only where observed.
    """
    if hiding in ("uniform", "non_uniform"):
        return hide(observed_NTD.float(), rate_D, generator).bool()
    ways: Mapping[Hiding, Callable[[], torch.Tensor]] = {
        "hours": lambda: _hours(observed_NTD, share, generator),
        "onward": lambda: _onward(observed_NTD, share, generator),
        "blocks": lambda: _blocks(observed_NTD, share, settings.block_hours, settings.block_variables, generator),
    }
    return observed_NTD & ways[hiding]()


def _hours(observed_NTD: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    N, T, _ = observed_NTD.shape
    return torch.rand(N, T, 1, generator=generator) < share


def _onward(observed_NTD: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    N, _, D = observed_NTD.shape
    seen_NTD = observed_NTD.cumsum(dim=1)
    cut, whole, place = torch.rand(3, N, D, generator=generator)
    count_ND = seen_NTD[:, -1]
    kept_ND = torch.floor(place * (count_ND + 1))  # of 0 to all observations, evenly: one half on average
    kept_ND[whole < 2 * share - 1] = 0
    kept_ND = torch.where(cut < 2 * share, kept_ND, count_ND)
    return seen_NTD > kept_ND[:, None]


def _blocks(
    observed_NTD: torch.Tensor, share: float, hours: int, variables: int, generator: torch.Generator
) -> torch.Tensor:
    N, T, D = observed_NTD.shape
    first_N = torch.randint(hours, (N, 1), generator=generator)
    span_NT = (torch.arange(T) + first_N) // hours
    group_ND = torch.rand(N, D, generator=generator).argsort(dim=1) // variables
    spans, groups = T // hours + 2, D // variables + 1
    tiles = torch.rand(N, spans, groups, generator=generator) < share
    return tiles[torch.arange(N)[:, None, None], span_NT[:, :, None], group_ND[:, None, :]]
