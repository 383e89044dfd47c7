"""A head on an imputer, trained on what the imputer gives (frozen) or together with it (unfrozen)."""

import torch
from torch import nn

from imputune.data.directions import Directions
from imputune.models.csai import Csai
from imputune.models.hidden_states import STATES
from imputune.protocol.variants import state_of
from imputune.settings.names import StateName

SERIES = ("imputed", "raw")
INPUTS = (*STATES, *SERIES)


class Classifier(nn.Module):
    """An imputer and a head that turns the imputer's output into a logit of the outcome.

    With `freeze_imputer` only the head's weights are trainable, and the imputer stays bit-equal. `input` says what the
    head gets: a hidden state alone (see `models.hidden_states`); `imputed` or `raw`, the state `hidden` and a series,
    either imputed or observed with 0 where missing. A head of record features gets these too. Shapes: Directions of
    (K, B, T, D) tensors and, if the head reads them, record features (B, R) in, logits (B,) out. Raises ValueError for
    another `input`.

    Source: paper, section V.A (frozen and unfrozen, inputs).
    """

    def __init__(self, imputer: Csai, head: nn.Module, *, freeze_imputer: bool, input: str = "hidden") -> None:
        super().__init__()
        if input not in INPUTS:
            raise ValueError(f"input must be one of {INPUTS}, got {input!r}")
        self.imputer = imputer.requires_grad_(not freeze_imputer)
        self.head = head
        self.input = input
        self.state: StateName = state_of(input)

    def forward(self, directions: Directions, record_BR: torch.Tensor | None = None) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        record = () if record_BR is None else (record_BR,)
        return self.head(*self.represent(directions), *record)

    def represent(self, directions: Directions) -> tuple[torch.Tensor, ...]:
        """Return what the head reads of the imputer: a hidden state (B, size) and, for some, a series (B, T, D)."""
        reconstruction = self.imputer(directions)
        return self.choose(reconstruction.state(self.state), reconstruction.imputed_BTD, directions.values[0])

    def choose(
        self, state_BS: torch.Tensor, imputed_BTD: torch.Tensor, raw_BTD: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return those of these tensors that the head reads; the first is the hidden state `self.state`."""
        if self.input not in SERIES:
            return (state_BS,)
        return state_BS, imputed_BTD if self.input == "imputed" else raw_BTD
