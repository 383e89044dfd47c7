"""Heads of several outcomes on one pretrained imputer: their folders, runs, models, scores and words."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo

from imputune.data.cohort import read_cohort, write_cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.registry.versions import Registry
from projects import client_of, invoke, refused, run, set_params

OUTCOME, MODEL = "los_over_7_days", "imputune-los_over_7_days-synthetic"
FURTHER = "one_year_survival"
HEAD = ["--head", "xgboost", "--input", "hidden"]
VARIANT = "xgboost-frozen-hidden-none"
NO_WORDS = re.compile(r"\b(died|dies|deaths?|mortality|surviv\w+)\b", re.IGNORECASE)


def content_of(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text())


def ran(project: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Run a command, and return its output."""
    done = invoke(project, list(words), monkeypatch)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def heads(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with a head of another outcome on the CSAI that was pretrained once."""
    ran(models, monkeypatch, "finetune", *HEAD, "--outcome", OUTCOME)
    return models


def test_one_imputer_serves_a_second_outcome(heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, comparison, promotion and evaluation of another outcome speak of it alone."""
    before = content_of(heads / f"artifacts/synthetic/heads/in_hospital_death/csai/{VARIANT}/result.json")
    folder = heads / f"artifacts/synthetic/heads/{OUTCOME}/csai/{VARIANT}"
    result = content_of(folder / "result.json")["made_from"]
    imputer = content_of(heads / "artifacts/synthetic/imputers/csai/result.json")
    cohort = read_cohort(heads / "data/synthetic").with_outcome(OUTCOME)
    assert result["imputer_run_id"] == imputer["run_id"] == before["made_from"]["imputer_run_id"]
    assert (result["outcome"], len(result["outcome_hash"])) == (OUTCOME, 64)
    assert (result["stays"], result["events"]) == (int(cohort.labelled_N.sum()), cohort.events)

    # Stays without a label are in no prediction; all others are test stays once.
    predictions = pd.read_csv(folder / "predictions.csv")
    tested = predictions[predictions["split"] == "test"]["stay_id"]
    assert sorted(tested) == cohort.stay_ids_N[cohort.labelled_N].tolist()

    of_pipeline = {path.stem for path in (heads / "metrics/synthetic").iterdir()}
    compared = ran(heads, monkeypatch, "compare", "--outcome", OUTCOME)
    assert "length of stay over 7 days" in compared
    results = heads / f"results/synthetic/{OUTCOME}"
    assert (results / f"variants/csai/{VARIANT}.json").is_file()
    assert {path.stem for path in (heads / "metrics/synthetic").iterdir()} == of_pipeline  # of the other outcome
    told = content_of(results / "results.json")
    assert (told["outcome"], told["stays"], told["events"]) == (OUTCOME, result["stays"], result["events"])
    assert not told["claims"]["verdicts"]  # the paper's are on in-hospital death

    version, *others = Registry(heads, MODEL).versions()
    assert not others
    promoted = ran(heads, monkeypatch, "promote", "--outcome", OUTCOME)
    assert f"{MODEL}: candidate is version {version.number}" in promoted
    external = extract_synthetic(200, 5)
    write_cohort(external, heads / "other")
    evaluated = ran(heads, monkeypatch, "evaluate", "--outcome", OUTCOME, "--data", "other")
    unlabelled = int((external.outcomes[OUTCOME] == -1).sum())
    assert f"{unlabelled} stays without a label of {OUTCOME} left out" in evaluated
    assert content_of(results / "external-set-s.json")["unlabelled"] == unlabelled > 0
    card = Registry(heads, MODEL).find(str(version.number)).description
    run = client_of(heads).get_run(version.run_id)
    assert (run.data.params["outcome"], run.data.tags["imputune.outcome"]) == (OUTCOME, OUTCOME)
    assert OUTCOME in run.info.run_name
    pages = (results / "comparison.md").read_text()
    for text in (compared, promoted, evaluated, card, pages, json.dumps(told), run.data.tags["mlflow.note.content"]):
        assert not NO_WORDS.search(text), NO_WORDS.findall(text)


@pytest.mark.slow
@pytest.mark.cluster
def test_mlflow_and_dvc_train_for_the_outcome_that_is_asked_for(models: Path) -> None:
    """`mlflow run -P outcome=` and `dvc repro` with another outcome in params.yaml train, track and name this one.

    Training takes a second or two; the four processes that the two commands start take the rest, so `make test` leaves
    it out.
    """
    words = ["-P", f"outcome={OUTCOME}", "-P", "head=xgboost", "-P", "input=summary"]
    done = run(models, "mlflow", "run", ".", "-e", "finetune", *words, "--env-manager", "local")
    assert done.returncode == 0, done.stderr
    Repo.init(str(models), no_scm=True).close()
    set_params(models, {"outcome": FURTHER})
    stage = "finetune_non_neural_more@synthetic-csai-xgboost-summary"
    done = run(models, "dvc", "repro", "--single-item", stage)
    assert done.returncode == 0, done.stdout + done.stderr
    cohort = read_cohort(models / "data/synthetic")
    for outcome in (OUTCOME, FURTHER):
        [path] = (models / f"artifacts/synthetic/heads/{outcome}").rglob("result.json")
        result = content_of(path)
        assert result["made_from"]["outcome"] == outcome
        assert result["made_from"]["events"] == cohort.with_outcome(outcome).events
        tracked = client_of(models).get_run(result["run_id"])
        assert (tracked.data.params["outcome"], tracked.data.tags["imputune.outcome"]) == (outcome, outcome)
        assert outcome in tracked.info.run_name


def test_in_hospital_death_is_as_before(heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison of it sees no head of another outcome, and its results stay in the dataset's folder."""
    compared = ran(heads, monkeypatch, "compare")
    assert "in-hospital death" in compared
    told = content_of(heads / "results/synthetic/results.json")
    assert told["outcome"] == "in_hospital_death"
    assert all(OUTCOME not in json.dumps(row) for row in told["rows"])
    run = client_of(heads).get_run(
        content_of(heads / f"artifacts/synthetic/heads/in_hospital_death/csai/{VARIANT}/result.json")["run_id"]
    )
    assert "imputune.outcome" not in run.data.tags


def test_corrected_labels_make_their_heads_anew_and_no_other(heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one label is corrected, heads of this outcome are trained again; the cohort and the others are current."""
    path = heads / "data/synthetic/outcomes.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    row = int(np.flatnonzero(table[OUTCOME] == "1")[0])
    table.loc[row, OUTCOME] = "0"
    table.to_csv(path, index=False)
    ours = ran(heads, monkeypatch, "compare", "--outcome", "in_hospital_death")
    assert "is skipped" not in ours
    words = ["--head", "xgboost", "--input", "hidden", "--imputer", "csai"]
    assert "1 variant is done already" in ran(heads, monkeypatch, "grid", *words)
    assert "it was made from other labels" in refused(invoke(heads, ["compare", "--outcome", OUTCOME], monkeypatch))
    assert "done already" not in ran(heads, monkeypatch, "grid", *words, "--outcome", OUTCOME)
    result = content_of(heads / f"artifacts/synthetic/heads/{OUTCOME}/csai/{VARIANT}/result.json")
    assert result["made_from"]["events"] == int((table[OUTCOME] == "1").sum())


def test_neural_heads_and_blends_leave_unlabelled_stays_out(heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen and an unfrozen MLP, and the blend of two, have risks of labelled stays alone."""
    ran(heads, monkeypatch, "finetune", "--head", "mlp2", "--outcome", OUTCOME)
    ran(heads, monkeypatch, "finetune", "--head", "mlp2", "--mode", "unfrozen", "--outcome", OUTCOME)
    set_params(heads, {"blend.members": [f"csai/{VARIANT}", "csai/mlp2-frozen-hidden-plateau"]})
    ran(heads, monkeypatch, "finetune", "--head", "blend", "--outcome", OUTCOME)
    cohort = read_cohort(heads / "data/synthetic").with_outcome(OUTCOME)
    labelled = set(cohort.stay_ids_N[cohort.labelled_N])
    assert len(labelled) < len(cohort.stay_ids_N)
    for name in ("mlp2-frozen-hidden-plateau", "mlp2-unfrozen-hidden-plateau", "blend-frozen-members-none"):
        path = heads / f"artifacts/synthetic/heads/{OUTCOME}/csai/{name}/predictions.csv"
        assert set(pd.read_csv(path)["stay_id"]) == labelled
    assert len(Registry(heads, MODEL).versions()) == 4


def test_params_yaml_chooses_the_outcome(heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without --outcome take the one of params.yaml; an unknown one is refused with the list."""
    set_params(heads, {"outcome": OUTCOME})
    assert "length of stay over 7 days" in ran(heads, monkeypatch, "compare")
    assert [path.stem for path in (heads / "metrics/synthetic").iterdir()] == [VARIANT]
    set_params(heads, {"outcome": "los"})
    line = refused(invoke(heads, ["compare"], monkeypatch))
    assert line.startswith("cohort synthetic has no outcome 'los'")
    assert "in_hospital_death, los_over_3_days, los_over_7_days, one_year_survival" in line
    assert "folds of synthetic" in ran(heads, monkeypatch, "folds")  # which reads no outcome but the first


def test_an_outcome_of_one_value_is_refused_before_training(heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the split; nothing is written."""
    cohort = read_cohort(heads / "data/synthetic")
    label_N = np.ones(len(cohort.stay_ids_N), dtype=np.int8)
    label_N[0] = 0
    shutil.rmtree(heads / "data/synthetic")
    write_cohort(
        replace(cohort, other_outcomes={"rare": label_N}, values_NTD=np.array(cohort.values_NTD)),
        heads / "data/synthetic",
    )
    line = refused(invoke(heads, ["finetune", *HEAD, "--outcome", "rare"], monkeypatch))
    assert "have one value of rare only: extract more records" in line
    assert not (heads / "artifacts/synthetic/heads/rare").exists()
