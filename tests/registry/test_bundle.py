import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc.model import PythonModelContext
from pydantic import ValidationError

from imputune.data import directions as of_records
from imputune.data.directions import Directions
from imputune.data.raw.binning import BinnedStays
from imputune.data.scaling import standardised_tensors
from imputune.errors import UserError
from imputune.evaluation.calibration import CalibrationLine
from imputune.models.csai import Csai
from imputune.models.heads import HEAD_BUILDERS, HeadSizes
from imputune.models.weights import load_module
from imputune.pipeline.explain import explain_stay
from imputune.registry import joint_risks
from imputune.registry.bundle_file import read_bundle, write_bundle
from imputune.registry.register import EXAMPLE
from imputune.registry.serving import BundleModel


@pytest.fixture
def load(tmp_path, train):
    """Write a bundle and read it back."""

    def loaded(about):
        write_bundle(tmp_path, about, train(about))
        return read_bundle(tmp_path)

    return loaded


def stays_of(values_NTD):
    """Return stays 11, 12, ... with some values."""
    ignored = {"after hour 48": np.array([2, 0, 0]), "negative value": np.array([1, 0, 4])}
    return BinnedStays(stay_ids_N=np.arange(11, 11 + len(values_NTD)), values_NTD=values_NTD, ignored=ignored)


def expected_risk(about, fold, values_NTD):
    """Return a fold's risk, computed step by step from its arrays."""
    weights = {name: torch.from_numpy(array) for name, array in fold.weights.items()}
    clipped_NTD = np.clip(values_NTD, fold.weights["scaler.lowest"], fold.weights["scaler.highest"])
    standardised_NTD = (clipped_NTD - fold.weights["scaler.mean"]) / fold.weights["scaler.deviation"]
    observed_NTD = ~np.isnan(values_NTD)
    directions = Directions.of(
        torch.from_numpy(np.where(observed_NTD, standardised_NTD, 0).astype(np.float32)),
        torch.from_numpy(observed_NTD).float(),
    )
    imputer = Csai(about.sizes).eval()
    load_module("imputer", imputer, weights)
    size = {"hidden_both": 8, "hidden_pooled": 16}.get(about.input, 4)
    head = HEAD_BUILDERS[about.head](HeadSizes(input_size=size, variables=3, mlp_width=about.mlp_width)).eval()
    load_module("head", head, weights)
    with torch.no_grad():
        reconstruction = imputer(directions)
        last_KBH, mean_KBH = reconstruction.hidden_KBTH[:, :, -1], reconstruction.hidden_KBTH.mean(dim=2)
        read = {
            "hidden": (last_KBH.mean(dim=0),),
            "hidden_both": (torch.cat([*last_KBH], dim=-1),),
            "hidden_pooled": (torch.cat([*last_KBH, *mean_KBH], dim=-1),),
            "imputed": (last_KBH.mean(dim=0), reconstruction.imputed_BTD),
        }
        return torch.sigmoid(head(*read[about.input])).numpy()


@pytest.mark.parametrize(
    ("head", "reads", "mlp_width"),
    [
        ("mlp2", "hidden", 128),
        ("mlp5", "hidden", 5),
        ("gru", "imputed", 7),
        ("mlp2", "hidden_both", 9),
        ("mlp5", "hidden_pooled", 6),
    ],
)
def test_each_fold_predicts_with_its_own_weights(load, make_about, train, values_NTD, head, reads, mlp_width):
    """The risks are those of the stored arrays, for every kind of head and every width."""
    about = make_about(head=head, input=reads, mlp_width=mlp_width)
    bundle = load(about)
    risk_FN = bundle.risk_by_fold(values_NTD)
    assert risk_FN.shape == (2, 3)
    for place, fold in enumerate(train(about)):
        np.testing.assert_allclose(risk_FN[place], expected_risk(about, fold, values_NTD), atol=1e-6)
        np.testing.assert_array_equal(bundle.risk_of(fold.fold, values_NTD), risk_FN[place])
    assert not np.array_equal(risk_FN[0], risk_FN[1])
    with pytest.raises(ValueError, match=r"fold must be one of \(0, 2\), got 1"):
        bundle.risk_of(1, values_NTD)


def test_risks_do_not_depend_on_the_batch(load, make_about, values_NTD, monkeypatch):
    """One stay at a time gets the same risks as all together."""
    bundle = load(make_about())
    together_FN = bundle.risk_by_fold(values_NTD)
    monkeypatch.setattr(joint_risks, "BATCH", 1)
    np.testing.assert_allclose(bundle.risk_by_fold(values_NTD), together_FN, atol=1e-6)


def test_tables_read_together_get_the_rows_that_each_gets_alone(load, make_about, values_NTD):
    """Also beside a stay with values that no patient has, of a variable that training never saw and so never clips."""
    bundle = load(make_about())
    for model in bundle.models:
        model.scaler.lowest_D[0], model.scaler.highest_D[0] = -np.inf, np.inf
    impossible_NTD = np.full((1, 48, 3), 3e38, dtype=np.float32)
    several = [
        stays_of(values_NTD),
        BinnedStays(stay_ids_N=np.array([7]), values_NTD=impossible_NTD, ignored={}),
        BinnedStays(stay_ids_N=np.array([5, 6]), values_NTD=values_NTD[1::-1], ignored={}),
    ]
    for table, stays in zip(bundle.predict_each(several), several, strict=True):
        pd.testing.assert_frame_equal(table, bundle.predict(stays), rtol=0, atol=1e-6)


def test_predictions_are_means_over_folds(load, make_about, values_NTD):
    """A row per stay has the mean risk, its deviation, whether it reaches the threshold, and the observed cells."""
    risk_FN = load(make_about()).risk_by_fold(values_NTD).astype(np.float64)
    mean_N = risk_FN.mean(axis=0)
    bundle = load(make_about(threshold=float(mean_N[1])))
    table = bundle.predict(stays_of(values_NTD))
    assert list(table) == ["RecordID", "risk", "risk_deviation", "high_risk", "observed_cells", "rows_ignored"]
    assert table["RecordID"].tolist() == [11, 12, 13]
    np.testing.assert_allclose(table["risk"], mean_N, atol=1e-7)
    np.testing.assert_allclose(table["risk_deviation"], abs(risk_FN[0] - risk_FN[1]) / np.sqrt(2), atol=1e-7)
    assert table["high_risk"].tolist() == (mean_N >= mean_N[1]).tolist()
    assert table["rows_ignored"].tolist() == [3, 0, 4]
    assert table["observed_cells"].tolist() == [int((~np.isnan(values_NTD[0])).sum()), 1, 0]


def test_imputed_series_keep_observed_values(load, imputers_about, values_NTD):
    """Observed values pass through; missing ones are the mean of the folds' imputations, in the variables' units."""
    bundle = load(imputers_about)
    table = bundle.impute(stays_of(values_NTD))
    assert len(table) == values_NTD.size
    assert table.iloc[48 * 3 + 7 * 3].tolist() == [12, 7, "HR", 95.0, True, 0]
    assert table["RowsIgnored"].tolist() == [3] * 144 + [0] * 144 + [4] * 144
    np.testing.assert_array_equal(table["Observed"], ~np.isnan(values_NTD.reshape(-1)))
    np.testing.assert_array_equal(table["Value"][table["Observed"]], values_NTD[~np.isnan(values_NTD)])
    restored = []
    for model in bundle.models:
        standardised, observed = standardised_tensors(values_NTD.copy(), model.scaler)
        with torch.no_grad():
            alone = model.imputer(Directions.of(standardised, observed.float()))
        restored.append(model.scaler.restore(alone.imputed_BTD.numpy()))
    missing = ~table["Observed"].to_numpy()
    np.testing.assert_allclose(table["Value"][missing], np.mean(restored, axis=0).reshape(-1)[missing], rtol=1e-6)


def test_bundle_of_imputers_predicts_no_risk(load, imputers_about, values_NTD):
    """The error says which model to load instead."""
    bundle = load(imputers_about)
    for ask in (lambda: bundle.predict(stays_of(values_NTD)), lambda: bundle.threshold, lambda: bundle.predictors):
        with pytest.raises(UserError, match="predicts no risk: load a model of an outcome"):
            ask()


def test_absent_variables_and_clipped_values_are_counted(load, make_about, values_NTD):
    """A variable without any value is absent; values outside every fold's limits are counted by variable."""
    bundle = load(make_about())
    values_NTD[:, :, 2] = np.nan
    values_NTD[2, :2, 0] = 300
    values_NTD[2, 0, 1] = 20
    assert bundle.absent(stays_of(values_NTD)) == ["pH"]
    assert bundle.beyond_range(stays_of(values_NTD)) == {"HR": 2, "Temp": 1}
    values_NTD[2, 2, 0] = 200  # the limit itself is not clipped
    assert bundle.beyond_range(stays_of(values_NTD)) == {"HR": 2, "Temp": 1}


@pytest.fixture
def found_inside(monkeypatch, two_threads):
    """What PyTorch's settings were whenever an imputer computed, in a process that has decided nothing itself."""
    found, gap = [], of_records.gap_hours

    def observed(mask):
        found.append((torch.get_num_threads(), (torch.full((9,), 1e-30) * 1e-9).max().item()))
        return gap(mask)

    monkeypatch.setattr(of_records, "gap_hours", observed)  # every pass asks for it
    return found


def test_a_bundle_computes_on_one_thread_without_denormal_numbers(load, make_about, values_NTD, found_inside):
    """Predicting, imputing and explaining in plain Python, whose own settings return afterwards."""
    bundle, stays = load(make_about()), stays_of(values_NTD)
    for ask in (bundle.predict, bundle.impute, lambda stays: explain_stay(bundle, stays, 11, 2)):
        found_inside.clear()
        ask(stays)
        assert set(found_inside) == {(1, 0.0)}
        assert torch.get_num_threads() == 2
        assert (torch.full((9,), 1e-30) * 1e-9).max().item() > 0


def test_a_served_models_request_threads_compute_likewise(tmp_path, make_about, train, found_inside):
    """Two requests at once, each in a thread of its own, which begins with the server's settings."""
    write_bundle(tmp_path, make_about(), train(make_about()))
    model, context = BundleModel(), PythonModelContext({"bundle": str(tmp_path)}, {})
    model.load_context(context)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda table: model.predict(context, table), [EXAMPLE] * 4))
    assert [len(answer) for answer in answers] == [1, 1, 1, 1]
    assert set(found_inside) == {(1, 0.0)}


@pytest.mark.parametrize(
    "fields", [{"threshold": None}, {"mlp_width": None}, {"head": "xgboost"}, {"folds": ("0",)}, {"colour": "red"}]
)
def test_descriptions_that_cannot_be_true_are_refused(make_about, fields):
    """A neural head comes with its input, width and threshold, and no field has the wrong type."""
    with pytest.raises(ValidationError):
        make_about(**fields)


def test_a_recalibrated_bundle_corrects_the_mean_and_keeps_who_is_of_high_risk(load, make_about, values_NTD):
    """The line is applied to the mean over folds, to each fold's own risk, and to the threshold."""
    line = CalibrationLine(intercept=-0.5, slope=0.6)
    plain_FN = load(make_about()).risk_by_fold(values_NTD)
    mean_N = plain_FN.mean(axis=0, dtype=np.float64)
    threshold = float(np.sort(mean_N)[1])  # one stay lies exactly on it
    plain = load(make_about(threshold=threshold)).predict(stays_of(values_NTD))
    bundle = load(make_about(threshold=threshold, recalibration=line))
    np.testing.assert_array_equal(bundle.risk(values_NTD), line.apply(mean_N))
    np.testing.assert_allclose(bundle.risk_by_fold(values_NTD), line.apply(plain_FN), rtol=1e-6)
    assert bundle.risk_by_fold(values_NTD).dtype == bundle.risk_of(2, values_NTD).dtype == np.float32
    np.testing.assert_array_equal(bundle.risk_of(2, values_NTD), bundle.risk_by_fold(values_NTD)[1])
    assert bundle.threshold == float(line.apply(np.array(threshold)))
    answer = bundle.predict(stays_of(values_NTD))
    np.testing.assert_allclose(answer["risk"], line.apply(plain["risk"].to_numpy()))
    np.testing.assert_allclose(answer["risk_deviation"], line.apply(plain_FN).std(axis=0, ddof=1), rtol=1e-5)
    assert answer["high_risk"].tolist() == plain["high_risk"].tolist()
    assert sorted(answer["high_risk"]) == [False, True, True]


def test_without_recalibration_the_risk_is_the_mean_of_the_folds(load, make_about, values_NTD):
    """To the bit."""
    bundle = load(make_about())
    expected = bundle.risk_by_fold(values_NTD).mean(axis=0, dtype=np.float64)
    np.testing.assert_array_equal(bundle.risk(values_NTD), expected)
    assert bundle.threshold == bundle.about.threshold


def test_an_explanation_counts_bins_by_their_length(load, make_about, values_NTD):
    """Of a model of bins of two hours: the header and the JSON speak of bins; a cell's Hour is its begin."""
    hourly = explain_stay(load(make_about()), stays_of(values_NTD), 11, 8)
    about = make_about()
    longer = about.model_copy(update={"sizes": replace(about.sizes, bin_hours=2)})
    found = explain_stay(load(longer), stays_of(values_NTD), 11, 8)
    assert hourly.header[2] == "hours observed"
    assert found.header[2] == "bins of 2 hours observed"
    assert list(found.by_variable().columns) == ["Part", "Parameter", "Bins", "Attribution"]
    told, of_hours = json.loads(found.to_json()), json.loads(hourly.to_json())
    assert (told["bin_hours"], of_hours["bin_hours"]) == (2, 1)
    assert {each["Parameter"]: each["Bins"] for each in told["by_variable"]} == {
        each["Parameter"]: each["Hours"] for each in of_hours["by_variable"]
    }
    assert [each["Hour"] for each in told["cells"]] == [2 * each["Hour"] for each in of_hours["cells"]]


def test_attributions_of_a_recalibrated_bundle_add_up_to_its_risks(load, make_about, values_NTD):
    """Each is that of the bundle it came from, times one number."""
    plain = explain_stay(load(make_about()), stays_of(values_NTD), 11, 32)
    line = CalibrationLine(intercept=-0.5, slope=0.6)
    found = explain_stay(load(make_about(recalibration=line)), stays_of(values_NTD), 11, 32)
    assert found.risk == pytest.approx(float(line.apply(np.array(plain.risk))))
    assert found.baseline_risk == pytest.approx(float(line.apply(np.array(plain.baseline_risk))))
    ratio = (found.risk - found.baseline_risk) / (plain.risk - plain.baseline_risk)
    np.testing.assert_allclose(found.table["Attribution"], plain.table["Attribution"] * ratio, rtol=1e-6)
    assert found.table["Attribution"].sum() == pytest.approx(found.risk - found.baseline_risk, abs=1e-5)
