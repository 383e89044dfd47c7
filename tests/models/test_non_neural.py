import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from imputune.models import non_neural
from imputune.models.non_neural import ESTIMATORS, BoosterSettings, Labelled, Svm, Xgboost

SETTINGS = {
    "trees": 200,
    "patience": 10,
    "learning_rate": 0.1,
    "max_depth": 3,
    "stay_fraction": 0.7,
    "feature_fraction": 0.5,
}


def stays(seed: int, count: int = 300) -> Labelled:
    """Return stays of which one in five has the outcome, more with a high first feature; some features are missing."""
    random = np.random.default_rng(seed)
    outcome_N = (random.random(count) < 0.2).astype(int)
    features_NF = random.normal(size=(count, 4)).astype(np.float32)
    features_NF[:, 0] += 1.5 * outcome_N
    features_NF[random.random(features_NF.shape) < 0.2] = np.nan
    return features_NF, outcome_N


def build(name: str) -> Xgboost | Svm:
    """Return a small model."""
    return Xgboost(BoosterSettings(**SETTINGS)) if name == "xgboost" else Svm((0.1, 1.0))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_risks_predict_the_outcome_and_are_calibrated(name: str) -> None:
    """Risks predict the outcome better than chance and their mean is near its rate; features may be missing."""
    model = build(name)
    model.fit(stays(0), stays(1), seed=3)
    features_NF, outcome_N = stays(2)
    risk_N = model.risk(features_NF)
    assert roc_auc_score(outcome_N, risk_N) > 0.75
    assert risk_N.mean() == pytest.approx(outcome_N.mean(), abs=0.06)
    assert ((risk_N >= 0) & (risk_N <= 1)).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_same_seed_same_risks_and_a_stay_alone(name: str) -> None:
    """Two fits agree bit for bit, and a stay's risk does not depend on the other stays of the call."""
    models = [build(name) for _ in range(2)]
    for model in models:
        model.fit(stays(0), stays(1), seed=3)
    features_NF, _ = stays(2, 20)
    risks = [model.risk(features_NF) for model in models]
    assert risks[0].tolist() == risks[1].tolist()
    alone = np.concatenate([models[0].risk(features_NF[[row]]) for row in range(20)])
    np.testing.assert_allclose(alone, risks[0], rtol=0, atol=1e-6)


def test_boosting_stops_when_validation_stops_rising() -> None:
    """Far fewer trees than allowed are grown; validation stays choose their number."""
    model = Xgboost(BoosterSettings(**SETTINGS))
    model.fit(stays(0), stays(1), seed=3)
    assert model.models[0].best_iteration + SETTINGS["patience"] < SETTINGS["trees"]
    scores = model.models[0].evals_result()["validation_0"]["auc"]
    assert model.models[0].best_iteration == int(np.argmax(scores))


def test_of_trees_with_an_equal_score_the_lowest_loss_decides() -> None:
    """On an outcome that one feature tells, the AUC is 1 from the first tree on, and the risks are learned anyway."""
    outcome_N = np.arange(60) % 3 == 0
    told = (2 * outcome_N[:, None] + np.linspace(0, 0.5, 60)[:, None]).astype(np.float32), outcome_N.astype(int)
    model = Xgboost(BoosterSettings(**SETTINGS | {"stay_fraction": 1.0, "feature_fraction": 1.0}))
    model.fit(told, told, seed=3)
    scores = model.models[0].evals_result()["validation_0"]
    assert scores["auc"][0] == 1
    assert model.models[0].best_iteration == int(np.argmin(scores["logloss"])) > 20
    assert np.abs(model.risk(told[0]) - outcome_N).max() < 0.2


def test_cost_is_the_best_on_validation() -> None:
    """The cost with the higher validation AUC is kept, whatever the order of the costs."""
    train, validation = stays(0), stays(1)
    scores = {}
    for cost in (0.001, 3.0):
        model = Svm((cost,))
        model.fit(train, validation, seed=0)
        scores[cost] = roc_auc_score(validation[1], model.risk(validation[0]))
    best = max(scores, key=lambda cost: scores[cost])
    for costs in ((0.001, 3.0), (3.0, 0.001)):
        model = Svm(costs)
        model.fit(train, validation, seed=0)
        assert best == model.calibrated.calibrated_classifiers_[0].estimator.estimator.C


@pytest.mark.parametrize("features", ["normal", "constant"])
@pytest.mark.parametrize("most", [300, 299])
def test_shared_kernel_gives_the_risks_of_scikit_learn(features: str, most: int, monkeypatch) -> None:
    """The risks equal those of scikit-learn's SVC with the radial kernel and gamma="scale", on any number of stays."""
    monkeypatch.setattr(non_neural, "SHARED_KERNEL", most)
    train, validation, (features_NF, _) = stays(0), stays(1, 200), stays(2, 100)
    if features == "constant":
        train = np.ones_like(train[0]), train[1]
    model = Svm((0.3,))
    model.fit(train, validation, seed=0)
    assert model.kernel == ("precomputed" if most == 300 else "rbf")
    machine = make_pipeline(SimpleImputer(), StandardScaler(), SVC(C=0.3, gamma="scale", class_weight="balanced"))
    every_N = np.arange(200)
    plain = CalibratedClassifierCV(FrozenEstimator(machine.fit(*train)), method="sigmoid", cv=[(every_N, every_N)])
    expected_N = plain.fit(*validation).predict_proba(features_NF)[:, 1]
    np.testing.assert_allclose(model.risk(features_NF), expected_N, rtol=0, atol=1e-9)


def test_feature_missing_in_every_training_stay_is_no_error() -> None:
    """A feature that is always missing, as of a variable never observed, still allows useful risks."""
    train, validation, test = (
        (np.column_stack([features, np.full(len(features), np.nan, np.float32)]), outcome)
        for features, outcome in (stays(0), stays(1), stays(2))
    )
    for name in ESTIMATORS:
        model = build(name)
        model.fit(train, validation, seed=0)
        assert roc_auc_score(test[1], model.risk(test[0])) > 0.7


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("error")
def test_a_single_death_among_validation_stays_gives_no_warning(name: str) -> None:
    """Few deaths are the user's data, not a fault: scikit-learn and XGBoost say nothing of them."""
    features_NF, outcome_N = stays(1, count=20)
    outcome_N[:] = 0
    outcome_N[3] = 1
    model = build(name)
    model.fit(stays(0), (features_NF, outcome_N), seed=3)
    assert np.isfinite(model.risk(features_NF)).all()
