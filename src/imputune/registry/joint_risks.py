"""The risks that the models of several folds give the same stays; the networks of all folds read them in one pass.

Letters: F fold models, M members of a blend, N stays, B of a batch, T hours, D variables, S numbers of static facts.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch

from imputune.data.scaling import Scaler
from imputune.models.stacked_csai import StackedCsai
from imputune.registry.fold_models import BlendPredictor, BoosterPredictor, FoldRecord, NeuralPredictor, Predictor
from imputune.runtime import threads

BATCH = 256  # stays; a stay's results do not depend on it
Kind = TypeVar("Kind", NeuralPredictor, BoosterPredictor, BlendPredictor)


class StayBatch:
    """Some stays, standardised once for all models that have the same scaler.

    Shapes: values_BTD float32 in the variables' units, NaN where not observed; static_BS float32, as
    `data.static.static_numbers` gives it.
    """

    def __init__(self, values_BTD: np.ndarray, static_BS: np.ndarray) -> None:
        self.values_BTD, self.static_BS = values_BTD, static_BS
        self._records: dict[bytes, FoldRecord] = {}

    def record(self, scaler: Scaler) -> FoldRecord:
        """Return the stays as the models with this scaler read them."""
        key = b"".join(each.tobytes() for each in scaler.to_arrays().values())
        if key not in self._records:
            self._records[key] = FoldRecord(scaler, self.values_BTD, self.static_BS)
        return self._records[key]


class JointRisks(Protocol):
    """The models of several folds."""

    def of(self, stays: StayBatch) -> np.ndarray:
        """Return each fold's risk of the outcome, float32 (F, B)."""


class NeuralRisks:
    """Neural heads on the imputers of their folds."""

    def __init__(self, predictors: Sequence[NeuralPredictor]) -> None:
        self.predictors = predictors
        self.imputers = StackedCsai([each.classifier.imputer for each in predictors])

    def of(self, stays: StayBatch) -> np.ndarray:
        """Return each fold's risk; see `JointRisks.of`."""
        records = [stays.record(each.scaler) for each in self.predictors]
        values_FBTD = torch.stack([record.values_NTD for record in records])
        read = self.imputers.read(values_FBTD, records[0].observed_NTD.float(), self.predictors[0].classifier.state)
        logits = []
        with torch.no_grad():
            for predictor, record, state_BS, imputed_BTD in zip(self.predictors, records, *read, strict=True):
                classifier, features = predictor.classifier, predictor.record(record)
                read_by_head = classifier.choose(state_BS, imputed_BTD, record.values_NTD)
                logits.append(classifier.head(*read_by_head, *(() if features is None else (features,))))
            return torch.sigmoid(torch.stack(logits)).numpy()


class BoostedRisks:
    """Boosted trees of several folds, which are asked one after the other."""

    def __init__(self, predictors: Sequence[BoosterPredictor]) -> None:
        self.predictors = predictors

    def of(self, stays: StayBatch) -> np.ndarray:
        """Return each fold's risk; see `JointRisks.of`."""
        return np.stack([each.boosters.risk(each.features(stays.record(each.scaler))) for each in self.predictors])


class BlendedRisks:
    """Blends of several folds: each member is asked for all its folds together."""

    def __init__(self, predictors: Sequence[BlendPredictor]) -> None:
        self.blends = [each.blend for each in predictors]
        self.members = [joint(of_member) for of_member in zip(*(each.members for each in predictors), strict=True)]

    def of(self, stays: StayBatch) -> np.ndarray:
        """Return each fold's risk; see `JointRisks.of`."""
        risk_FMB = np.stack([member.of(stays) for member in self.members], axis=1)
        risks = [blend.risk(risk_MB) for blend, risk_MB in zip(self.blends, risk_FMB, strict=True)]
        return np.stack(risks).astype(np.float32)


def joint(predictors: Sequence[Predictor]) -> JointRisks:
    """Return the predictors of several folds as one; they are of one kind, as a variant's are, or it is a TypeError."""
    if neural := _all_of(NeuralPredictor, predictors):
        return NeuralRisks(neural)
    if boosted := _all_of(BoosterPredictor, predictors):
        return BoostedRisks(boosted)
    if blended := _all_of(BlendPredictor, predictors):
        return BlendedRisks(blended)
    raise TypeError(f"predictors must be of one kind, got {', '.join(type(each).__name__ for each in predictors)}")


def risks(models: JointRisks, values_NTD: np.ndarray, static_NS: np.ndarray) -> np.ndarray:
    """Return each fold's risk of all stays, float32 (F, N), batch by batch; shapes as `StayBatch`."""

    def of_batch(start: int) -> np.ndarray:
        some = slice(start, start + BATCH)
        return models.of(StayBatch(values_NTD[some], static_NS[some]))

    return np.concatenate(threads.side_by_side(of_batch, range(0, len(values_NTD), BATCH)), axis=1)


def _all_of(kind: type[Kind], predictors: Sequence[Predictor]) -> list[Kind]:
    """Return the predictors if all are of a kind, else none."""
    found = [each for each in predictors if isinstance(each, kind)]
    return found if len(found) == len(predictors) else []
