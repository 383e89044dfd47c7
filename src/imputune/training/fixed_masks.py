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


def variable_rates(train: Split, params: Params, pattern: MaskingPattern) -> torch.Tensor:
    """Return each variable's masking rate, computed from training stays only, float32 (D,)."""
    masking = params.masking
    rate_D = masking_rates(train.observed_NTD.numpy(), pattern, masking.rate, masking.factor)
    return torch.from_numpy(rate_D).float()


def fixed_mask(data: FoldData, split: ScoredSplit, params: Params, pattern: MaskingPattern) -> torch.Tensor:
    """Return which observed cells of a split are masked, boolean (N, T, D)."""
    purpose = Purpose.VALIDATION_MASKS if split == "validation" else Purpose.TEST_MASKS
    masks = generator_for(params.seed, data.number, purpose)
    rate_D = variable_rates(data.train, params, pattern)
    observed_NTD = scored_split(data, split).observed_NTD
    masked_NTD = torch.empty_like(observed_NTD)
    for stays in batches_in_order(len(observed_NTD)):
        masked_NTD[stays] = draw_mask(observed_NTD[stays].float(), rate_D, masks).bool()
    return masked_NTD


def scored_split(data: FoldData, split: ScoredSplit) -> Split:
    """Return a fold's split by its name."""
    return data.validation if split == "validation" else data.test
