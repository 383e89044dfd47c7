"""The masks of pretraining's validation and test stays: drawn once, the same for every imputer and in every epoch."""

from typing import Literal

import torch

from imputune.data.batches import batches_in_order
from imputune.data.masking import draw_mask, masking_rates
from imputune.data.splits import FoldData, Split
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.names import MaskingPattern
from imputune.settings.schema import Params

ScoredSplit = Literal["validation", "test"]


def variable_rates(data: FoldData, params: Params, pattern: MaskingPattern) -> torch.Tensor:
    """Return each variable's masking rate, computed from training stays only, float32 (D,)."""
    masking = params.masking
    rate_D = masking_rates(data.observed_count_D, pattern, masking.rate, masking.factor)
    return torch.from_numpy(rate_D).float()


def fixed_mask(data: FoldData, split: ScoredSplit, params: Params, pattern: MaskingPattern) -> torch.Tensor:
    """Return which observed cells of a split are masked, boolean (N, T, D)."""
    purpose = Purpose.VALIDATION_MASKS if split == "validation" else Purpose.TEST_MASKS
    masks = generator_for(params.seed, data.number, purpose)
    rate_D = variable_rates(data, params, pattern)
    stays_of_split = scored_split(data, split)
    masked_NTD = torch.empty(stays_of_split.shape, dtype=torch.bool)
    for stays in batches_in_order(len(stays_of_split)):
        masked_NTD[stays] = draw_mask(stays_of_split.observed(stays).float(), rate_D, masks).bool()
    return masked_NTD


def scored_split(data: FoldData, split: ScoredSplit) -> Split:
    """Return a fold's split by its name."""
    return data.validation if split == "validation" else data.test
