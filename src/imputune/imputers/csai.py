"""CSAI as an imputer among others."""

import torch

from imputune.data.directions import Views
from imputune.imputers.interface import Representation, sealed
from imputune.models.csai import Csai
from imputune.settings.names import ImputerName


class CsaiImputer:
    """CSAI with its hidden state `last`, the mean of both readings' final ones; on the device of its weights."""

    def __init__(self, module: Csai, name: ImputerName = "csai") -> None:
        self.module, self.name = module, name

    def represent(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Representation:
        """Impute by one pass; see `Imputer.represent`."""
        device = self.module.device
        with torch.no_grad():
            reconstruction = self.module(Views.read(values_BTD.to(device), observed_BTD.to(device)))
        estimate_BTD, last_BH = reconstruction.imputed_BTD.cpu(), reconstruction.last_BH.cpu()
        return sealed(self.name, values_BTD, observed_BTD, estimate_BTD, last_BH)
