"""A registered model in a notebook."""

import os

import mlflow
import pandas as pd
import pytest

import imputune
from imputune import UserError
from projects import invoke

NAME = "imputune-mortality-synthetic"
TABLE = pd.DataFrame(
    [(1, "00:10", "HR", 112.0), (1, "13:40", "Lactate", 4.1), (2, "05:00", "GCS", 15.0)],
    columns=["RecordID", "Time", "Parameter", "Value"],
)


@pytest.fixture
def champion(models, monkeypatch):
    """A project with a champion, the current folder."""
    assert invoke(models, ["promote"], monkeypatch).exit_code == 0
    monkeypatch.chdir(models)
    return models


def test_the_champion_predicts_as_the_served_model_does(champion, monkeypatch):
    """The whole table is that of the model that mlflow loads and serves."""
    model = imputune.load_champion()
    risks = model.predict(TABLE)
    served = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    pd.testing.assert_frame_equal(risks, served.predict(TABLE))
    assert risks["observed_cells"].tolist() == [2, 1]
    assert (risks["high_risk"] == (risks["risk"] >= model.threshold)).all()
    assert model.variables["HR"] == "beats/min"
    assert repr(model) == f"RiskModel(name='{NAME}', version={model.version}, variant='{model.variant}')"


def test_a_model_with_an_imputer_gives_the_imputed_series(champion):
    """Every hour of every variable of both stays; observed values are those of the table."""
    models = (imputune.load_champion(version=number) for number in range(1, 20))
    model = next(each for each in models if each.bundle.about.reads_imputer)
    series = model.impute(TABLE)
    assert len(series) == 2 * 48 * len(model.variables)
    assert sorted(series.loc[series["Observed"], "Value"].round(2)) == [4.1, 15.0, 112.0]


def test_a_version_by_number_from_elsewhere(champion, monkeypatch, tmp_path):
    """By the project's folder, or by the store and the dataset alone; MLflow's own store stays as it was."""
    expected = imputune.load_champion("synthetic")
    monkeypatch.chdir(tmp_path)
    by_folder = imputune.load_champion(project=champion, version=expected.version)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/own.db")
    by_store = imputune.load_champion("synthetic", tracking_uri=f"sqlite:///{champion}/mlflow.db")
    assert mlflow.get_tracking_uri() == os.environ.pop("MLFLOW_TRACKING_URI") == f"sqlite:///{tmp_path}/own.db"
    mlflow.set_tracking_uri(None)
    imputune.load_champion("synthetic", tracking_uri=f"sqlite:///{champion}/mlflow.db")
    assert not mlflow.is_tracking_uri_set()
    for model in (by_folder, by_store):
        assert (model.name, model.version) == (NAME, expected.version)
        pd.testing.assert_frame_equal(model.predict(TABLE), expected.predict(TABLE))
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert not (tmp_path / "mlflow.db").exists()


def test_a_model_that_is_not_there_is_one_line(champion, monkeypatch, tmp_path):
    """Another dataset, alias or store, and a table that cannot be read."""
    for call, line in (
        (lambda: imputune.load_champion("physionet2012"), "no model imputune-mortality-physionet2012 is registered"),
        (lambda: imputune.load_champion(version="champoin"), "did you mean 'champion'?"),
        (lambda: imputune.load_champion("synthetic", tracking_uri=f"sqlite:///{tmp_path}/no.db"), "no tracking store"),
        (lambda: imputune.load_champion("synthetic", tracking_uri=" "), "tracking_uri is empty"),
        (lambda: imputune.load_champion().predict(TABLE.drop(columns="Time")), "the table has no column Time"),
    ):
        with pytest.raises(UserError) as refused:
            call()
        assert line in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "no.db").exists()
