import http.client
import json
import re
import time

import numpy as np
import pandas as pd
import pytest

from benchmarks.serving_load import served
from imputune.artifacts.stage_output import TrainedFold
from imputune.data.cohort import read_cohort
from imputune.data.scaling import Scaler, scaler_weights
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import Mlp
from imputune.models.weights import module_weights
from imputune.registry.bundle import BundleAbout
from imputune.registry.register import register_bundle
from imputune.registry.versions import Registry
from imputune.tracking.runs import tracked_run
from projects import ROOT, invoke, run

NAME = "imputune-mortality-synthetic"


def readme_section() -> str:
    """Return what README.md says of registered models."""
    text = (ROOT / "README.md").read_text()
    [section] = re.findall(r"^## From a trained head.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    return section


def test_the_readmes_way_to_a_prediction_works(models):
    """Each command of README.md's section, typed in a shell one after the other, ends well."""
    commands = re.findall(r"^\$ ((?:imputune|printf) .*?)(?: {2,}# .*)?$", readme_section(), re.MULTILINE)
    assert [command.split()[1] for command in commands if command.startswith("imputune")] == [
        "promote",
        "predict",
        "explain",
        "extract",
        "evaluate",
    ]
    for command in commands:
        done = run(models, "bash", "-c", command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (models / "why.png").stat().st_size > 0
    assert (models / "results/synthetic/external-set-s.json").is_file()


def post(port: int, body: str) -> tuple[int, dict]:
    """Ask a served model."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_a_served_model_answers_as_predict_does(models, monkeypatch):
    """The request of docs/prediction.md gets what `imputune predict` prints; a bad one gets one line and 400."""
    assert invoke(models, ["promote"], monkeypatch).exit_code == 0
    page = (ROOT / "docs/prediction.md").read_text()
    [body] = re.findall(r"-d '(\{.*?\})'", page, re.DOTALL)
    table = json.loads(body)["dataframe_split"]
    pd.DataFrame(table["data"], columns=table["columns"]).to_csv(models / "stay.csv", index=False)
    printed = invoke(models, ["predict", "--records", "stay.csv"], monkeypatch).stdout.splitlines()
    expected = dict(zip(printed[0].split(","), printed[1].split(","), strict=True))
    assert "-m models:/imputune-mortality-synthetic@champion --env-manager local" in page
    with served(f"models:/{NAME}@champion", f"sqlite:///{models}/mlflow.db", workers=1) as (port, _):
        status, answer = post(port, body)
        assert status == 200
        [row] = answer["predictions"]
        assert list(row) == list(expected)
        assert row["risk"] == pytest.approx(float(expected["risk"]), abs=1e-6)
        assert str(row["high_risk"]) == expected["high_risk"]
        status, answer = post(port, body.replace('"HR"', '"Pulse"'))
        assert status == 400
        assert "row 1 of the table: unknown parameter 'Pulse'" in answer["message"]


def test_registering_and_loading_take_less_than_two_seconds_each(models):
    """Beyond imports; the weights are five models of real size."""
    sizes = CsaiSizes(variables=35)
    model = Csai(sizes)
    scaler = Scaler(*(np.ones(35, dtype=np.float32) for _ in range(4)))
    weights = scaler_weights(scaler) | module_weights("imputer", model) | module_weights("head", Mlp(108))
    results = [TrainedFold(fold, weights, {"validation_auc": 0.5}, 0, 1.0, []) for fold in range(5)]
    variables = read_cohort(models / "data/synthetic").variables
    about = BundleAbout("synthetic", variables, sizes, "mlp2", "hidden", tuple(range(5)), 0.5)
    with tracked_run(models, "imputune", "finetune", {}, {}, folds=()) as tracked:
        register_bundle(tracked, NAME, about, results, {})  # the first one imports what mlflow needs
        started = time.perf_counter()
        number = register_bundle(tracked, NAME, about, results, {})
        registered = time.perf_counter() - started
    registry = Registry(models, NAME)
    started = time.perf_counter()
    registry.load(registry.find(number))
    assert registered < 2
    assert time.perf_counter() - started < 2
