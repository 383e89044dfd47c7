"""PyPOTS 1.5's CSAI as its users train it: its own data set, loop, learning rate and prediction, in one process."""

import importlib
import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from imputune.errors import UserError
from imputune.runtime.device import choose_device
from imputune.settings.schema import Params

MEASURED = "1.5"
INSTALL = "pip install -e '.[pypots]'"
HEADS, FEEDFORWARD = 8, 64  # which PyPOTS does not let its user choose


@dataclass(frozen=True, eq=False)
class Prediction:
    """What PyPOTS makes of stays it hid cells of; each array is (N, T, D), 0/1 where not standardised values."""

    imputed_NTD: np.ndarray
    truth_NTD: np.ndarray
    masked_NTD: np.ndarray


def check_pypots() -> None:
    """Raise UserError where PyPOTS is not installed, or in another version than the one measured against.

    Its import prints a banner, which is dropped.
    """
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            version = importlib.import_module("pypots").__version__
    except ImportError as error:
        raise UserError(f"PyPOTS cannot be imported ({error}): install it with {INSTALL}") from None
    if version != MEASURED:
        raise UserError(f"PyPOTS is {version}, this measures against {MEASURED}: install it with {INSTALL}")


def default_learning_rate() -> float:
    """Return the learning rate that PyPOTS's user gets without asking for one."""
    from pypots.optim import Adam

    return float(Adam().lr)


class PypotsCsai:
    """PyPOTS's CSAI with imputune's widths, batch size, rates of pattern and device, ready to train.

    The weights of the losses are passed on, but PyPOTS 1.5 reads neither: both reconstruction losses count 1, the
    consistency loss 0.1. Cells are hidden once, here, for all epochs. Shapes: nan_NTD float32, standardised, NaN
    where not observed. Raises UserError for a variable never observed twice in a stay, whose median gap is NaN there.
    """

    def __init__(self, nan_NTD: np.ndarray, params: Params, variables: tuple[str, ...]) -> None:
        from pypots.imputation import CSAI
        from pypots.imputation.csai.data import DatasetForCSAI
        from pypots.utils.logging import logger_creator

        logger_creator.set_level("error")
        twice_D = ((~np.isnan(nan_NTD)).sum(axis=1) > 1).any(axis=0)
        if not twice_D.all():
            raise UserError(
                f"no training stay observes {variables[int(np.argmin(twice_D))]} twice, which makes PyPOTS's loss NaN: "
                "take more stays, with --stays or another --cohort"
            )
        _, hours, features = nan_NTD.shape
        settings, masking = params.pretrain, params.masking
        self.csai = CSAI(
            n_steps=hours,
            n_features=features,
            rnn_hidden_size=params.csai.hidden_size,
            step_channels=params.csai.channels,
            imputation_weight=settings.imputation_weight,
            consistency_weight=settings.consistency_weight,
            removal_percent=masking.rate,  # a share in spite of its name
            increase_factor=masking.factor,
            batch_size=settings.batch_size,
            epochs=1,
            device=choose_device(params.device).type,
        )
        # As its fit() does before its first epoch.
        train = DatasetForCSAI({"X": nan_NTD}, False, False, "hdf5", masking.rate, masking.factor)
        self.csai.intervals = train.intervals
        self.csai.replacement_probabilities = train.replacement_probabilities
        self.loader = torch.utils.data.DataLoader(train, batch_size=settings.batch_size, shuffle=True)

    def train_epoch(self) -> None:
        """Train one more epoch, from the weights and the optimiser's state as the last one left them."""
        self.csai._train_model(self.loader)

    def predict(self, nan_NTD: np.ndarray) -> Prediction:
        """Hide cells of other stays at the training rates, and impute them."""
        found = self.csai.predict({"X": nan_NTD, "X_ori": nan_NTD})
        return Prediction(found["imputation"], found["x_ori"], found["indicating_mask"])
