"""CSAI behind the interface of all imputers."""

import torch

from imputune.data.directions import Directions
from imputune.imputers.interface import Representation, checked_representation
from imputune.models.csai import Csai
from imputune.settings.names import ImputerName


class CsaiImputer:
    """CSAI or one of its controls, on the device of its weights.

    Its hidden state is `last`, the mean of both directions' final hidden states.
    """

    def __init__(self, module: Csai, name: ImputerName = "csai") -> None:
        self.module, self.name = module, name

    def represent(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Representation:
        """Impute by one forward pass; see `Imputer.represent`."""
        device = self.module.device
        with torch.no_grad():
            reconstruction = self.module(Directions.of(values_BTD.to(device), observed_BTD.to(device)))
        estimate_BTD, last_BH = reconstruction.imputed_BTD.cpu(), reconstruction.last_BH.cpu()
        return checked_representation(self.name, values_BTD, observed_BTD, estimate_BTD, last_BH)
