"""What added how much to one stay's risk, for every kind of predictor.

Letters: T hours, D variables, S numbers of the static facts, R record features that a network reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from imputune.data.summary import STATISTICS
from imputune.errors import UserError
from imputune.models.attributions import RecordPath, attribute_risk
from imputune.protocol.variants import base_of
from imputune.registry.fold_models import BoosterPredictor, FoldRecord, NeuralPredictor, Predictor
from imputune.runtime import threads
from imputune.training.head_inputs import parts_of_record


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribution:
    """The parts of one stay's risk, float64; they add up to risk - baseline, nearly exactly (see `gap`).

    cells_TD: of each cell, also imputed ones where the head reads these as its features. statistics_D: of all
    statistics of a variable. static_S: of the static facts. hidden: of the whole hidden state, shape (). A part is None
    if the head does not read it, or if other parts have it: a network's hidden state comes from its cells.
    """

    risk: np.ndarray
    baseline: np.ndarray
    cells_TD: np.ndarray | None = None
    statistics_D: np.ndarray | None = None
    static_S: np.ndarray | None = None
    hidden: np.ndarray | None = None

    @classmethod
    def mean(cls, several: Sequence[Self]) -> Self:
        """Return the mean over predictors of the same input."""
        named = {field.name: [getattr(each, field.name) for each in several] for field in fields(cls)}
        return cls(**{name: np.mean(parts, axis=0) for name, parts in named.items() if parts[0] is not None})

    def rescaled(self, risk: np.ndarray, baseline: np.ndarray) -> Self:
        """Return the parts of another risk: recalibration bends the risk as a whole, so it scales every part alike."""
        moved = float(self.risk - self.baseline)
        factor = float(risk - baseline) / moved if moved else 1.0
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        scaled = {name: None if part is None else part * factor for name, part in parts.items()}
        return type(self)(**scaled | {"risk": risk, "baseline": baseline})

    @property
    def gap(self) -> float:
        """The difference between the sum of all parts and risk - baseline, 0 or more."""
        parts = (self.cells_TD, self.statistics_D, self.static_S, self.hidden)
        added = sum(float(part.sum()) for part in parts if part is not None)
        return abs(added - float(self.risk - self.baseline))


def attribute(predictor: Predictor, values_1TD: np.ndarray, static_1S: np.ndarray, steps: int) -> Attribution:
    """Attribute the risk that a predictor gives one stay; `steps` is for networks, see `attribute_risk`.

    Networks: integrated gradients. The baseline has the stay's pattern of observed cells and known facts, and every
    value, statistic and fact at its training mean. Boosters: TreeSHAP; see `Boosters.contributions`. Raises UserError
    for another kind of predictor.
    """
    if isinstance(predictor, NeuralPredictor):
        return _of_network(predictor, values_1TD, static_1S, steps)
    if isinstance(predictor, BoosterPredictor):
        return _of_boosters(predictor, values_1TD, static_1S)
    raise UserError("this model's risks cannot be explained: name another version with --model")


def _of_network(predictor: NeuralPredictor, values_1TD: np.ndarray, static_1S: np.ndarray, steps: int) -> Attribution:
    record = FoldRecord(predictor.scaler, values_1TD, static_1S)
    record_1R, path, features = predictor.record(record), None, 0
    if record_1R is not None and predictor.record_scaler is not None:
        features = len(predictor.record_scaler.mean_F)
        start_1R = record_1R.clone()  # the indicators after the features stay: they say what is known
        start_1R[:, :features] = 0
        path = RecordPath(record_1R, start_1R)
    with threads.computing():
        found = attribute_risk(predictor.classifier, record.values_NTD, record.observed_NTD.float(), steps, path)
    record_F = np.empty(0) if found.record_BR is None else found.record_BR[0, :features].numpy().astype(np.float64)
    parts = _record_parts(record_F, predictor.record_parts, _widths(static_1S.shape[1], values_1TD.shape[2]))
    cells_TD = found.cells_BTD[0].numpy().astype(np.float64)
    return Attribution(
        risk=found.risk_B[0].double().numpy(), baseline=found.baseline_B[0].double().numpy(), cells_TD=cells_TD, **parts
    )


def _of_boosters(predictor: BoosterPredictor, values_1TD: np.ndarray, static_1S: np.ndarray) -> Attribution:
    record = FoldRecord(predictor.scaler, values_1TD, static_1S)
    parts_1F, risk_1, baseline_1 = predictor.boosters.contributions(predictor.features(record))
    _, hours, variables = values_1TD.shape
    record_parts = parts_of_record(predictor.input)
    widths = _widths(static_1S.shape[1], variables)
    learned = parts_1F.shape[1] - sum(widths[part] for part in record_parts)
    parts = _record_parts(parts_1F[0, learned:], record_parts, widths)
    if base_of(predictor.input) == "imputed":
        parts["cells_TD"] = parts_1F[0, :learned].reshape(hours, variables)
    elif learned:
        parts["hidden"] = np.asarray(parts_1F[0, :learned].sum())
    return Attribution(risk=risk_1[0], baseline=baseline_1[0], **parts)


def _widths(static: int, variables: int) -> dict[str, int]:
    """Return how many features each part of the record has; `static` is the number S."""
    return {"static": static, "summary": len(STATISTICS) * variables}


def _record_parts(record_F: np.ndarray, parts: Sequence[str], widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Divide the attributions of `record_features` among static facts and statistics, float64."""
    found, place = {}, 0
    for part in parts:
        of_part = record_F[place : place + widths[part]]
        place += widths[part]
        if part == "static":
            found["static_S"] = of_part
        else:
            found["statistics_D"] = of_part.reshape(len(STATISTICS), -1).sum(axis=0)
    return found
