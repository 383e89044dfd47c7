import numpy as np
import pytest
from xgboost import XGBClassifier

from imputune.models.boosters import Boosters
from imputune.models.non_neural import BoosterSettings, Labelled, Xgboost

SETTINGS = {
    "trees": 60,
    "patience": 8,
    "learning_rate": 0.1,
    "max_depth": 3,
    "stay_fraction": 0.7,
    "feature_fraction": 0.5,
}


def stays(seed: int, count: int = 300) -> Labelled:
    """Return stays with an outcome that is likelier with a high first and a low second feature; some are missing."""
    random = np.random.default_rng(seed)
    features_NF = random.normal(size=(count, 4)).astype(np.float32)
    outcome_N = (features_NF[:, 0] - features_NF[:, 1] + random.normal(size=count) > 1).astype(int)
    features_NF[random.random(features_NF.shape) < 0.2] = np.nan
    return features_NF, outcome_N


def fitted(**changes: float) -> Xgboost:
    """Return boosters fitted on some stays."""
    model = Xgboost(BoosterSettings(**(SETTINGS | changes)))
    model.fit(stays(0), stays(1), seed=3)
    return model


@pytest.mark.parametrize("seeds", [1, 3])
def test_stored_boosters_give_the_risks_of_training(seeds: int) -> None:
    """Without the trees after the best, and read back from their text, they give the same risks to the last bit."""
    model = fitted(seeds=seeds)
    texts = model.to_texts()
    assert len(texts) == seeds
    features_NF, _ = stays(2)
    read = Boosters.from_texts(texts)
    assert read.risk(features_NF).tolist() == model.risk(features_NF).tolist()
    assert [booster.num_boosted_rounds() for booster in read.boosters] == [
        each.best_iteration + 1 for each in model.models
    ]
    assert read.features == 4


def test_the_default_settings_are_xgboosts_own() -> None:
    """min_child_weight 1, l2 1 and one seed give the model that was fitted before there were these settings."""
    before = XGBClassifier(
        n_estimators=60,
        early_stopping_rounds=8,
        learning_rate=0.1,
        max_depth=3,
        subsample=0.7,
        colsample_bytree=0.5,
        eval_metric="auc",
        tree_method="hist",
        n_jobs=1,
        random_state=3,
    )
    before.fit(*stays(0), eval_set=[stays(1)], verbose=False)
    features_NF, _ = stays(2)
    assert fitted().risk(features_NF).tolist() == before.predict_proba(features_NF)[:, 1].tolist()


def test_seeds_are_averaged() -> None:
    """Boosters of seeds 3, 4 and 5 differ, and the risk is the mean of theirs."""
    features_NF, _ = stays(2)
    risks = []
    for seed in (3, 4, 5):
        alone = Xgboost(BoosterSettings(**SETTINGS))
        alone.fit(stays(0), stays(1), seed=seed)
        risks.append(alone.risk(features_NF))
    assert not np.array_equal(risks[0], risks[1])
    np.testing.assert_allclose(fitted(seeds=3).risk(features_NF), np.mean(risks, axis=0), atol=1e-7)


@pytest.mark.parametrize("seeds", [1, 2])
def test_contributions_add_up_to_the_difference_of_risks(seeds: int) -> None:
    """For every stay, in any batch; the risk is the boosters' own, and the strongest features contribute most."""
    boosters = Boosters.from_texts(fitted(seeds=seeds).to_texts())
    features_NF, _ = stays(2)
    parts_NF, risk_N, baseline_N = boosters.contributions(features_NF)
    np.testing.assert_allclose(parts_NF.sum(axis=1), risk_N - baseline_N, atol=1e-12)
    np.testing.assert_allclose(risk_N, boosters.risk(features_NF), atol=1e-6)
    assert np.ptp(baseline_N) < 1e-6
    spread_F = parts_NF.std(axis=0)
    assert spread_F[:2].min() > 3 * spread_F[2:].max()
    alone, _, _ = boosters.contributions(features_NF[5:6])
    np.testing.assert_allclose(alone[0], parts_NF[5], atol=1e-6)


def test_a_stump_by_hand() -> None:
    """One tree that splits once: its feature contributes the whole difference between a leaf and their mean."""
    random = np.random.default_rng(0)
    features_NF = random.normal(size=(400, 2)).astype(np.float32)
    outcome_N = (features_NF[:, 1] > 0).astype(int)
    settings = SETTINGS | {"trees": 1, "max_depth": 1, "stay_fraction": 1.0, "feature_fraction": 1.0}
    model = Xgboost(BoosterSettings(**settings))
    model.fit((features_NF, outcome_N), (features_NF, outcome_N), seed=0)
    boosters = Boosters.from_texts(model.to_texts())
    parts_NF, risk_N, baseline_N = boosters.contributions(features_NF)
    assert (parts_NF[:, 0] == 0).all()
    np.testing.assert_allclose(parts_NF[:, 1], risk_N - baseline_N, atol=1e-12)
    odds_N = np.log(risk_N / (1 - risk_N))
    np.testing.assert_allclose(np.log(baseline_N / (1 - baseline_N)), odds_N.mean(), atol=1e-5)


@pytest.mark.parametrize("text", [b"", b"junk", b"{}", b"[1, 2]", b"\xff\xfe"])
def test_what_is_no_booster_is_a_value_error(text: bytes) -> None:
    """An empty, foreign or broken text is refused; XGBoost alone would end the process over an empty one."""
    with pytest.raises(ValueError):  # noqa: PT011 (the words are those of Python's or XGBoost's parser)
        Boosters.from_texts([text])


def test_half_a_booster_is_a_value_error() -> None:
    """A text that was cut off is refused."""
    [text] = fitted().to_texts()
    with pytest.raises(ValueError):  # noqa: PT011 (the words are those of Python's parser)
        Boosters.from_texts([text[: len(text) // 2]])
