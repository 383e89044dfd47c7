"""What a head reads of an imputer's representation."""

from typing import get_args

import torch

from imputune.data.splits import Split
from imputune.imputers.interface import Representation
from imputune.protocol.variants import Variant
from imputune.settings.names import MlpHead


def head_inputs(
    variant: Variant, representation: Representation, split: Split, hidden_size: int
) -> tuple[torch.Tensor, ...]:
    """Return the tensors that a variant's neural head reads of a split's stays.

    An MLP reads a hidden state, (N, H), or the imputed series with its hours side by side, (N, T * D). A recurrent
    head reads two tensors: the hidden state, or zeros (N, hidden_size) if the imputer has none; and a series (N, T, D),
    either imputed or raw, with 0 in the missing cells.
    """
    imputed_NTD, hidden_NH = representation.imputed_BTD, representation.hidden_BH
    if variant.head in get_args(MlpHead):
        return (imputed_NTD.flatten(1) if variant.base == "imputed" else hidden_states(variant, representation),)
    if hidden_NH is None:
        hidden_NH = torch.zeros(len(split), hidden_size)
    return hidden_NH, imputed_NTD if variant.base == "imputed" else split.values_NTD


def hidden_states(variant: Variant, representation: Representation) -> torch.Tensor:
    """Return the hidden states (N, H); ValueError if the imputer has none, which no existing variant asks for."""
    if representation.hidden_BH is None:
        raise ValueError(f"{variant.imputer} must have a hidden state for input {variant.input}")
    return representation.hidden_BH
