import json

import pytest
from mlflow import MlflowClient

from imputune.runtime.recorder import Trial
from imputune.tracking import store
from imputune.tracking.comparison_view import ComparisonView, share_view, stored_links, view_link
from imputune.tracking.run_details import RunDetails
from imputune.tracking.runs import tracked_run

HEADS = ComparisonView(dataset="synthetic", kind="heads")
IMPUTERS = ComparisonView(dataset="synthetic", kind="imputers")


SPLIT = "single split 64/16/20, 5 seeds"


def record(root, name, imputer="csai", dataset="synthetic", command="finetune", **more_tags):
    """Track a finished run with a fold and a trial; return its id."""
    tags = {"imputune.dataset": dataset, "imputune.imputer": imputer}
    tags |= {f"imputune.{tag}": text for tag, text in more_tags.items()}
    trial = Trial(number=0, learning_rate=0.1, state="complete", validation_loss=1.0, curve=[{"train_loss": 1.0}])
    details = RunDetails(name=name)
    with tracked_run(
        root, experiment="views", command=command, params={}, tags=tags, folds=(0,), details=details
    ) as run:
        run.trial_finished(0, trial)
        run.fold_finished(0, {"test_auc": 0.5})
        run.log_metrics({"validation_auc": 0.75, "test_auc": 0.5})
    return run.run_id


@pytest.fixture(scope="module")
def runs(root):
    """A store with two runs on imputers of CSAI's family, one on another, and runs of no interest."""
    ids = {
        "mlp2": record(root, "mlp2"),
        "more": record(root, "more", "csai_more"),
        "mean": record(root, "mean", "mean"),
    }
    record(root, "elsewhere", dataset="physionet2012")
    record(root, "pretrain", command="pretrain")
    record(root, "split", protocol=SPLIT)
    return ids


def found(root, view):
    """Return the names of the runs that a view's search finds."""
    client = MlflowClient(store.open_store(root))
    experiment = client.get_experiment_by_name("views").experiment_id
    return {run.info.run_name for run in client.search_runs([experiment], view.state()["searchFilter"])}


def test_a_view_finds_the_runs_of_variants_alone(root, runs):
    """Neither folds nor trials, nor other commands and datasets; heads are compared on CSAI and its relatives."""
    assert found(root, HEADS) == {"mlp2", "more"}
    assert found(root, IMPUTERS) == {"mlp2", "more", "mean"}


def test_a_view_shows_one_protocol(root, runs):
    """Cross-validation has no tag, as runs of earlier versions; another protocol has a view of its own name."""
    view = ComparisonView(dataset="synthetic", kind="heads", protocol=SPLIT)
    assert found(root, view) == {"split"}
    assert view.name == "imputune-synthetic-single-split-64-16-20-5-seeds-heads"


def test_a_view_is_stored_once_under_its_name(tmp_path):
    """The link names the experiment and the view; sharing again overwrites the tag, and `stored_links` gives it."""
    root = tmp_path  # a store of its own: the other tests share views too
    run = record(root, "mlp2")
    client = MlflowClient(store.open_store(root))
    experiment = client.get_experiment_by_name("views").experiment_id
    link = share_view(root, HEADS)
    client.set_experiment_tag(experiment, "mlflow.sharedViewState.imputune-synthetic-heads", "an older view")
    assert share_view(root, HEADS) == link
    query = "viewStateShareKey=imputune-synthetic-heads&compareRunsMode=CHART"
    assert link == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs?{query}"
    tags = client.get_experiment(experiment).tags
    [tag] = [name for name in tags if name.startswith("mlflow.sharedViewState.")]
    state = json.loads(tags[tag])
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections
    bars = [chart["metricKey"] for chart in state["compareRunCharts"] if chart["type"] == "BAR"]
    assert bars == ["validation/auc", "test/auc"]
    assert set(bars) <= set(client.get_run(run).data.metrics)
    assert stored_links(root, "http://127.0.0.1:8080") == [link.replace("5000", "8080")]


def test_the_experiments_page_has_the_links(root, runs):
    """Every view of the experiment has a link there; a description that a user wrote stays."""
    client = MlflowClient(store.open_store(root))
    experiment = client.get_experiment_by_name("views").experiment_id
    for view in (HEADS, IMPUTERS):
        share_view(root, view)
    note = client.get_experiment(experiment).tags["mlflow.note.content"]
    for view in ("heads", "imputers"):
        address = f"#/experiments/{experiment}/runs?viewStateShareKey=imputune-synthetic-{view}&compareRunsMode=CHART"
        assert note.count(f"- [imputune-synthetic-{view}]({address})") == 1
    client.set_experiment_tag(experiment, "mlflow.note.content", "my own words")
    share_view(root, HEADS)
    assert client.get_experiment(experiment).tags["mlflow.note.content"] == "my own words"


def test_without_runs_there_is_no_link(root, runs, tmp_path):
    """A dataset without a fine-tuned run, and a project without a store, have none, and no store is made."""
    assert share_view(root, ComparisonView(dataset="mimic3", kind="heads")) == ""
    assert stored_links(tmp_path) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("uri", "begins"),
    [
        ("sqlite:////project/mlflow.db", "http://127.0.0.1:5000/#/"),
        ("postgresql://me:secret@there/runs", "http://127.0.0.1:5000/#/"),
        ("https://me:secret@tracker:8443/mlflow/", "https://tracker:8443/mlflow/#/"),
        ("http://tracker:5000", "http://tracker:5000/#/"),
    ],
)
def test_the_link_leads_to_the_server_that_has_the_runs(uri, begins):
    """A tracking server is its own UI; no password is shown."""
    assert view_link(uri, "3", "imputune-synthetic-heads").startswith(f"{begins}experiments/3/runs?")
