"""CSAI behind the interface of all imputers."""

import torch

from imputune.data.directions import Directions
from imputune.imputers.interface import Representation, checked_representation
from imputune.models.csai import Csai
from imputune.settings.names import ImputerName, StateName


class CsaiImputer:
    """CSAI or one of its controls, on the device of its weights.

    state: which hidden state it gives; see `models.hidden_states.make_state`.
    """

    def __init__(self, module: Csai, name: ImputerName = "csai", state: StateName = "hidden") -> None:
        self.module, self.name, self.state = module, name, state

    def represent(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Representation:
        """Impute by one forward pass; see `Imputer.represent`."""
        device = self.module.device
        with torch.no_grad():
            reconstruction = self.module(Directions.of(values_BTD.to(device), observed_BTD.to(device)))
        estimate_BTD, hidden_BH = reconstruction.imputed_BTD.cpu(), reconstruction.state(self.state).cpu()
        return checked_representation(self.name, values_BTD, observed_BTD, estimate_BTD, hidden_BH)
