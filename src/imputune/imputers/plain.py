"""Imputers that follow a rule and learn nothing: mean, last observation carried forward, linear interpolation."""

import torch
from torch import nn

from imputune.imputers.interface import Representation, checked_representation
from imputune.models.plain_rules import PLAIN_RULES
from imputune.settings.names import ImputerName


class PlainImputer:
    """One of `models.plain_rules.PLAIN_RULES`; it has no hidden state. The training mean is 0."""

    module: nn.Module | None = None

    def __init__(self, name: ImputerName) -> None:
        self.name, self.fill = name, PLAIN_RULES[name]

    def represent(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Representation:
        """Fill the missing cells by the rule; see `Imputer.represent`."""
        nan_BTD = torch.where(observed_BTD > 0, values_BTD, torch.nan)
        filled_BTD = torch.from_numpy(self.fill(nan_BTD.numpy()))
        return checked_representation(self.name, values_BTD, observed_BTD, filled_BTD)
