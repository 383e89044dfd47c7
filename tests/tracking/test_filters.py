"""The filters that docs/mlflow.md gives find what it says."""

import re
from pathlib import Path

import pytest

from imputune.runtime.recorder import Trial
from imputune.tracking.provenance import DVC_EXPERIMENT_TAG
from imputune.tracking.run_details import RunDetails
from imputune.tracking.runs import tracked_run
from projects import ROOT, client_of


def record(root: Path, command: str, head: str, auc: float, **tags: str) -> str:
    """Track a finished run, named by command and head, with a fold and, of training, a trial; return its id.

    All have the same AUC.
    """
    details = RunDetails(name=f"{command} {head}", columns={"head": head})
    trial = Trial(number=0, learning_rate=0.1, state="complete", validation_loss=1.0, curve=[{"validation_auc": auc}])
    with tracked_run(
        root, experiment="imputune", command=command, params={}, tags=tags, folds=(0,), details=details
    ) as run:
        if command in ("finetune", "overfit"):
            run.trial_finished(0, trial)
        run.fold_finished(0, {"validation_auc": auc})
        run.log_metrics({"validation_auc": auc})
    return run.run_id


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("variants with head gru", {"finetune gru"}),
        ("variants above an AUC", {"finetune gru", "finetune svm"}),
        ("variants of a 64/16/20 protocol", {"finetune lstm"}),
        ("folds alone", {"fold 0"}),
        ("assessments of imputers", {"assess"}),
        ("runs of DVC experiments", {"finetune svm"}),
    ],
)
def test_filters_find_what_the_page_says(store: Path, wanted: str, names: set[str]) -> None:
    """No trial of a search, and no other command's run of the same variant."""
    page = (ROOT / "docs/mlflow.md").read_text()
    [line] = re.findall(rf"^\| {wanted} \| ``(.*)`` \|$", page, re.MULTILINE)
    client = client_of(store)
    found = client.search_runs([client.get_experiment_by_name("imputune").experiment_id], line)
    assert {run.info.run_name.strip() for run in found} == names


@pytest.fixture(scope="module")
def store(root: Path) -> Path:
    """A project's store with runs of several commands."""
    record(root, "finetune", "gru", 0.9)
    record(root, "finetune", "mlp2", 0.8)
    record(root, "finetune", "lstm", 0.8, **{"imputune.protocol": "single split 64/16/20, 5 seeds"})
    experiment = record(root, "finetune", "svm", 0.9)
    client_of(root).set_tag(experiment, DVC_EXPERIMENT_TAG, "five")
    for command in ("overfit", "register", "promote"):
        record(root, command, "gru", 0.9)
    record(root, "assess", "", 0.9)
    return root
