"""The note that a tracked command leaves for the next one of its kind."""

import pytest
from mlflow import MlflowClient

from imputune.pipeline.project import Project
from imputune.pipeline.run_subject import RunSubject
from imputune.pipeline.tracked import track
from imputune.settings.file import read_params
from imputune.tracking.cohort_input import CohortInput
from imputune.tracking.starting import PlannedRun
from imputune.tracking.store import open_store
from imputune.tracking.store_failures import StoreUnavailableError
from projects import ROOT

COHORT = CohortInput(name="synthetic", cohort_hash="ab" * 32, context="training", size={}, source={})


def test_a_run_whose_creation_got_no_answer_is_ended_by_the_next_command(tmp_path, monkeypatch):
    """The server has created it, so the note stays."""
    create = PlannedRun.create

    def create_without_answer(planned):
        create(planned)
        raise StoreUnavailableError("the store failed", "no answer")

    project = Project(root=tmp_path, params=read_params(ROOT / "params.yaml"))
    subject = RunSubject(command="promote", name="promote", doing="Promotes.", cohorts=[COHORT])
    monkeypatch.setattr(PlannedRun, "create", create_without_answer)
    with pytest.raises(StoreUnavailableError), track(project, subject, settings={}):
        pytest.fail("the block ran without a run")
    monkeypatch.setattr(PlannedRun, "create", create)
    with track(project, subject, settings={}) as run:
        client = MlflowClient(open_store(tmp_path))
        experiment = client.get_run(run.run_id).info.experiment_id
        statuses = [each.info.status for each in client.search_runs([experiment])]
    assert sorted(statuses) == ["KILLED", "RUNNING"]
    assert not list(project.notes_folder.iterdir())
