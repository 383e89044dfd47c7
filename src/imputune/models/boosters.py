"""Gradient-boosted trees as they are stored and asked again: in XGBoost's open format, JSON.

Letters: N stays, F features.

XGBoost is imported when it is needed: most models need none of it. Its other format, UBJSON, is no smaller here, and
XGBoost 3.2 takes minutes and all memory over a truncated UBJSON file.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from xgboost import Booster


class Boosters:
    """Boosters of the same features; the risk is the mean of theirs."""

    def __init__(self, boosters: Sequence["Booster"]) -> None:
        self.boosters = tuple(boosters)

    @classmethod
    def from_texts(cls, texts: Sequence[bytes]) -> Self:
        """Return the boosters that were written as these texts; ValueError if one is no booster."""
        return cls([_parsed(text) for text in texts])

    @property
    def features(self) -> int:
        """The number of features that the boosters read; ValueError if they differ."""
        [features] = {booster.num_features() for booster in self.boosters}
        return features

    def risk(self, features_NF: np.ndarray) -> np.ndarray:
        """Return each stay's risk, float32 (N,); features are float32 (N, F), NaN where unknown."""
        risks = [booster.inplace_predict(features_NF, missing=np.nan) for booster in self.boosters]
        return np.mean(np.stack(risks), axis=0)

    def contributions(self, features_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return each feature's contribution to the risk, float64 (N, F), the risk (N,) and the baseline's risk (N,).

        TreeSHAP splits a booster's log-odds into a part for each feature and the baseline's log-odds, which the trees
        give to the average training stay. Every part is multiplied by the same number, so that the parts of a stay add
        up to its risk minus the baseline's: that number is the mean slope of the risk between the two log-odds.

        Source: Lundberg et al. 2020 (arXiv 1905.04610), by XGBoost; the scaling is ours.
        """
        found = [_contributions(booster, features_NF) for booster in self.boosters]
        parts, risks, baselines = zip(*found, strict=True)
        return np.mean(parts, axis=0), np.mean(risks, axis=0), np.mean(baselines, axis=0)


def booster_text(booster: "Booster", trees: int) -> bytes:
    """Return the first trees of a booster in XGBoost's open format; it gives the same risks as these trees."""
    return bytes(booster[:trees].save_raw("json"))


def _parsed(text: bytes) -> "Booster":
    from xgboost import Booster

    json.loads(text)  # XGBoost ends the process over an empty text
    booster = Booster({"nthread": 1})
    booster.load_model(bytearray(text))
    return booster


def _contributions(booster: "Booster", features_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from xgboost import DMatrix

    parts_NF = booster.predict(DMatrix(features_NF, nthread=1), pred_contribs=True).astype(np.float64)
    parts_NF, baseline_N = parts_NF[:, :-1], parts_NF[:, -1]
    odds_N = baseline_N + parts_NF.sum(axis=1)
    risk_N, baseline_risk_N = _risk(odds_N), _risk(baseline_N)
    difference_N = odds_N - baseline_N
    is_far_N = np.abs(difference_N) > 1e-9
    slope_N = np.where(
        is_far_N, (risk_N - baseline_risk_N) / np.where(is_far_N, difference_N, 1.0), risk_N * (1 - risk_N)
    )
    return parts_NF * slope_N[:, None], risk_N, baseline_risk_N


def _risk(log_odds_N: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds_N))
