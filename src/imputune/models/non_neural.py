"""Non-neural heads: gradient boosting and a support vector machine on fixed features.

Letters: N stays, F features.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from xgboost import XGBClassifier

Labelled = tuple[np.ndarray, np.ndarray]
"""Features (N, F), NaN where missing, and outcomes 0/1 (N,)."""


class NonNeuralModel(Protocol):
    """A model fitted on training stays; its free choices are made on validation stays."""

    def fit(self, train: Labelled, validation: Labelled, seed: int) -> None:
        """Fit on training stays; choose what is left open on validation stays."""

    def risk(self, features_NF: np.ndarray) -> np.ndarray:
        """Return each stay's risk of the outcome, float64 (N,), in [0, 1]."""


class Xgboost:
    """Gradient-boosted trees; boosting stops when the validation AUC has not risen for `patience` trees.

    The classes are not reweighted: giving both outcomes the same total weight lowered the validation AUC. Risks are the
    model's own, without further calibration.
    """

    def __init__(
        self,
        *,
        trees: int,
        patience: int,
        learning_rate: float,
        max_depth: int,
        stay_fraction: float,
        feature_fraction: float,
    ) -> None:
        self.settings: dict[str, Any] = {
            "n_estimators": trees,
            "early_stopping_rounds": patience,
            "learning_rate": learning_rate,
            "max_depth": max_depth,
            "subsample": stay_fraction,
            "colsample_bytree": feature_fraction,
        }

    def fit(self, train: Labelled, validation: Labelled, seed: int) -> None:
        """Fit the trees."""
        self.model = XGBClassifier(**self.settings, eval_metric="auc", tree_method="hist", n_jobs=1, random_state=seed)
        self.model.fit(*train, eval_set=[validation], verbose=False)

    def risk(self, features_NF: np.ndarray) -> np.ndarray:
        """Return each stay's risk, (N,)."""
        return self.model.predict_proba(features_NF)[:, 1]


class Svm:
    """Support vector machine with a radial kernel on standardised features, missing ones at the mean, classes balanced.

    The cost with the best validation AUC is kept. A sigmoid fitted on validation stays turns its decision scores into
    risks (Platt 1999).
    """

    def __init__(self, costs: tuple[float, ...]) -> None:
        self.costs = costs

    def fit(self, train: Labelled, validation: Labelled, seed: int) -> None:
        """Fit a machine for each cost, keep the best, then fit the sigmoid; nothing is random: `seed` has no effect."""

        def score(model: Pipeline) -> float:
            return float(roc_auc_score(validation[1], model.decision_function(validation[0])))

        models = [self._machine(cost).fit(*train) for cost in self.costs]
        best = FrozenEstimator(max(models, key=score))
        every_N = np.arange(len(validation[1]))
        # One fold of all stays: the machine is fitted already. By default there are five, which few deaths cannot fill.
        calibration = CalibratedClassifierCV(best, method="sigmoid", cv=[(every_N, every_N)])
        self.calibrated = calibration.fit(*validation)

    def risk(self, features_NF: np.ndarray) -> np.ndarray:
        """Return each stay's risk, (N,)."""
        return self.calibrated.predict_proba(features_NF)[:, 1]

    def _machine(self, cost: float) -> Pipeline:
        machine = SVC(C=cost, kernel="rbf", gamma="scale", class_weight="balanced")
        return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), machine)


ESTIMATORS: Mapping[str, Callable[..., NonNeuralModel]] = {"xgboost": Xgboost, "svm": Svm}
