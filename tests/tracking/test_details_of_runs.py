import json
import logging

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param

from imputune.errors import UserError
from imputune.tracking import store
from imputune.tracking.cohort_input import CohortInput
from imputune.tracking.run_details import UNFINISHED, RunDetails
from imputune.tracking.runs import tracked_run

COHORT = CohortInput(
    name="synthetic",
    cohort_hash="0123456789abcdef" * 4,
    context="training",
    size={"stays": 60, "hours": 48, "variables": 35, "in_hospital_death": 9},
    source={"command": "imputune extract synthetic", "exclusions": {}},
    variables=["HR (beats/min)"],
)
DETAILS = RunDetails(
    name="mlp2 · frozen · hidden · plateau",
    doing="Fine-tunes **mlp2**.",
    repeat="Run it again.",
    columns={"dataset": "synthetic", "head": "mlp2", "mode": "frozen"},
    cohorts=[COHORT],
)


def start(root, params=None):
    """Return a run with all details, not entered yet."""
    tags = {"imputune.dataset": "synthetic"}
    return tracked_run(
        root, experiment="details", command="finetune", params=params or {}, tags=tags, folds=(0, 3), details=DETAILS
    )


@pytest.fixture
def client(root):
    """A client of the module's store."""
    return MlflowClient(store.open_store(root))


def test_a_run_and_its_folds_can_be_told_apart_and_filtered(root, client):
    """The run has its name; the run and its folds have the columns as parameters, and the cohort as input."""
    with start(root, {"seed": 7}) as run:
        run.fold_finished(3, {"test_auc": 0.5})
    stored = client.get_run(run.run_id)
    [fold] = client.search_runs([stored.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    assert (stored.info.run_name, fold.info.run_name) == ("mlp2 · frozen · hidden · plateau", "fold 3")
    assert stored.data.params == {"dataset": "synthetic", "head": "mlp2", "mode": "frozen", "seed": "7"}
    assert fold.data.params == {"dataset": "synthetic", "head": "mlp2", "mode": "frozen"}
    for each in (stored, fold):
        [used] = each.inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("synthetic", "0123456789ab")
        assert json.loads(used.dataset.profile) == COHORT.size
        [variable] = json.loads(used.dataset.schema)["mlflow_colspec"]
        assert variable == {"type": "double", "name": "HR (beats/min)", "required": False}
        assert json.loads(used.dataset.source) == {"tags": COHORT.source}
        assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}


def test_the_description_gets_the_result_at_the_end(root, client):
    """While the run goes on it says what is run, then the result too; folds have none."""

    def described():
        return client.get_run(run.run_id).data.tags["mlflow.note.content"]

    with start(root) as run:
        assert described() == f"Fine-tunes **mlp2**.\n\n{UNFINISHED}\n\nRun it again."
        run.fold_finished(0, {"test_auc": 0.5})
        run.describe("test AUC 0.5")
    assert described() == "Fine-tunes **mlp2**.\n\ntest AUC 0.5\n\nRun it again."
    experiment = client.get_run(run.run_id).info.experiment_id
    [fold] = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    assert "mlflow.note.content" not in fold.data.tags


def test_the_description_of_a_run_that_failed_says_so(root, client):
    """Nobody waits for a result that does not come."""
    with pytest.raises(ValueError, match="diverged"), start(root) as run:
        raise ValueError("diverged")
    note = client.get_run(run.run_id).data.tags["mlflow.note.content"]
    assert note == "Fine-tunes **mlp2**.\n\nIt ended as FAILED, without a result.\n\nRun it again."


def test_a_run_that_fails_after_its_result_keeps_it(root, client):
    """Registering may fail when the scores are there: the description has both."""
    with pytest.raises(ValueError, match="no disk"), start(root) as run:  # noqa: PT012 the block is tested
        run.describe("test AUC 0.5")
        raise ValueError("no disk")
    note = client.get_run(run.run_id).data.tags["mlflow.note.content"]
    assert note == "Fine-tunes **mlp2**.\n\ntest AUC 0.5\n\nIt ended as FAILED.\n\nRun it again."


def test_a_description_that_cannot_be_stored_is_a_warning(tmp_path, caplog):
    """The command has its result, so it goes on; only the end of the run tells that the store is broken."""
    with pytest.raises(UserError, match=r"mlflow\.db failed"), start(tmp_path) as run:  # noqa: PT012 the block is tested
        (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100_000)
        run.describe("test AUC 0.5")
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert f"run {run.run_id} keeps its description without the result" in caplog.text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("adorable-ant-123", "mlp2 · frozen · hidden · plateau"),
        ("my best head", "my best head"),
        ("set-a-1", "set-a-1"),
    ],
)
def test_the_run_of_mlflow_run_gets_our_name_unless_it_was_named(root, client, monkeypatch, given, shown):
    """A random name says nothing. Parameters that mlflow has logged, also as "", keep their text; missing ones come."""
    outer = client.create_run("0", run_name=given).info.run_id
    client.log_batch(outer, params=[Param("head", "mlp2"), Param("mode", ""), Param("dataset", "")])
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    with start(root, {"seed": 7}) as run:
        pass
    adopted = client.get_run(outer)
    assert (run.run_id, adopted.info.run_name, adopted.info.status) == (outer, shown, "FINISHED")
    assert adopted.data.params == {"head": "mlp2", "mode": "", "dataset": "", "seed": "7"}
    assert adopted.data.tags["mlflow.note.content"].startswith("Fine-tunes")
    assert len(adopted.inputs.dataset_inputs) == 1
