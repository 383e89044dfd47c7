"""A bundle's fold models: what one fold's training left, ready to predict from raw records.

Letters: N stays, T hours, D variables, S numbers of the static facts, B stays of a batch, R record features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from imputune.data.directions import Directions
from imputune.data.record_features import RecordScaler, record_features
from imputune.data.scaling import Scaler, standardised_tensors
from imputune.errors import UserError
from imputune.imputers.csai import CsaiImputer
from imputune.models.boosters import Boosters
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai
from imputune.runtime import threads
from imputune.settings.names import Input
from imputune.training.head_inputs import non_neural_features

BATCH = 256  # stays; a stay's results do not depend on it
NO_IMPUTER = (
    "this model reads no imputer, so it has no imputed series: name another version with --model, one with input "
    "hidden, imputed or raw"
)
NO_RISK = "this bundle imputes and predicts no risk: load a model of an outcome, such as imputune-mortality"


class Predictor(Protocol):
    """What gives the risks of one fold."""

    def risk(self, values_NTD: np.ndarray, static_NS: np.ndarray) -> np.ndarray:
        """Return each stay's risk of the outcome, float32 (N,).

        Shapes: values_NTD float32 in the variables' units, NaN where not observed; static_NS float32, as
        `data.static.static_numbers` gives it. Neither is changed.
        """


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldModel:
    """One fold's models: `predictor` is None in a bundle of imputers, `imputer` where the head reads none."""

    fold: int
    scaler: Scaler
    imputer: Csai | None
    predictor: Predictor | None = None

    def risk(self, values_NTD: np.ndarray, static_NS: np.ndarray) -> np.ndarray:
        """Return each stay's risk, float32 (N,); see `Predictor.risk`. Raises UserError in a bundle of imputers."""
        if self.predictor is None:
            raise UserError(NO_RISK)
        return self.predictor.risk(values_NTD, static_NS)

    def impute(self, values_NTD: np.ndarray) -> np.ndarray:
        """Return values as float32 (N, T, D) in the variables' units, each missing one imputed.

        Raises UserError if there is no imputer.
        """
        if self.imputer is None:
            raise UserError(NO_IMPUTER)
        with torch.no_grad(), threads.computing():
            imputed = [self.imputer(each).imputed_BTD.numpy() for each in batches(self.scaler, values_NTD)]
        return self.scaler.restore(np.concatenate(imputed))


@dataclass(frozen=True, eq=False, kw_only=True)
class NeuralPredictor:
    """A neural head on CSAI. record_parts: what of the record itself the head reads, scaled by record_scaler."""

    scaler: Scaler
    classifier: Classifier
    record_scaler: RecordScaler | None = None
    record_parts: tuple[str, ...] = ()

    def risk(self, values_NTD: np.ndarray, static_NS: np.ndarray) -> np.ndarray:
        """Return each stay's risk, float32 (N,); see `Predictor.risk`."""
        with torch.no_grad(), threads.computing():
            logits = []
            for batch, directions in enumerate(batches(self.scaler, values_NTD)):
                some = slice(batch * BATCH, (batch + 1) * BATCH)
                logits.append(self.classifier(directions, self.record(values_NTD[some], static_NS[some])))
            return torch.sigmoid(torch.cat(logits)).numpy()

    def record(self, values_NTD: np.ndarray, static_NS: np.ndarray) -> torch.Tensor | None:
        """Return the record features that the head reads, (N, R), None if it reads none; see `record_features`."""
        if self.record_scaler is None:
            return None
        standardised, observed = standardised_tensors(values_NTD.copy(), self.scaler)
        return self.record_scaler.standardised(
            record_features(standardised.numpy(), observed.numpy(), static_NS, self.record_parts)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class BoosterPredictor:
    """Boosted trees on the features of an input; `imputer` is None if the input reads none."""

    scaler: Scaler
    imputer: CsaiImputer | None
    boosters: Boosters
    input: Input

    def risk(self, values_NTD: np.ndarray, static_NS: np.ndarray) -> np.ndarray:
        """Return each stay's risk, float32 (N,); see `Predictor.risk`."""
        places = range(0, len(values_NTD), BATCH)
        batches = [(values_NTD[start : start + BATCH], static_NS[start : start + BATCH]) for start in places]
        return np.concatenate([self.boosters.risk(self.features(*batch)) for batch in batches])

    def features(self, values_NTD: np.ndarray, static_NS: np.ndarray) -> np.ndarray:
        """Return the features that the trees read, float32 (N, F); see `non_neural_features`."""
        standardised, observed = standardised_tensors(values_NTD.copy(), self.scaler)
        with threads.computing():
            learned = self.imputer.represent(standardised, observed.float()) if self.imputer else None
        return non_neural_features(
            self.input,
            values_NTD=standardised.numpy(),
            observed_NTD=observed.numpy(),
            static_NS=static_NS,
            learned=learned,
        )


def batches(scaler: Scaler, values_NTD: np.ndarray) -> Iterator[Directions]:
    """Yield what an imputer reads, batch by batch; the values are in the variables' units, NaN where missing."""
    for start in range(0, len(values_NTD), BATCH):
        standardised, observed = standardised_tensors(values_NTD[start : start + BATCH].copy(), scaler)
        yield Directions.of(standardised, observed.float())
