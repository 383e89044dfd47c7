"""What every imputer can do.

Letters: B stays, N all stays of a split, T hours, D variables, H hidden.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from imputune.errors import UserError
from imputune.settings.names import ImputerName


@dataclass(frozen=True, eq=False)
class Representation:
    """What an imputer hands to a head: the imputed series, (B, T, D), and its hidden state (B, H) if it has one.

    H is the hidden size, or a multiple of it for the further states of CSAI (see `models.hidden_states`).
    """

    imputed_BTD: torch.Tensor
    hidden_BH: torch.Tensor | None = None


class Imputer(Protocol):
    """An imputer of standardised hourly records, before or after its pretraining (see `training.pretrain`)."""

    @property
    def module(self) -> nn.Module | None:
        """The network, to save and load its weights; None for an imputer that learns nothing."""

    def represent(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Representation:
        """Impute some stays; observed cells stay as they are, and `values_BTD` under observed = 0 has no effect.

        Shapes: values standardised and observed 0/1, both float32 (B, T, D) on the CPU; the same out, without gradient,
        every number finite.
        """


def checked_representation(
    name: ImputerName,
    values_BTD: torch.Tensor,
    observed_BTD: torch.Tensor,
    estimate_BTD: torch.Tensor,
    hidden_BH: torch.Tensor | None = None,
) -> Representation:
    """Return an imputer's estimates in the missing cells, the observed cells as they are, and its hidden state.

    Raises UserError, naming the imputer, if an estimate in a missing cell or the hidden state is not finite.
    """
    imputed_BTD = torch.where(observed_BTD > 0, values_BTD, estimate_BTD)
    for output in (imputed_BTD, hidden_BH):
        if output is not None and not torch.isfinite(output).all():
            raise UserError(f"imputer {name} gave values that are not finite: pretrain it again, or leave it out")
    return Representation(imputed_BTD, hidden_BH)
