"""Bundles whose head is xgboost: stored in its open format, asked, explained, served."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc.model import PythonModelContext
from pydantic import ValidationError
from xgboost import Booster, DMatrix, XGBClassifier

from imputune.artifacts.stage_files import booster_files
from imputune.artifacts.stage_output import TrainedFold
from imputune.data.directions import Directions
from imputune.data.raw.binning import BinnedStays
from imputune.data.static import AGE, ICU_TYPE
from imputune.data.summary import summarise
from imputune.errors import UserError
from imputune.models.csai import Csai
from imputune.models.weights import load_module
from imputune.pipeline.explain import explain_stay
from imputune.registry.bundle_file import copy_bundle, read_bundle, write_bundle
from imputune.registry.fold_models import NO_IMPUTER
from imputune.registry.register import EXAMPLE, serving_requirements
from imputune.registry.serving import BundleModel

INPUTS = ["summary", "summary+static", "hidden+static+summary", "imputed", "imputed+static"]
STATIC = pd.DataFrame({"age_years": [54.0, np.nan, 80.0], "icu_type": [2.0, 4.0, np.nan]})
STATIC_NS = np.array([[54, 0, 1, 0, 0], [np.nan, 0, 0, 0, 1], [80, np.nan, np.nan, np.nan, np.nan]], dtype=np.float32)


@pytest.fixture
def boosted(make_about, train):
    """Describe a bundle of boosters that read an input, and train its folds on random features."""

    def make(reads, seeds=1):
        static = (AGE, ICU_TYPE) if "static" in reads else ()
        about = make_about(head="xgboost", input=reads, mlp_width=None, static=static)
        neural = train(make_about())
        return about, [_fold(about, fold, seeds) for fold in neural]

    return make


def _fold(about, neural: TrainedFold, seeds: int) -> TrainedFold:
    random = np.random.default_rng(neural.fold)
    values_NTD = random.normal([80, 37, 7.4], [15, 1, 0.1], (120, 48, 3)).astype(np.float32)
    values_NTD[random.random(values_NTD.shape) < 0.8] = np.nan
    static_NS = np.zeros((120, 5), dtype=np.float32)
    static_NS[:, 0] = random.uniform(20, 90, 120)
    static_NS[np.arange(120), random.integers(1, 5, 120)] = 1
    features_NF = features(about, neural.weights, values_NTD, static_NS)
    outcome_N = (features_NF[:, -1] + random.normal(0, 1, 120) > np.median(features_NF[:, -1])).astype(int)
    texts = []
    for seed in range(seeds):
        model = XGBClassifier(n_estimators=15, max_depth=3, subsample=0.8, n_jobs=1, random_state=seed)
        texts.append(bytes(model.fit(np.nan_to_num(features_NF), outcome_N).get_booster().save_raw("json")))
    kept = {name: array for name, array in neural.weights.items() if name.startswith(("scaler.", "imputer."))}
    if about.input.startswith("summary"):
        kept = {name: array for name, array in kept.items() if name.startswith("scaler.")}
    return TrainedFold(
        fold=neural.fold,
        weights=kept,
        boosters=tuple(texts),
        scores=neural.scores,
        best_epoch=0,
        seconds=1.0,
        history=[],
    )


def features(about, weights, values_NTD, static_NS):
    """Return the features of an input, step by step from a fold's arrays."""
    clipped_NTD = np.clip(values_NTD, weights["scaler.lowest"], weights["scaler.highest"])
    scaled_NTD = ((clipped_NTD - weights["scaler.mean"]) / weights["scaler.deviation"]).astype(np.float32)
    observed_NTD = ~np.isnan(values_NTD)
    scaled_NTD = np.where(observed_NTD, scaled_NTD, 0)
    imputer = Csai(about.sizes).eval()
    load_module("imputer", imputer, {name: torch.from_numpy(array) for name, array in weights.items()})
    with torch.no_grad():
        found = imputer(Directions.of(torch.from_numpy(scaled_NTD), torch.from_numpy(observed_NTD).float()))
    imputed_NTD = np.where(observed_NTD, scaled_NTD, found.imputed_BTD.numpy())
    parts = {
        "hidden": found.last_BH.numpy(),
        "imputed": imputed_NTD.reshape(len(values_NTD), -1),
        "summary": summarise(scaled_NTD, observed_NTD),
        "static": static_NS,
    }
    return np.concatenate([parts[part] for part in about.input.split("+")], axis=1).astype(np.float32)


def with_imputer(fold, train, make_about):
    """Return a fold's arrays, with the imputer's, which the hand-made features need whatever the input."""
    [neural] = [each for each in train(make_about()) if each.fold == fold.fold]
    return neural.weights | dict(fold.weights)


def stays_of(values_NTD):
    """Return the stays 11, 12 and 13 with their static facts."""
    return BinnedStays(stay_ids_N=np.arange(11, 14), values_NTD=values_NTD, ignored={}, static=STATIC)


@pytest.mark.parametrize("reads", INPUTS)
@pytest.mark.parametrize("seeds", [1, 2])
def test_each_fold_predicts_with_its_own_boosters(
    tmp_path, boosted, train, make_about, values_NTD, monkeypatch, reads, seeds
):
    """The risks are those of the stored trees on features made by hand, whatever the batch."""
    about, folds = boosted(reads, seeds)
    write_bundle(tmp_path, about, folds)
    bundle = read_bundle(tmp_path)
    risk_FN = bundle.risk_by_fold(values_NTD, STATIC)
    for place, fold in enumerate(folds):
        features_NF = features(about, with_imputer(fold, train, make_about), values_NTD, STATIC_NS)
        risks = []
        for text in fold.boosters:
            booster = Booster()
            booster.load_model(bytearray(text))
            risks.append(booster.predict(DMatrix(features_NF)))
        np.testing.assert_allclose(risk_FN[place], np.mean(risks, axis=0), atol=1e-6)
        np.testing.assert_array_equal(bundle.risk_of(fold.fold, values_NTD, STATIC), risk_FN[place])
    assert not np.array_equal(risk_FN[0], risk_FN[1])
    monkeypatch.setattr("imputune.registry.joint_risks.BATCH", 1)
    np.testing.assert_allclose(bundle.risk_by_fold(values_NTD, STATIC), risk_FN, atol=1e-6)


@pytest.mark.parametrize("reads", INPUTS)
def test_explanations_add_up_by_variable_and_fact(tmp_path, boosted, train, make_about, values_NTD, reads):
    """Every part is the mean over folds of XGBoost's own contributions, scaled to the risk; all parts add up."""
    about, folds = boosted(reads)
    write_bundle(tmp_path, about, folds)
    bundle = read_bundle(tmp_path)
    told = explain_stay(bundle, stays_of(values_NTD), 11, 8)
    assert told.risk == pytest.approx(bundle.risk_by_fold(values_NTD, STATIC).mean(axis=0)[0], abs=1e-6)
    assert told.table["Attribution"].sum() == pytest.approx(told.risk - told.baseline_risk, abs=1e-9)
    assert told.gap < 1e-9
    arrays = [with_imputer(fold, train, make_about) for fold in folds]
    made = [features(about, each, values_NTD, STATIC_NS) for each in arrays]
    expected_F = np.mean([scaled_contributions(fold, each) for fold, each in zip(folds, made, strict=True)], axis=0)
    found = told.table.groupby("Part")["Attribution"].sum().to_dict()
    place, wanted = 0, {}
    for part in reads.split("+"):
        width = {"hidden": 4, "imputed": 144, "summary": 21, "static": 5}[part]
        wanted[part] = expected_F[place : place + width]
        place += width
    if "hidden" in wanted:
        assert found["hidden state"] == pytest.approx(wanted["hidden"].sum(), abs=1e-6)
    if "imputed" in wanted:
        observed_TD = ~np.isnan(values_NTD[0])
        cells_TD = wanted["imputed"].reshape(48, 3)
        assert found["value"] == pytest.approx(cells_TD[observed_TD].sum(), abs=1e-6)
        assert found.get("imputed value", 0.0) == pytest.approx(cells_TD[~observed_TD].sum(), abs=1e-6)
        cells = told.table[told.table["Part"] == "value"]
        np.testing.assert_array_equal(cells["Value"], values_NTD[0][observed_TD])
    if "summary" in wanted:
        by_variable = told.table[told.table["Part"] == "statistics"].set_index("Parameter")["Attribution"]
        assert list(by_variable.index) == ["HR", "Temp", "pH"]
        np.testing.assert_allclose(by_variable, wanted["summary"].reshape(7, 3).sum(axis=0), atol=1e-6)
    if "static" in wanted:
        facts = told.table[told.table["Part"] == "static"]
        assert facts["Parameter"].tolist() == ["age_years", "icu_type"]
        assert facts["Value"].tolist() == [54.0, 2.0]
        expected = [wanted["static"][0], wanted["static"][1:].sum()]
        np.testing.assert_allclose(facts["Attribution"], expected, atol=1e-6)
    content = json.loads(told.to_json())
    assert sum(each["Attribution"] for each in content["cells"] + content["others"]) == pytest.approx(
        told.risk - told.baseline_risk, abs=1e-9
    )


def scaled_contributions(fold, features_NF):
    """Return the first stay's contributions by XGBoost, brought from log-odds to the scale of the risk."""
    booster = Booster()
    booster.load_model(bytearray(fold.boosters[0]))
    *parts, bias = booster.predict(DMatrix(features_NF[:1]), pred_contribs=True)[0].astype(np.float64)
    odds = bias + np.sum(parts)
    return np.array(parts) * (1 / (1 + np.exp(-odds)) - 1 / (1 + np.exp(-bias))) / (odds - bias)


def test_a_bundle_without_imputer_has_no_series(tmp_path, boosted, values_NTD):
    """Boosters on statistics keep no imputer: they predict, and say why they cannot impute."""
    about, folds = boosted("summary+static")
    write_bundle(tmp_path, about, folds)
    bundle = read_bundle(tmp_path)
    assert len(bundle.predict(stays_of(values_NTD))) == 3
    with pytest.raises(UserError, match=NO_IMPUTER):
        bundle.impute(stays_of(values_NTD))


def test_a_copy_keeps_its_boosters(tmp_path, boosted, values_NTD):
    """A bundle that is described anew, as by recalibrate, gives the same risks."""
    about, folds = boosted("summary")
    (tmp_path / "first").mkdir()
    write_bundle(tmp_path / "first", about, folds)
    copy_bundle(tmp_path / "first", tmp_path / "second", about.model_copy(update={"threshold": 0.9}))
    first, second = read_bundle(tmp_path / "first"), read_bundle(tmp_path / "second")
    np.testing.assert_array_equal(second.risk_by_fold(values_NTD), first.risk_by_fold(values_NTD))
    assert second.threshold == 0.9


def test_altered_boosters_are_found(tmp_path, boosted):
    """A changed, missing or exchanged file of trees is one line with its path."""
    about, folds = boosted("summary", 2)
    write_bundle(tmp_path, about, folds)
    first, second = booster_files(tmp_path, 0, 2)
    whole = first.read_bytes()
    for content in (whole.replace(b"1", b"2", 1), whole[:200], b"", second.read_bytes()):
        first.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_bundle(tmp_path)
        assert str(caught.value) == (
            f"{first} has changed since it was written (its sha256 differs): restore it, or train again"
        )
    first.unlink()
    with pytest.raises(UserError, match=r"fold-0-booster-0.json cannot be read \(No such file or directory\): restore"):
        read_bundle(tmp_path)


def test_a_description_that_does_not_fit_its_boosters_is_one_line(tmp_path, boosted):
    """Boosters of another input, no checksums of boosters, or boosters beside a network are refused."""
    about, folds = boosted("summary")
    write_bundle(tmp_path, about, folds)
    content = json.loads((tmp_path / "bundle.json").read_text())
    other = json.loads(json.dumps(content))
    other["about"] |= {"input": "summary+static", "static": [{"name": "age_years", "parameter": "Age"}]}
    for changed, cause in (
        (other, r"do not fit the sizes, head or width in bundle.json \(ValueError\)"),
        (content | {"boosters_sha256": {}}, "boosters_sha256 must have checksums for each fold if the head is xgboost"),
        ({**content, "about": content["about"] | {"head": "svm"}}, "head must be one of mlp2, .*, got svm"),
        ({**content, "about": content["about"] | {"mlp_width": 8}}, "xgboost has no mlp_width"),
    ):
        (tmp_path / "bundle.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=cause) as caught:
            read_bundle(tmp_path)
        assert len(str(caught.value).splitlines()) == 1


def test_svm_is_no_bundle(make_about):
    """Its support vectors are records of patients, so no description of a bundle may name it."""
    with pytest.raises(ValidationError, match=r"head must be one of mlp2, .*, got svm"):
        make_about(head="svm", input="summary")


def test_a_served_booster_answers_and_needs_xgboost_alone(tmp_path, boosted, make_about, values_NTD):
    """The served model gives the bundle's risks; only its requirements name xgboost."""
    about, folds = boosted("hidden+static+summary")
    write_bundle(tmp_path, about, folds)
    model, context = BundleModel(), PythonModelContext({"bundle": str(tmp_path)}, {})
    model.load_context(context)
    answer = model.predict(context, EXAMPLE)
    alone_1TD = np.full((1, 48, 3), np.nan, dtype=np.float32)
    alone_1TD[0, 0, 0], alone_1TD[0, 1, 0], alone_1TD[0, 30, 1] = 80, 85, 37
    expected = read_bundle(tmp_path).risk_by_fold(alone_1TD).mean()
    assert answer["risk"].tolist() == [pytest.approx(expected, abs=1e-6)]
    more = set(serving_requirements(about)) - set(serving_requirements(make_about()))
    assert {each.partition("==")[0] for each in more} == {"xgboost-cpu"}
    shutil.rmtree(tmp_path)
