"""A bundle's fold models: what one fold's training left, ready to predict from raw records.

`joint_risks` asks the models of all folds together. Letters: N stays, T hours, D variables, S numbers of the static
facts, F features, R numbers that a network reads of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from imputune.data.record_features import RecordScaler, record_features
from imputune.data.scaling import Scaler, standardised_tensors
from imputune.imputers.csai import CsaiImputer
from imputune.models.blending import Blend
from imputune.models.boosters import Boosters
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai
from imputune.runtime import threads
from imputune.settings.names import Input
from imputune.training.head_inputs import non_neural_features, parts_of_record

NO_IMPUTER = (
    "this model reads no imputer, so it has no imputed series: name another version with --model, one with input "
    "hidden, imputed or raw"
)
NO_RISK = "this bundle imputes and predicts no risk: load a model of an outcome, such as imputune-mortality"


class FoldRecord:
    """Some stays as the models of one fold read them.

    values_NTD: standardised, 0 where not observed; observed_NTD: bool; static_NS: see `data.static.static_numbers`.
    """

    def __init__(self, scaler: Scaler, values_NTD: np.ndarray, static_NS: np.ndarray) -> None:
        """Standardise float32 values in the variables' units, NaN where not observed; they stay as they are."""
        self.values_NTD, self.observed_NTD = standardised_tensors(values_NTD.copy(), scaler)
        self.static_NS = static_NS

    def features(self, parts: Sequence[str]) -> np.ndarray:
        """Return the features of some parts of the record, float32 (N, F); see `record_features`."""
        return np.concatenate([self._part(part) for part in parts], axis=1)

    def _part(self, part: str) -> np.ndarray:
        return self._summary_NF if part == "summary" else self._features_of(part)

    @cached_property
    def _summary_NF(self) -> np.ndarray:
        """The statistics, which several members of a blend read."""
        return self._features_of("summary")

    def _features_of(self, part: str) -> np.ndarray:
        return record_features(self.values_NTD.numpy(), self.observed_NTD.numpy(), self.static_NS, (part,))


@dataclass(frozen=True, eq=False, kw_only=True)
class NeuralPredictor:
    """A neural head on CSAI. record_parts: what of the record itself the head reads, scaled by record_scaler."""

    scaler: Scaler
    classifier: Classifier
    record_scaler: RecordScaler | None = None
    record_parts: tuple[str, ...] = ()

    def record(self, record: FoldRecord) -> torch.Tensor | None:
        """Return the record features that the head reads, (N, R), None if it reads none."""
        if self.record_scaler is None:
            return None
        return self.record_scaler.standardised(record.features(self.record_parts))


@dataclass(frozen=True, eq=False, kw_only=True)
class BoosterPredictor:
    """Boosted trees on the features of an input; `imputer` is None if the input reads none."""

    scaler: Scaler
    imputer: CsaiImputer | None
    boosters: Boosters
    input: Input

    def features(self, record: FoldRecord) -> np.ndarray:
        """Return the features that the trees read, float32 (N, F); see `non_neural_features`."""
        if self.imputer is None:
            return record.features(parts_of_record(self.input))
        with threads.computing():
            learned = self.imputer.represent(record.values_NTD, record.observed_NTD.float())
        return non_neural_features(
            self.input,
            values_NTD=record.values_NTD.numpy(),
            observed_NTD=record.observed_NTD.numpy(),
            static_NS=record.static_NS,
            learned=learned,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class BlendPredictor:
    """A blend of the members' predictors of one fold."""

    blend: Blend
    members: tuple["Predictor", ...]


Predictor = NeuralPredictor | BoosterPredictor | BlendPredictor
"""What gives the risks of one fold; see `joint_risks.joint`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldModel:
    """One fold's models: `predictor` is None in a bundle of imputers, `imputer` where the head reads none."""

    fold: int
    scaler: Scaler
    imputer: Csai | None
    predictor: Predictor | None = None


def blended_model(fold: int, blend: Blend, members: Sequence[Sequence[FoldModel]]) -> FoldModel:
    """Return the fold model of a blend, from the fold models of its members.

    Its imputer is that of the first member that has one. Raises ValueError where a member does not have the fold, or
    predicts no risk.
    """
    models = [next((model for model in member if model.fold == fold), None) for member in members]
    found = [model for model in models if model is not None]
    predictors = [model.predictor for model in found if model.predictor is not None]
    if len(predictors) != len(members) or len(predictors) != len(blend.scales):
        raise ValueError(f"fold {fold} of a blend of {len(blend.scales)} needs the risk of as many members")
    first = next((model for model in found if model.imputer is not None), found[0])
    predictor = BlendPredictor(blend=blend, members=tuple(predictors))
    return FoldModel(fold=fold, scaler=first.scaler, imputer=first.imputer, predictor=predictor)
