"""What a head reads of an imputer's representation."""

from typing import get_args

import numpy as np
import torch

from imputune.data.record_features import record_features
from imputune.imputers.interface import Representation
from imputune.protocol.variants import Variant, base_of, record_parts
from imputune.settings.names import MlpHead


def head_inputs(
    variant: Variant, representation: Representation, values_BTD: torch.Tensor, hidden_size: int
) -> tuple[torch.Tensor, ...]:
    """Return the tensors that a variant's neural head reads of some stays.

    An MLP reads a hidden state, (B, H), or the imputed series with its hours side by side, (B, T * D). A recurrent
    head reads two tensors: the hidden state, or zeros (B, hidden_size) if the imputer has none; and a series (B, T, D),
    either imputed or raw: `values_BTD`, standardised, with 0 in the missing cells.
    """
    imputed_BTD, hidden_BH = representation.imputed_BTD, representation.hidden_BH
    if variant.head in get_args(MlpHead):
        return (imputed_BTD.flatten(1) if variant.base == "imputed" else hidden_states(variant, representation),)
    if hidden_BH is None:
        hidden_BH = torch.zeros(len(values_BTD), hidden_size)
    return hidden_BH, imputed_BTD if variant.base == "imputed" else values_BTD


def hidden_states(variant: Variant, representation: Representation) -> torch.Tensor:
    """Return the hidden states (B, H); ValueError if the imputer has none, which no existing variant asks for."""
    if representation.hidden_BH is None:
        raise ValueError(f"{variant.imputer} must have a hidden state for input {variant.input}")
    return representation.hidden_BH


def parts_of_record(input: str) -> tuple[str, ...]:
    """Return the parts of the record itself that a non-neural head reads: static, summary."""
    base = base_of(input)
    return (base, *record_parts(input)) if base == "summary" else record_parts(input)


def non_neural_features(
    input: str,
    *,
    values_NTD: np.ndarray,
    observed_NTD: np.ndarray,
    static_NS: np.ndarray,
    learned: Representation | None,
) -> np.ndarray:
    """Return the features that a non-neural head reads, float32 (N, F), NaN where unknown.

    First the hidden state, or the imputed series with its hours side by side; then the features of the record (see
    `data.record_features`). `learned` is not needed for an input that starts with summary. Raises ValueError for an
    imputer without the hidden state that the input asks for.
    """
    record_NF = record_features(values_NTD, observed_NTD, static_NS, parts_of_record(input))
    if base_of(input) == "summary" or learned is None:
        return record_NF
    learned_NF = learned.imputed_BTD.flatten(1) if base_of(input) == "imputed" else learned.hidden_BH
    if learned_NF is None:
        raise ValueError(f"the imputer must have a hidden state for input {input}")
    return np.concatenate([learned_NF.numpy(), record_NF], axis=1)
