"""Record features: what a head reads of the record itself, beside what the imputer learned.

Letters: N stays, T hours, D variables, S static numbers, F features, R numbers that a network reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch

from imputune.data.static import StaticVariable, static_names, static_numbers
from imputune.data.summary import STATISTICS, summarise

PREFIX = "record."
FITTED_AT_ONCE = 32  # features at least, or all
SCALED_AT_ONCE = 4096  # stays
MOST_DEVIATIONS = 10.0  # from the mean; a network reads no number further out


def record_features(
    values_NTD: np.ndarray,
    observed_NTD: np.ndarray,
    static_NS: np.ndarray,
    parts: Sequence[str],
) -> np.ndarray:
    """Return the features of some parts of a record side by side, float32 (N, F), NaN where unknown.

    Parts: `static`, the static facts; `summary`, the statistics of `summarise`. Shapes: values_NTD float32,
    standardised; observed_NTD bool; static_NS as `static_numbers` gives it.
    """
    columns = {"static": lambda: static_NS, "summary": lambda: summarise(values_NTD, observed_NTD)}
    empty_N0 = np.empty((len(values_NTD), 0), dtype=np.float32)
    return np.concatenate([empty_N0, *(columns[part]() for part in parts)], axis=1)


def feature_names(
    variable_names: Sequence[str], static_variables: Sequence[StaticVariable], parts: Sequence[str]
) -> tuple[str, ...]:
    """Return a name for each column of `record_features`: age_years, HR count, HR minimum, ..."""
    names = {
        "static": static_names(static_variables),
        "summary": tuple(f"{variable} {statistic}" for statistic in STATISTICS for variable in variable_names),
    }
    return tuple(name for part in parts for name in names[part])


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordScaler:
    """Turns record features into numbers that a network reads; fitted on training stays.

    Each feature is standardised, its unknown values set to the training mean (0). A feature that is unknown for some
    training stays has an indicator too, 1 where it is unknown; features that are unknown together share one indicator.

    Shapes: mean_F and deviation_F float32 (F,); indicator_I int64 (I,), the feature of each indicator.
    """

    mean_F: np.ndarray
    deviation_F: np.ndarray
    indicator_I: np.ndarray

    @classmethod
    def fit(cls, features_NF: np.ndarray) -> Self:
        """Fit on the features of training stays; a feature that does not vary, or is never known, is only centred."""
        blocks = np.array_split(features_NF, max(1, features_NF.shape[1] // FITTED_AT_ONCE), axis=1)
        mean_F, deviation_F = np.concatenate([_mean_and_deviation(block) for block in blocks], axis=1)
        known_NF = ~np.isnan(features_NF)
        deviation_F[deviation_F <= 1e-6 * np.maximum(np.abs(mean_F), 1e-6)] = 1.0
        _, first = np.unique(known_NF, axis=1, return_index=True)
        indicators = [feature for feature in np.sort(first) if not known_NF[:, feature].all()]
        return cls(
            mean_F=mean_F.astype(np.float32),
            deviation_F=deviation_F.astype(np.float32),
            indicator_I=np.array(indicators, dtype=np.int64),
        )

    @property
    def size(self) -> int:
        """The number R of numbers that a network reads of each stay."""
        return len(self.mean_F) + len(self.indicator_I)

    def standardised(self, features_NF: np.ndarray) -> torch.Tensor:
        """Return what a network reads of these features, float32 (N, R), every number finite."""
        numbers_NR = np.empty((len(features_NF), self.size), dtype=np.float32)
        for start in range(0, len(features_NF), SCALED_AT_ONCE):
            some = slice(start, start + SCALED_AT_ONCE)
            unknown_BF = np.isnan(features_NF[some])
            scaled_BF = (features_NF[some] - self.mean_F) / self.deviation_F
            scaled_BF = np.where(unknown_BF, 0, np.clip(scaled_BF, -MOST_DEVIATIONS, MOST_DEVIATIONS))
            numbers_NR[some] = np.concatenate([scaled_BF, unknown_BF[:, self.indicator_I]], axis=1)
        return torch.from_numpy(numbers_NR)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays to store with a model: record.mean, record.deviation, record.indicator."""
        return {
            f"{PREFIX}mean": self.mean_F,
            f"{PREFIX}deviation": self.deviation_F,
            f"{PREFIX}indicator": self.indicator_I,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, torch.Tensor | np.ndarray]) -> Self:
        """Return the scaler that `to_arrays` turned into these arrays; other arrays among them are ignored."""
        return cls(
            mean_F=np.asarray(arrays[f"{PREFIX}mean"]),
            deviation_F=np.asarray(arrays[f"{PREFIX}deviation"]),
            indicator_I=np.asarray(arrays[f"{PREFIX}indicator"]),
        )


def _mean_and_deviation(features_NF: np.ndarray) -> np.ndarray:
    """Return each feature's mean and deviation over the stays that have it, float64 (2, F)."""
    known_NF = ~np.isnan(features_NF)
    count_F = np.maximum(known_NF.sum(axis=0), 1)
    number_NF = np.where(known_NF, features_NF, 0.0).astype(np.float64)
    mean_F = number_NF.sum(axis=0) / count_F
    deviation_F = np.sqrt((np.where(known_NF, number_NF - mean_F, 0.0) ** 2).sum(axis=0) / count_F)
    return np.stack([mean_F, deviation_F])


def static_of(static: pd.DataFrame | None, variables: Sequence[StaticVariable], stays: int) -> np.ndarray:
    """Return static facts as numbers, float32 (N, S); without a table of facts, all are unknown."""
    if static is None:
        static = pd.DataFrame(np.nan, index=range(stays), columns=[each.name for each in variables])
    return static_numbers(static, variables)
