"""PyPOTS 1.5's CSAI as its users train it: its own dataset, loop, learning rate and prediction, in one process."""

import importlib
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from imputune.errors import UserError
from imputune.runtime.device import choose_device
from imputune.settings.schema import Params

MEASURED = "1.5"
INSTALL = "pip install -e '.[pypots]'"


@dataclass(frozen=True, eq=False)
class Prediction:
    """Imputed and true standardised values of stays, and which cells PyPOTS held out (0/1); each array (N, T, D)."""

    imputed_NTD: np.ndarray
    truth_NTD: np.ndarray
    held_out_NTD: np.ndarray


def check_pypots() -> None:
    """Raise UserError if PyPOTS is not installed, or has another version than the one measured against.

    The banner that its import prints is suppressed, and what it says when it first writes its configuration.
    """
    try:
        with Path(os.devnull).open("w") as null, redirect_stdout(null), redirect_stderr(null):
            version = importlib.import_module("pypots").__version__
    except ImportError as error:
        raise UserError(f"PyPOTS cannot be imported ({error}): install it with {INSTALL}") from None
    if version != MEASURED:
        raise UserError(f"PyPOTS is {version}, this measures against {MEASURED}: install it with {INSTALL}")


def default_learning_rate() -> float:
    """Return the learning rate of PyPOTS if its user gives none."""
    from pypots.optim import Adam

    return float(Adam().lr)


class PypotsCsai:
    """PyPOTS's CSAI with imputune's widths, batch size, masking rates and device, ready to train.

    The weights of the losses are passed on, but PyPOTS 1.5 ignores them: both reconstruction losses count 1, the
    consistency loss 0.1. Cells are masked once for all epochs. Shapes: nan_NTD float32, standardised, NaN where
    missing. Raises UserError for a variable that no stay observes twice: its median gap would be NaN.
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
            removal_percent=masking.rate,  # a fraction, in spite of its name
            increase_factor=masking.factor,
            batch_size=settings.batch_size,
            epochs=1,
            device=choose_device(params.device).type,
        )
        # As in its fit() before the first epoch.
        train = DatasetForCSAI({"X": nan_NTD}, False, False, "hdf5", masking.rate, masking.factor)
        self.csai.intervals = train.intervals
        self.csai.replacement_probabilities = train.replacement_probabilities
        self.loader = torch.utils.data.DataLoader(train, batch_size=settings.batch_size, shuffle=True)

    def train_epoch(self) -> None:
        """Train one more epoch, starting from the weights and the optimiser's state of the last one."""
        self.csai._train_model(self.loader)

    def predict(self, nan_NTD: np.ndarray) -> Prediction:
        """Mask cells of other stays at the training rates, and impute them."""
        result = self.csai.predict({"X": nan_NTD, "X_ori": nan_NTD})
        return Prediction(result["imputation"], result["x_ori"], result["indicating_mask"])
