"""What every imputer can do, whatever is inside.

Letters: B stays, N all stays of a part, T hours, D variables, H hidden.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from imputune.errors import UserError


@dataclass(frozen=True, eq=False)
class Representation:
    """What an imputer hands to a head: the imputed series, (B, T, D), and a hidden state (B, H) where it has one."""

    imputed_BTD: torch.Tensor
    hidden_BH: torch.Tensor | None = None


class Imputer(Protocol):
    """An imputer of standardised hourly records, fitted or about to be.

    How one is fitted on a fold's training stays stands in `training.pretrain`.
    """

    @property
    def module(self) -> nn.Module | None:
        """What was fitted, for saving and loading; None where nothing is."""

    def represent(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Representation:
        """Impute some stays; what stands in `values_BTD` under observed = 0 has no effect, observed cells stay.

        Shapes: values standardised and observed 0/1, both float32 (B, T, D) on the CPU; the same out, without gradient,
        every number finite.
        """


def sealed(
    name: str,
    values_BTD: torch.Tensor,
    observed_BTD: torch.Tensor,
    estimate_BTD: torch.Tensor,
    hidden_BH: torch.Tensor | None = None,
) -> Representation:
    """Return what an imputer made, with the observed cells as they were.

    Raises UserError, naming the imputer, where a hole or the hidden state is no finite number.
    """
    imputed_BTD = torch.where(observed_BTD > 0, values_BTD, estimate_BTD)
    for made in (imputed_BTD, hidden_BH):
        if made is not None and not torch.isfinite(made).all():
            raise UserError(f"imputer {name} gave values that are no numbers: pretrain it again, or leave it out")
    return Representation(imputed_BTD, hidden_BH)
