"""Non-neural heads: gradient boosting and a support vector machine on fixed features.

Letters: N stays, F features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from xgboost import XGBClassifier
from xgboost.callback import TrainingCallback

from imputune.models.boosters import booster_text

SHARED_KERNEL = 8192  # training stays: 0.5 GiB, and 1 GiB for a moment
Labelled = tuple[np.ndarray, np.ndarray]
"""Features (N, F), NaN where missing, and outcomes 0/1 (N,)."""


class NonNeuralModel(Protocol):
    """A model fitted on training stays; its free choices are made on validation stays."""

    def fit(self, train: Labelled, validation: Labelled, seed: int) -> None:
        """Fit on training stays; choose what is left open on validation stays."""

    def risk(self, features_NF: np.ndarray) -> np.ndarray:
        """Return each stay's risk of the outcome, float (N,), in [0, 1]."""

    def to_texts(self) -> tuple[bytes, ...]:
        """Return what is kept of the model, in an open format; nothing if the model consists of records."""


@dataclass(frozen=True, kw_only=True)
class BoosterSettings:
    """What decides the trees: see `settings.head_sections.Xgboost`."""

    trees: int
    patience: int
    learning_rate: float
    max_depth: int
    stay_fraction: float
    feature_fraction: float
    min_child_weight: float = 1.0
    l2: float = 1.0
    seeds: int = 1


class Xgboost:
    """Gradient-boosted trees; boosting stops when the validation AUC has not risen for `patience` trees.

    While the AUC stays equal, a lower validation loss counts as a rise: the first tree may order the stays as well as
    all trees do, but its risks are still close to the outcome's rate.

    With `seeds` above 1, so many boosters differ in their random draws, and the risk is the mean of theirs.

    The classes are not reweighted: giving both outcomes the same total weight lowered the validation AUC. Risks are the
    model's own, without further calibration.
    """

    def __init__(self, settings: BoosterSettings) -> None:
        self.seeds, self.patience = settings.seeds, settings.patience
        self.settings: dict[str, Any] = {
            "n_estimators": settings.trees,
            "learning_rate": settings.learning_rate,
            "max_depth": settings.max_depth,
            "subsample": settings.stay_fraction,
            "colsample_bytree": settings.feature_fraction,
            "min_child_weight": settings.min_child_weight,
            "reg_lambda": settings.l2,
        }

    def fit(self, train: Labelled, validation: Labelled, seed: int) -> None:
        """Fit the trees."""
        self.models = [self._fitted(train, validation, seed + place) for place in range(self.seeds)]

    def risk(self, features_NF: np.ndarray) -> np.ndarray:
        """Return each stay's risk, (N,): the mean over seeds."""
        return np.mean(np.stack([model.predict_proba(features_NF)[:, 1] for model in self.models]), axis=0)

    def to_texts(self) -> tuple[bytes, ...]:
        """Return the boosters as they are stored, without the trees after the best; see `models.boosters`."""
        return tuple(booster_text(model.get_booster(), model.best_iteration + 1) for model in self.models)

    def _fitted(self, train: Labelled, validation: Labelled, seed: int) -> XGBClassifier:
        model = XGBClassifier(
            **self.settings,
            eval_metric=["logloss", "auc"],
            callbacks=[_BestTree(self.patience)],
            tree_method="hist",
            n_jobs=1,
            random_state=seed,
        )
        return model.fit(*train, eval_set=[validation], verbose=False)


class _BestTree(TrainingCallback):
    """Stops boosting `patience` trees after the best: the highest AUC, of equal ones the lowest loss."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best = patience, (-np.inf, -np.inf)

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        """Note the best tree where XGBoost reads it; say whether to stop."""
        [scores] = evals_log.values()
        score = (scores["auc"][-1], -scores["logloss"][-1])
        if score > self.best:
            self.best = score
            model.set_attr(best_score=str(score[0]), best_iteration=str(epoch))
        return epoch - int(model.attr("best_iteration")) >= self.patience


class _Machine(SVC):  # type: ignore[misc]  # scikit-learn has no types
    """An SVC whose decision scores CalibratedClassifierCV can use with a precomputed kernel too.

    For a precomputed kernel, scikit-learn expects a square matrix and selects the same rows and columns. Here the rows
    are validation stays and the columns all training stays, so it may select rows only.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = False
        return tags


class Svm:
    """Support vector machine with a radial kernel on standardised features, missing ones at the mean, classes balanced.

    The cost with the best validation AUC is kept. A sigmoid fitted on validation stays turns its decision scores into
    risks (Platt 1999).

    The kernel does not depend on the cost. For up to SHARED_KERNEL training stays it is computed once, by a matrix
    product, and takes 8 bytes for each pair of stays, twice for a moment. libsvm computes it again for each cost, one
    pair at a time: 18 times as long on 2,400 stays of 1,680 features.
    """

    def __init__(self, costs: tuple[float, ...]) -> None:
        self.costs = costs

    def fit(self, train: Labelled, validation: Labelled, seed: int) -> None:
        """Fit a machine for each cost, keep the best, then fit the sigmoid; nothing is random: `seed` has no effect."""
        self.standardise = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()).fit(train[0])
        self.training_NF = self._standardised(train[0])
        variance = self.training_NF.var()
        self.gamma = 1 / (self.training_NF.shape[1] * variance) if variance else 1.0  # as SVC's gamma="scale"
        self.kernel = "precomputed" if len(self.training_NF) <= SHARED_KERNEL else "rbf"
        train_N, validation_N = self._read(self.training_NF), self._read(self._standardised(validation[0]))

        def score(machine: SVC) -> float:
            return float(roc_auc_score(validation[1], machine.decision_function(validation_N)))

        settings = {"kernel": self.kernel, "gamma": self.gamma, "class_weight": "balanced"}
        machines = [_Machine(C=cost, **settings).fit(train_N, train[1]) for cost in self.costs]
        best = FrozenEstimator(max(machines, key=score))
        every_N = np.arange(len(validation[1]))
        # One fold of all stays: the machine is fitted already. By default there are five, which few events cannot fill.
        calibration = CalibratedClassifierCV(best, method="sigmoid", cv=[(every_N, every_N)])
        self.calibrated = calibration.fit(validation_N, validation[1])

    def risk(self, features_NF: np.ndarray) -> np.ndarray:
        """Return each stay's risk, (N,)."""
        return self.calibrated.predict_proba(self._read(self._standardised(features_NF)))[:, 1]

    def to_texts(self) -> tuple[bytes, ...]:
        """Return nothing: support vectors are records of patients."""
        return ()

    def _standardised(self, features_NF: np.ndarray) -> np.ndarray:
        return self.standardise.transform(features_NF).astype(np.float64)

    def _read(self, standardised_NF: np.ndarray) -> np.ndarray:
        """Return what a machine reads of stays: their kernel with all training stays, or their features."""
        if self.kernel == "rbf":
            return standardised_NF
        return rbf_kernel(standardised_NF, self.training_NF, gamma=self.gamma)


ESTIMATORS: Mapping[str, Callable[..., NonNeuralModel]] = {
    "xgboost": lambda **settings: Xgboost(BoosterSettings(**settings)),
    "svm": Svm,
}
