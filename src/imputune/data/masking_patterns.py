"""Masking patterns to score imputers on: random cells, and patterns of missing values that real records have.

Every pattern masks an expected rate of the observed cells. PyGrinder, the field's library for this, counts its rates
over missing cells too, and its blocks continue from one variable into the next.

Letters: N stays, T bins, D variables.
"""

from collections.abc import Callable, Mapping
from math import ceil

import torch

from imputune.data.masking import draw_mask
from imputune.settings.imputer_sections import Assess
from imputune.settings.names import MaskingPattern

LABELS: Mapping[MaskingPattern, str] = {
    "uniform": "at random",
    "non_uniform": "non-uniform",
    "hours": "whole hours",
    "onward": "a variable from some observation on",
    "blocks": "blocks",
}


def held_out_cells(
    observed_NTD: torch.Tensor,
    pattern: MaskingPattern,
    rate: float,
    rate_D: torch.Tensor,
    settings: Assess,
    generator: torch.Generator,
    bin_hours: int = 1,
) -> torch.Tensor:
    """Draw which observed cells are held out: an expected fraction `rate` of them, whatever the pattern.

    `uniform` and `non_uniform` draw each cell separately, at its variable's rate `rate_D`. `hours` masks whole bins of
    a stay; `bin_hours` is their length. `onward` masks a variable of a stay from a random observation on, in a fraction
    2 * `rate` of all series; if `rate` is above one half, in all series, some of them from the start. `blocks` divides
    a stay into blocks of `block_hours` successive hours, rounded up to whole bins, by `block_variables` variables,
    grouped at random, and masks whole blocks.

    Shapes: observed_NTD boolean (N, T, D), rate_D (D,); boolean (N, T, D) out, true only where observed.
    """
    if pattern in ("uniform", "non_uniform"):
        return draw_mask(observed_NTD.float(), rate_D, generator).bool()
    bins, variables = ceil(settings.block_hours / bin_hours), settings.block_variables
    draw: Mapping[MaskingPattern, Callable[[], torch.Tensor]] = {
        "hours": lambda: _hours(observed_NTD, rate, generator),
        "onward": lambda: _onward(observed_NTD, rate, generator),
        "blocks": lambda: _blocks(observed_NTD, rate, bins, variables, generator),
    }
    return observed_NTD & draw[pattern]()


def _hours(observed_NTD: torch.Tensor, rate: float, generator: torch.Generator) -> torch.Tensor:
    N, T, _ = observed_NTD.shape
    return torch.rand(N, T, 1, generator=generator) < rate


def _onward(observed_NTD: torch.Tensor, rate: float, generator: torch.Generator) -> torch.Tensor:
    N, _, D = observed_NTD.shape
    observed_so_far_NTD = observed_NTD.cumsum(dim=1)
    is_cut, is_whole, where = torch.rand(3, N, D, generator=generator)
    count_ND = observed_so_far_NTD[:, -1]
    visible_ND = torch.floor(where * (count_ND + 1))  # any number from none to all observations, on average half
    visible_ND[is_whole < 2 * rate - 1] = 0
    visible_ND = torch.where(is_cut < 2 * rate, visible_ND, count_ND)
    return observed_so_far_NTD > visible_ND[:, None]


def _blocks(
    observed_NTD: torch.Tensor, rate: float, bins: int, variables: int, generator: torch.Generator
) -> torch.Tensor:
    N, T, D = observed_NTD.shape
    first_bin_N1 = torch.randint(bins, (N, 1), generator=generator)
    span_NT = (torch.arange(T) + first_bin_N1) // bins
    group_ND = torch.rand(N, D, generator=generator).argsort(dim=1) // variables
    spans, groups = T // bins + 2, D // variables + 1
    is_masked = torch.rand(N, spans, groups, generator=generator) < rate
    return is_masked[torch.arange(N)[:, None, None], span_NT[:, :, None], group_ND[:, None, :]]
