"""The fold model of a blend: its members' fold models, and how their risks are combined.

Letters: M members, N stays, T hours, D variables, S numbers of the static facts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imputune.models.blending import Blend
from imputune.registry.bundle import Bundle
from imputune.registry.fold_models import FoldModel, Predictor


@dataclass(frozen=True, eq=False, kw_only=True)
class BlendPredictor:
    """A blend of the members' predictors of one fold."""

    blend: Blend
    members: tuple[Predictor, ...]

    def risk(self, values_NTD: np.ndarray, static_NS: np.ndarray) -> np.ndarray:
        """Return each stay's risk, float32 (N,); see `Predictor.risk`."""
        risk_MN = np.stack([member.risk(values_NTD, static_NS) for member in self.members])
        return self.blend.risk(risk_MN).astype(np.float32)


def blended_model(fold: int, blend: Blend, members: Sequence[Bundle]) -> FoldModel:
    """Return the fold model of a blend of bundles. Its imputer is that of the first member that has one.

    Raises ValueError where a member does not have the fold, or predicts no risk.
    """
    models = [next((model for model in member.models if model.fold == fold), None) for member in members]
    found = [model for model in models if model is not None]
    predictors = [model.predictor for model in found if model.predictor is not None]
    if len(predictors) != len(members) or len(predictors) != len(blend.scales):
        raise ValueError(f"fold {fold} of a blend of {len(blend.scales)} needs the risk of as many members")
    first = next((model for model in found if model.imputer is not None), found[0])
    predictor = BlendPredictor(blend=blend, members=tuple(predictors))
    return FoldModel(fold=fold, scaler=first.scaler, imputer=first.imputer, predictor=predictor)
