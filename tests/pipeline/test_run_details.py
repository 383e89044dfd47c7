"""What people see of the runs of a whole project in the MLflow UI."""

import json
from dataclasses import replace

import pytest

from imputune.data.cohort import read_cohort
from imputune.pipeline.run_subject import cohort_input
from imputune.tracking.history import finished_runs
from projects import FOLDS, STAYS, client_of, copy_of, invoke

WITHOUT_PARENT = "tags.`imputune.fold` IS NULL"


@pytest.fixture
def runs(project):
    """The runs of all commands by name, without those of folds."""
    client = client_of(project)
    experiment = client.get_experiment_by_name("imputune").experiment_id
    return {run.info.run_name: run for run in client.search_runs([experiment], WITHOUT_PARENT)}


def test_names_tell_runs_apart(runs):
    """Each run of the project has a name of its own; the fold's runs are numbered."""
    assert set(runs) == {
        "folds · synthetic",
        "csai · pretrain",
        "mean · pretrain",
        "mlp2 · frozen · hidden · plateau",
        "mlp2 · unfrozen · hidden · plateau",
        "mlp2 · frozen · imputed · plateau · mean",
        "gru · frozen · imputed · plateau",
        "xgboost · imputed",
        "xgboost · hidden",
        "xgboost · summary",
        "xgboost · imputed · mean",
        "assess · csai",
        "assess · mean",
        "compare · synthetic",
        "compare · synthetic · imputers",
    }


def test_heads_can_be_filtered_and_grouped(project, runs):
    """A variant's words are parameters of its run and of its folds' runs."""
    words = {"head": "mlp2", "mode": "unfrozen", "input": "hidden", "schedule": "plateau", "imputer": "csai"}
    run = runs["mlp2 · unfrozen · hidden · plateau"]
    children = client_of(project).search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    )
    assert {child.info.run_name for child in children} == {f"fold {fold}" for fold in range(FOLDS)}
    for each in (run, *children):
        assert (words | {"dataset": "synthetic"}).items() <= each.data.params.items()


def test_metrics_stand_in_groups(project, runs):
    """Scores of splits and of imputation have groups; their names inside the program are as before."""

    def groups(name):
        return {metric.partition("/")[0] for metric in runs[name].data.metrics if "/" in metric}

    assert groups("mlp2 · frozen · hidden · plateau") == {"validation", "test"}
    assert groups("csai · pretrain") == groups("assess · csai") == {"imputation"}
    assert runs["assess · csai"].data.metrics["imputation/mae"] > 0
    for run in finished_runs(project, "imputune", "pretrain", "synthetic"):
        assert {"test_mae_uniform", "validation_mae_non_uniform", "mae", "seconds"} <= set(run.metrics)


def test_every_run_names_its_cohort_and_none_of_its_records(project, runs):
    """The Dataset column has the dataset, whether it trained or measured, and counts alone."""
    for name, run in runs.items():
        [used] = run.inputs.dataset_inputs
        measures = name.startswith(("assess", "compare"))
        assert {tag.value for tag in used.tags} == {"evaluation" if measures else "training"}, name
        assert used.dataset.name == "synthetic"
        assert run.data.params["cohort.hash"].startswith(used.dataset.digest)
        size = json.loads(used.dataset.profile)
        assert set(size) == {"stays", "hours", "variables", "in_hospital_death"}
        assert (size["stays"], size["hours"], size["variables"]) == (STAYS, 48, 35)
        told = set(json.loads(used.dataset.source)["tags"])
        assert told <= {"command", "version", "sets", "exclusions", "records_read"}


def test_what_a_dataset_adds_to_its_source_is_not_told(project):
    """A dataset's own keys may hold anything, so runs have the known ones alone; unknown outcomes are not counted."""
    cohort = read_cohort(project / "data/synthetic")
    planted = replace(cohort, source={**cohort.source, "first_row": [900001, 80.5]}, outcome_N=cohort.outcome_N * 0 - 1)
    told = cohort_input("synthetic", planted, "0" * 64, "training")
    assert "exclusions" in told.source
    assert "first_row" not in told.source
    assert set(told.size) == {"stays", "hours", "variables"}


def test_descriptions_have_the_result_and_how_to_repeat_it(project, runs):
    """A variant's description has its AUC as the artifacts have it; every command can be repeated from its own."""
    described = {name: run.data.tags["mlflow.note.content"] for name, run in runs.items()}
    assert not [name for name, text in described.items() if "will be written here" in text]
    for form in ("\nimputune ", "\nmlflow run . -e "):
        assert not [name for name, text in described.items() if form not in text]
    text = described["mlp2 · unfrozen · hidden · plateau"]
    auc = runs["mlp2 · unfrozen · hidden · plateau"].data.metrics["test/auc"]
    assert f"| test AUC | {auc:.3f} ± " in text
    words = "--head mlp2 --mode unfrozen --input hidden --schedule plateau --imputer csai"
    assert f"\nimputune finetune synthetic {words}\n" in text
    assert "| non-uniform | " in described["csai · pretrain"]
    assert f"| **mean** | {runs['assess · mean'].data.metrics['imputation/mae']:.3f} ± " in described["assess · mean"]
    assert "| xgboost · summary | " in described["compare · synthetic"]


def test_comparisons_end_with_a_link(project, tmp_path, monkeypatch):
    """compare, grid and promote say where the UI shows the runs side by side; the view is stored once for each kind."""
    copy = copy_of(project, tmp_path, with_mlruns=True)
    link = "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=imputune-synthetic-{}&compareRunsMode=CHART"
    for words, kind in (
        (["compare", "--json"], "heads"),
        (["compare"], "heads"),
        (["compare", "--by", "imputer,head"], "imputers"),
        (["grid", "--head", "xgboost", "--imputer", "mean"], "imputers"),
        (["grid", "--head", "mlp2", "--mode", "frozen", "--schedule", "plateau", "--input", "hidden"], "heads"),
        (["promote"], "heads"),
    ):
        done = invoke(copy, words, monkeypatch)
        assert done.exit_code in (0, 3), done.output
        assert done.stderr.splitlines()[-1].endswith(link.format(kind)), words
        assert "viewStateShareKey" not in done.stdout
    tags = client_of(copy).get_experiment("1").tags
    assert {tag for tag in tags if "sharedViewState" in tag} == {
        f"mlflow.sharedViewState.imputune-synthetic-{kind}" for kind in ("heads", "imputers")
    }
    quiet = invoke(copy, ["promote", "--dry-run"], monkeypatch)
    assert "viewStateShareKey" not in quiet.stderr


def test_a_link_that_cannot_be_stored_is_a_note(project, tmp_path, monkeypatch):
    """The comparison is made and printed; why there is no link is said in a line."""
    copy = copy_of(project, tmp_path, with_mlruns=True)
    monkeypatch.setattr("imputune.pipeline.compare.track_if_allowed", _break_after(copy))
    done = invoke(copy, ["compare"], monkeypatch)
    assert done.exit_code == 0, done.output
    assert "note: no link to the runs in the MLflow UI: the tracking store" in done.stderr


def _break_after(copy):
    """Return `track_if_allowed` for a store that turns into no database when the run has ended."""
    from contextlib import contextmanager

    from imputune.pipeline.tracked import track_if_allowed

    @contextmanager
    def breaking(*arguments, **options):
        with track_if_allowed(*arguments, **options) as run:
            yield run
        (copy / "mlflow.db").write_bytes(b"not a database" * 100_000)

    return breaking
