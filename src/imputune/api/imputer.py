"""CSAI as an estimator in scikit-learn's manner, on arrays of hourly values.

Letters: N stays, T hours, D variables, H hidden size.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from imputune.api.imputer_folder import AGAIN, About, read_folder, write_folder
from imputune.api.parameters import plain, training_settings
from imputune.api.values import ValuesError, checked_values, choose_validation, divide
from imputune.data.batches import batches_in_order
from imputune.data.scaling import Scaler, standardised_tensors
from imputune.errors import UserError
from imputune.imputers.build import saved_imputer
from imputune.imputers.csai import CsaiImputer
from imputune.imputers.interface import Representation
from imputune.models.weights import module_weights
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.runtime import threads
from imputune.runtime.epoch_lines import EpochLines, LineRecorder, TrainingPlan
from imputune.runtime.recorder import Recorder, SilentRecorder
from imputune.settings.names import DeviceName, RandomPattern
from imputune.training import pretrain
from imputune.training.best_state import DivergedError
from imputune.training.fixed_masks import fixed_mask

_MISFIT = (KeyError, MemoryError, RuntimeError, TypeError, ValueError)
"""What PyTorch raises for sizes that are not those of the weights."""


class CSAIImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """An imputer of hourly records, in scikit-learn's manner: it learns from values alone and needs no outcome.

    `fit` trains CSAI by the same loop as `imputune pretrain`; `transform` fills missing cells; `represent` gives the
    hidden state. Values are arrays (stays, hours, variables) in the variables' own units, NaN where nothing was
    observed. Scaling, masking rates and median gaps come from the training stays.

    Parameters have the names and the defaults of params.yaml, which explains them; masking_* and clip_quantile are in
    its sections masking and scaling. Others: epochs, at most (40, as for physionet2012); validation_fraction of the
    stays, drawn by the seed, does not train and chooses the epoch that is kept; verbose prints how training goes.

    Attributes after `fit`: n_hours_in_ and n_features_in_, the numbers of hours and variables; validation_stays_, the
    positions of those stays; best_epoch_, counted from 0; history_, a table with the losses of each epoch; imputer_ and
    scaler_, the trained parts.

    The same seed gives the same numbers on the same machine, and a stay alone gets what it gets in any batch.
    """

    imputer_: CsaiImputer
    scaler_: Scaler
    n_hours_in_: int
    n_features_in_: int
    validation_stays_: np.ndarray
    best_epoch_: int
    history_: pd.DataFrame

    def __init__(
        self,
        *,
        hidden_size: int = 108,
        epochs: int = 40,
        seed: int = 2012,
        batch_size: int = 64,
        learning_rate: float = 0.005,
        masking_pattern: RandomPattern = "non_uniform",
        masking_rate: float = 0.10,
        masking_factor: float = 0.5,
        validation_fraction: float = 0.2,
        clip_quantile: float = 0.001,
        channels: int = 64,
        attention_heads: int = 8,
        feedforward: int = 64,
        imputation_weight: float = 1.0,
        history_weight: float = 0.5,
        consistency_weight: float = 0.1,
        missingness_weight: float = 0.0,
        variable_masking: float = 0.0,
        gradient_norm: float = 1.0,
        device: DeviceName = "auto",
        verbose: bool = False,
    ) -> None:
        self.hidden_size = hidden_size
        self.epochs = epochs
        self.seed = seed
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.masking_pattern = masking_pattern
        self.masking_rate = masking_rate
        self.masking_factor = masking_factor
        self.validation_fraction = validation_fraction
        self.clip_quantile = clip_quantile
        self.channels = channels
        self.attention_heads = attention_heads
        self.feedforward = feedforward
        self.imputation_weight = imputation_weight
        self.history_weight = history_weight
        self.consistency_weight = consistency_weight
        self.missingness_weight = missingness_weight
        self.variable_masking = variable_masking
        self.gradient_norm = gradient_norm
        self.device = device
        self.verbose = verbose

    def fit(self, values_NTD: object, y: object = None) -> Self:
        """Train on stays, `values_NTD` (N, T, D); `y` is not used.

        Raises ValuesError, which is a UserError and a ValueError, for values or parameters that it cannot use: another
        number of axes, infinite numbers, a variable that no stay has, too few stays. A stay without any observed cell
        is allowed, and teaches nothing. Raises UserError if training diverges.
        """
        params = training_settings(self.get_params())
        array = checked_values(values_NTD)
        validation = choose_validation(~np.isnan(array), self.validation_fraction, params.seed)
        data = divide(array, validation, params.scaling.clip_quantile)
        if not fixed_mask(data, "validation", params, params.masking.pattern).any():
            raise ValuesError(
                f"no observed cell of the {len(validation)} validation stays is masked, so no epoch can be chosen: "
                "give more stays, or raise validation_fraction or masking_rate"
            )
        try:
            with threads.computing():
                trained, best_epoch, history = pretrain.fit(DEFAULT_IMPUTER, data, params, self._recorder())
        except DivergedError:
            raise UserError(f"training diverged: lower learning_rate, {self.learning_rate:g}") from None
        assert isinstance(trained, CsaiImputer)
        self.imputer_, self.scaler_ = trained, data.scaler
        self.n_hours_in_, self.n_features_in_ = array.shape[1:]
        self.validation_stays_ = validation
        self.best_epoch_, self.history_ = best_epoch, _history_table(history)
        return self

    def transform(self, values_NTD: object) -> np.ndarray:
        """Return values (N, T, D) with every missing cell filled; observed cells are the same, bit for bit.

        The result has the type of the values, float32 or float64; whole numbers become float64. A stay without any
        observed cell gets the estimate of an empty record. Raises NotFittedError before `fit`, ValuesError for other
        hours or variables than in `fit`, or values that `fit` would refuse.
        """
        array = self._checked(values_NTD)
        filled_NTD = self.scaler_.restore(self._represent(array).imputed_BTD.numpy())
        return np.where(np.isnan(array), filled_NTD.astype(array.dtype), array)

    def represent(self, values_NTD: object) -> np.ndarray:
        """Return the hidden state of each stay, float32 (N, H), which heads read; see `transform` for the errors."""
        hidden_NH = self._represent(self._checked(values_NTD)).hidden_BH
        assert hidden_NH is not None
        return hidden_NH.numpy()

    def save(self, folder: str | Path) -> None:
        """Write the fitted imputer to a folder: imputer.json and weights.safetensors, no pickle and no record.

        An earlier imputer there is replaced. Raises NotFittedError before `fit`; UserError if the folder has other
        files or cannot be written.
        """
        check_is_fitted(self)
        about = About(
            parameters={name: plain(value) for name, value in self.get_params().items()},
            hours=self.n_hours_in_,
            variables=self.n_features_in_,
            best_epoch=self.best_epoch_,
            validation_stays=self.validation_stays_.tolist(),
            history=[{str(name): value for name, value in row.items()} for row in self.history_.to_dict("records")],
        )
        write_folder(Path(folder), about, self.scaler_.to_arrays() | module_weights("imputer", self.imputer_.module))

    @classmethod
    def load(cls, folder: str | Path, *, device: DeviceName | None = None) -> Self:
        """Return a fitted imputer that `save` wrote, on another `device` if one is given; nothing is unpickled.

        Raises UserError, one line, if files are missing, broken, altered or of another format.
        """
        about, weights = read_folder(Path(folder))
        parameters: Any = about.parameters | ({"device": device} if device else {})
        try:
            imputer = cls(**parameters)
            params, shape = training_settings(parameters), (0, about.hours, about.variables)
            trained = saved_imputer(DEFAULT_IMPUTER, shape, params, weights)
            scaler = Scaler.from_arrays(weights)
        except ValuesError:
            raise
        except _MISFIT as error:
            raise UserError(f"the files in {folder} do not fit together ({type(error).__name__}): {AGAIN}") from None
        assert isinstance(trained, CsaiImputer)
        imputer.imputer_, imputer.scaler_ = trained, scaler
        imputer.n_hours_in_, imputer.n_features_in_ = about.hours, about.variables
        imputer.validation_stays_ = np.array(about.validation_stays, dtype=np.int64)
        imputer.best_epoch_, imputer.history_ = about.best_epoch, _history_table(about.history)
        return imputer

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.input_tags.allow_nan = True
        return tags

    def _checked(self, values_NTD: object) -> np.ndarray:
        check_is_fitted(self)
        return checked_values(values_NTD, (self.n_hours_in_, self.n_features_in_))

    def _represent(self, array: np.ndarray) -> Representation:
        values_NTD, observed_NTD = standardised_tensors(array.astype(np.float32), self.scaler_)
        with threads.computing():
            batches = [
                self.imputer_.represent(values_NTD[stays], observed_NTD[stays].float())
                for stays in batches_in_order(len(array))
            ]
        hidden = [batch.hidden_BH for batch in batches if batch.hidden_BH is not None]
        return Representation(torch.cat([batch.imputed_BTD for batch in batches]), torch.cat(hidden))

    def _recorder(self) -> Recorder:
        """Return what prints a line for each epoch on standard output if `verbose` is set."""
        if not self.verbose:
            return SilentRecorder()
        lines = EpochLines(lambda line: print(line, flush=True), seconds=0)  # noqa: T201 (a notebook shows it)
        return LineRecorder(SilentRecorder(), lines, TrainingPlan(label="CSAI", epochs=self.epochs, has_folds=False))


def _history_table(history: list[dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame(history).rename_axis("epoch")
