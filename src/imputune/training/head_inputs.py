"""What a head reads of a representation."""

from typing import get_args

import torch

from imputune.data.splits import Partition
from imputune.imputers.interface import Representation
from imputune.protocol.variants import Cell
from imputune.settings.names import MlpHead


def read_by(cell: Cell, representation: Representation, part: Partition, hidden: int) -> tuple[torch.Tensor, ...]:
    """Return what a cell's head, a network, reads of a part's stays.

    A perceptron reads the hidden state, (N, H), or the imputed series, its hours side by side, (N, T * D). A recurrent
    head reads the hidden state, zeros of width `hidden` where the imputer has none, and a series (N, T, D): imputed, or
    raw with 0 in its holes.
    """
    imputed_NTD, hidden_NH = representation.imputed_BTD, representation.hidden_BH
    if cell.head in get_args(MlpHead):
        return (hidden_of(cell, representation) if cell.input == "hidden" else imputed_NTD.flatten(1),)
    if hidden_NH is None:
        hidden_NH = torch.zeros(len(part), hidden)
    return hidden_NH, imputed_NTD if cell.input == "imputed" else part.values_NTD


def hidden_of(cell: Cell, representation: Representation) -> torch.Tensor:
    """Return the hidden states (N, H); ValueError for an imputer that has none, which no cell asks for."""
    if representation.hidden_BH is None:
        raise ValueError(f"{cell.imputer} must have a hidden state for input hidden")
    return representation.hidden_BH
