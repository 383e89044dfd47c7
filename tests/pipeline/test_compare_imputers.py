"""Imputer or classifier, by the commands: pretrain, grid, assess, compare --by imputer,head."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from browser import needs_browser, opened
from imputune.artifacts.checkpoints import Checkpoints
from imputune.data.cohort import read_cohort
from imputune.pipeline import pretrain as pretraining
from imputune.pipeline.assess import missing_groups
from imputune.protocol import imputers as catalogue
from imputune.tracking.history import finished_runs
from projects import FOLDS, copy_of, heads_folder, invoke, refused, set_params

ASSESSED = "artifacts/synthetic/assess"


@pytest.fixture
def copy(project, tmp_path, monkeypatch) -> Path:
    """A copy of the project in which commands run."""
    copy = copy_of(project, tmp_path)
    monkeypatch.chdir(copy)
    return copy


def found(project: Path) -> dict:
    """Return what compare found of imputers and heads."""
    return json.loads((project / "results/synthetic/imputers.json").read_text())


def test_stages_compare_imputers_and_heads(project):
    """dvc.yaml's commands leave a row for every imputer, one for every imputer and head, and the answer."""
    told = found(project)
    assert [each["imputer"] for each in told["imputers"]] == ["csai", "mean"]
    assert {(row["pattern"], row["rate"]) for row in told["imputers"][0]["rows"]} == {
        (pattern, 0.1) for pattern in ("uniform", "non_uniform", "hours", "onward", "blocks")
    }
    assert sorted((row["imputer"], row["head"], row["input"]) for row in told["matrix"]) == [
        *(("csai", "gru", "imputed"), ("csai", "mlp2", "hidden"), ("csai", "xgboost", "imputed")),
        *(("mean", "mlp2", "imputed"), ("mean", "xgboost", "imputed")),
    ]
    assert all(len(row["folds"]) == FOLDS for row in told["matrix"])
    assert told["decomposition"]["heads"] == ["mlp2", "xgboost"]  # gru is there on CSAI alone
    assert told["notes"] == []
    assert "NaN" not in json.dumps(told)


def test_the_report_is_logged_and_holds_the_tables(project):
    """The run has the page, the Markdown and the pictures; the page on disk is the same."""
    runs = finished_runs(project, "imputune", "compare", "synthetic")
    run = next(run for run in runs if run.params.get("by") == "imputer,head")
    [logged] = (project / "mlruns").glob(f"*/{run.run_id}/artifacts/report.html")
    page = (project / "results/synthetic/report.html").read_text()
    assert logged.read_text() == page
    assert "(figures/matrix.png)" in (logged.parent / "report.md").read_text()
    assert (logged.parent / "figures/matrix.png").read_bytes().startswith(b"\x89PNG")
    text = (project / "results/synthetic/report.md").read_text()
    for title in ("What was run", "Imputers alone", "Imputer × classifier", "How to reproduce it"):
        assert title in page
        assert title in text
    named = set(re.findall(r"\(report/([^)]+)\)", text))
    assert named == {path.name for path in (project / "results/synthetic/report").iterdir()}
    assert {"errors.png", "matrix.png", "example.png", "risks.png", "imputer-training.png"} <= named


@needs_browser
def test_the_real_report_opens_on_a_phone(project):
    """The page that the pipeline wrote: no error in the browser, all pictures drawn, nothing sticks out."""
    told = opened(project / "results/synthetic/report.html")
    assert (told["log"], told["broken"], told["overflow"]) == ([], [], 0)
    assert told["images"] == len(list((project / "results/synthetic/report").iterdir()))
    assert told["title"].startswith("Imputer or classifier? synthetic")


def test_a_full_matrix_has_an_answer(copy, monkeypatch):
    """With every head on every imputer the variance is divided, on the screen and in the file, and controls apart."""
    for words in (
        ["pretrain", "--imputer", "csai_untrained,csai_untrained"],
        ["grid", "--imputer", "csai_untrained,mean,mean", "--head", "mlp2,xgboost,gru"],
        ["assess", "--imputer", "csai_untrained"],
    ):
        done = invoke(copy, words, monkeypatch)
        assert done.exit_code == 0, done.output
    done = invoke(copy, ["compare", "--by", "head,imputer"], monkeypatch)
    assert done.exit_code == 0, done.output
    assert re.search(r"On synthetic .*\. Of the variance of test AUC over 2 imputers, 3 class", done.stdout)
    divided = found(copy)["decomposition"]
    parts = [divided[part]["share"] for part in ("imputer", "head", "interaction")]
    assert sum(parts) + divided["folds"] + divided["residual"] == pytest.approx(1, abs=1e-5)
    assert found(copy)["decomposition_without_controls"]["imputers"] == ["csai", "mean"]
    again = invoke(copy, ["assess", "--imputer", "csai_untrained"], monkeypatch)
    assert "csai_untrained is assessed already" in again.stderr


def test_what_artifacts_lack_is_read_from_committed_files(copy, monkeypatch):
    """The report has the same numbers with half of the artifacts; notes say which scores have no curves.

    The figure for which everything is missing stays as the report before drew it, and its caption says so.
    """
    before = found(copy)
    report = copy / "results/synthetic/report.md"
    example = (copy / "results/synthetic/report/example.png").read_bytes()
    assert "report/risks.png" in report.read_text()
    for folder in ("imputers/mean", "heads/in_hospital_death/mean", "assess/mean", "assess/csai"):
        shutil.rmtree(copy / "artifacts/synthetic" / folder)
    shutil.rmtree(heads_folder(copy) / "gru-frozen-imputed-plateau")
    assert invoke(copy, ["compare", "--by", "imputer,head"], monkeypatch).exit_code == 0
    after = found(copy)
    assert after["notes"] == [
        "csai: read from the files in results/synthetic, without curves: gru, assessment",
        "mean: read from the files in results/synthetic, without curves: mlp2, xgboost, assessment",
    ]
    assert [row["source"] for row in after["matrix"]].count("results file") == 3
    for told in (before, after):
        del told["notes"]
        told["matrix"] = [{**row, "source": "", "calibration": []} for row in told["matrix"]]
        told["protocol"] = []
    assert after == before
    page = report.read_text()
    assert "report/risks.png" in page
    assert "(drawn for an earlier report)](report/example.png)" in page
    assert (copy / "results/synthetic/report/example.png").read_bytes() == example
    assert "(drawn for an earlier report)](report/risks.png)" not in page


@pytest.mark.parametrize(
    ("edit", "note"),
    [
        (
            {"cohort_hash": "other"},
            "results/synthetic/imputers/mean.json is of other data, other folds or another seed",
        ),
        ({"format": 99}, "is of another version of imputune"),
    ],
)
def test_files_of_other_data_or_versions_are_left_out(copy, monkeypatch, edit, note):
    """A committed file of an imputer that does not belong here is named in a note, and its imputer is left out."""
    shutil.rmtree(copy / "artifacts/synthetic/imputers/mean")
    path = copy / "results/synthetic/imputers/mean.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    assert invoke(copy, ["compare", "--by", "imputer,head"], monkeypatch).exit_code == 0
    told = found(copy)
    assert {row["imputer"] for row in told["matrix"]} == {"csai"}
    assert any(note in each for each in told["notes"])


def test_only_csai_is_registered(copy, monkeypatch):
    """Other imputers' variants are measured and tracked, and cannot be promoted: the registry has none of them."""
    runs = finished_runs(copy, "imputune", "finetune", "synthetic")
    assert {run.tags["imputune.imputer"] for run in runs} == {"csai", "mean"}
    weights = list(heads_folder(copy, "mean").glob("*/fold-*.safetensors"))
    assert len(weights) == 2 * FOLDS  # of mlp2, and the scaler of xgboost
    mean = {run.run_id for run in runs if run.tags["imputune.imputer"] == "mean"}
    registered = MlflowClient(f"sqlite:///{copy}/mlflow.db").search_model_versions()
    assert registered
    assert not mean & {version.run_id for version in registered}


def test_outputs_of_another_pretraining_are_left_out(copy, monkeypatch):
    """After an imputer is pretrained with other settings, its variants and its assessment are left out, with notes."""
    set_params(copy, {"pretrain.learning_rate": 0.002})
    assert invoke(copy, ["pretrain"], monkeypatch).exit_code == 0
    done = invoke(copy, ["compare", "--by", "imputer,head", "--json"], monkeypatch)
    told = json.loads(done.stdout)
    assert {row["imputer"] for row in told["matrix"]} == {"mean"}
    assert [each["imputer"] for each in told["imputers"]] == ["mean"]
    assert any(
        "csai/mlp2-frozen-hidden-plateau is skipped: it was made from another pretraining of the imputer" in note
        for note in told["notes"]
    )
    assert any("the assessment of csai is skipped" in note for note in told["notes"])


def test_pretraining_again_with_equal_settings_keeps_the_scores(copy, monkeypatch):
    """After an imputer is pretrained again with the same settings, its scores are those of the committed files."""
    assert invoke(copy, ["pretrain", "--imputer", "mean"], monkeypatch).exit_code == 0
    assert invoke(copy, ["compare", "--by", "imputer,head"], monkeypatch).exit_code == 0
    told = found(copy)
    rows = {row["head"]: row["source"] for row in told["matrix"] if row["imputer"] == "mean"}
    assert rows == {"mlp2": "results file", "xgboost": "results file"}
    assert any("mean/mlp2-frozen-imputed-plateau is skipped" in note for note in told["notes"])
    assert any("mean: read from the files" in note for note in told["notes"])


@pytest.mark.parametrize("finished", [1, FOLDS])
def test_interrupted_pretraining_goes_on(copy, monkeypatch, finished):
    """Folds that were finished are not trained again, be it all; the run of the command that was cut off has ended."""
    trained = []
    whole = pretraining.run_fold_jobs

    def cut_off(work, jobs, recorder, workers, done):
        whole(work, jobs[:finished], recorder, workers, done)
        raise KeyboardInterrupt

    def counted(work, jobs, *rest):
        trained.extend(job.fold.number for job in jobs)
        return whole(work, jobs, *rest)

    monkeypatch.setattr(pretraining, "run_fold_jobs", cut_off)
    assert invoke(copy, ["pretrain", "--imputer", "locf"], monkeypatch).exit_code != 0
    monkeypatch.setattr(pretraining, "run_fold_jobs", counted)
    done = invoke(copy, ["pretrain", "--imputer", "locf"], monkeypatch)
    assert done.exit_code == 0, done.output
    assert trained == list(range(finished, FOLDS))
    result = json.loads((copy / "artifacts/synthetic/imputers/locf/result.json").read_text())
    assert [fold["fold"] for fold in result["folds"]] == list(range(FOLDS))
    runs = finished_runs(copy, "imputune", "pretrain", "synthetic")
    assert [run.run_id for run in runs if run.tags.get("imputune.imputer") == "locf"] == [result["run_id"]]
    assert not (copy / "artifacts/synthetic/unfinished/pretrain-locf").exists()


def test_pretraining_stopped_after_its_run_is_finished_by_the_next(copy, monkeypatch):
    """A command that was stopped between the end of its run and its own is not done again: there is one run."""

    def stopped(self):
        if self.folder.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "remove", stopped)
        assert invoke(copy, ["pretrain", "--imputer", "mean"], monkeypatch).exit_code != 0
    path = copy / "artifacts/synthetic/imputers/mean/result.json"
    before = path.read_bytes()
    done = invoke(copy, ["pretrain", "--imputer", "mean"], monkeypatch)
    assert done.exit_code == 0, done.output
    assert path.read_bytes() == before
    newest = finished_runs(copy, "imputune", "pretrain", "synthetic")[0]
    assert newest.run_id == json.loads(before)["run_id"]


def test_groups_of_stays_begin_with_the_fullest_records(project):
    """Group 0 has the fewest missing cells, the last the most; all are of about the same size."""
    cohort = read_cohort(project / "data/synthetic")
    group_N, edges = missing_groups(cohort)
    missing_N = 1 - cohort.observed_NTD.mean(axis=(1, 2))
    ends = [missing_N[group_N == 0].min(), missing_N[group_N == 3].max()]
    assert ends == pytest.approx([edges[0], edges[-1]], abs=1e-4)
    for fuller, emptier in pairwise(range(4)):
        assert missing_N[group_N == fuller].max() <= missing_N[group_N == emptier].min()
    assert max(np.bincount(group_N)) - min(np.bincount(group_N)) <= 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["pretrain", "--imputer", ","],
            "--imputer takes names separated by commas, such as mean,locf, or all: got ','",
        ),
        (["pretrain", "--imputer", "sait"], "unknown imputer 'sait' (did you mean 'saits'?): choose from csai, "),
        (["grid", "--imputer", "locf"], "artifacts/synthetic/imputers/locf has no result of a finished run: run "),
        (["assess", "--imputer", "linear"], "run `imputune pretrain synthetic --imputer linear` first"),
        (["finetune", "--imputer", "mean", "--mode", "unfrozen"], "mlp2 on mean has no mode 'unfrozen': "),
        (["finetune", "--imputer", "mean", "--head", "gru", "--input", "raw"], "gru on mean has no input 'raw': "),
        (["grid", "--imputer", "mean", "--input", "hidden"], "no variant has input hidden: "),
        (["grid", "--imputer", "csai,mean", "--head", "mlp2", "--input", "hidden"], "has imputer mean: "),
        (["grid", "--imputer", "mean", "--schedule", "cyclic,none", "--head", "mlp2"], "has none: "),
        (["grid", "--imputer", "mean", "--all"], "--all takes every variant: leave out "),
        (["compare", "--by", "imputer"], "--by takes imputer,head: got 'imputer'"),
    ],
)
def test_bad_words_are_refused_in_one_line(copy, monkeypatch, words, message):
    """An unknown imputer, one that was not pretrained, a combination that does not exist."""
    assert message in refused(invoke(copy, words, monkeypatch))


@pytest.mark.parametrize("command", ["pretrain", "grid", "finetune", "assess"])
def test_an_imputer_that_is_not_installed_names_the_command_that_installs_it(copy, monkeypatch, command):
    """Without PyPOTS, each command says how to get it, before anything else."""
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None)
    told = refused(invoke(copy, [command, "--imputer", "saits"], monkeypatch))
    install = "pip install -e '.[pypots]'"
    assert told == f"imputer saits is PyPOTS's SAITS, which is not installed: run `{install}` in the project's folder"


def test_a_rate_that_masks_nothing_is_refused(copy, monkeypatch):
    """The line names the rate and where to change it; the earlier assessment stays."""
    before = (copy / ASSESSED / "mean/result.json").read_text()
    set_params(copy, {"assess.rates": [0.0000001]})
    told = refused(invoke(copy, ["assess", "--imputer", "mean"], monkeypatch))
    assert re.match(r"pattern \w+ at rate 1e-07 masks no cell in the \d+ test stays of fold \d: choose other", told)
    assert (copy / ASSESSED / "mean/result.json").read_text() == before


def test_nothing_to_compare_says_what_to_run(copy, monkeypatch):
    """Without variants and assessments the commands that make them are named."""
    for folder in ("artifacts/synthetic/heads", "artifacts/synthetic/assess", "results/synthetic"):
        shutil.rmtree(copy / folder)
    told = refused(invoke(copy, ["compare", "--by", "imputer,head"], monkeypatch))
    assert "run `imputune grid synthetic --imputer all` and `imputune assess synthetic` first" in told
