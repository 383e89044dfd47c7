import http.client
import json
import re
import shlex

import pandas as pd
import pytest

from benchmarks.serving_load import served
from projects import ROOT, invoke, run, run_all

NAME = "imputune-mortality-synthetic"


def readme_section() -> str:
    """Return README.md's section on registered models."""
    text = (ROOT / "README.md").read_text()
    [section] = re.findall(r"^## From a trained head.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    return section


def test_the_readmes_way_to_a_prediction_works(models):
    """Each command of README.md's section succeeds when all are typed one after the other.

    The first goes through a shell to the installed command, the others through one process, to load modules once.
    """
    commands = re.findall(r"^\$ ((?:imputune|printf) .*?)(?: {2,}# .*)?$", readme_section(), re.MULTILINE)
    assert [command.split()[1] for command in commands if command.startswith("imputune")] == [
        "promote",
        "predict",
        "explain",
        "extract",
        "evaluate",
        "recalibrate",
        "register",
    ]
    typed, others = commands[:2], [shlex.split(command) for command in commands[2:]]
    for command in typed:
        done = run(models, "bash", "-c", command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    done = run_all(models, others)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert (models / "why.png").stat().st_size > 0
    assert (models / "results/synthetic/external-set-s.json").is_file()


def post(port: int, body: str) -> tuple[int, dict]:
    """Send a request to a served model; return the status and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_a_served_model_answers_as_predict_does(models, monkeypatch):
    """The request of docs/prediction.md gets the risks that `imputune predict` prints; a bad request gets 400."""
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
