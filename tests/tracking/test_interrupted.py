import fcntl

import pytest
from mlflow import MlflowClient

from imputune.errors import UserError
from imputune.tracking import store
from imputune.tracking.interrupted import NOTE_TAG, noted


def status(client, run):
    """Return the status of a run now."""
    return client.get_run(run.info.run_id).info.status


@pytest.fixture
def client(root):
    """A client of the module's store."""
    return MlflowClient(store.open_store(root))


def test_the_next_command_of_a_kind_ends_the_run_of_a_killed_one(root, client, tmp_path):
    """Its run and those nested in it end as KILLED; runs of commands of another kind, or that still run, go on."""
    for name in ("promote-killed", "compare-killed"):
        (tmp_path / name).touch()
    with (tmp_path / "promote-running").open("w") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        runs = {name: client.create_run("0", tags={NOTE_TAG: name}) for name in ("promote-killed", "compare-killed")}
        runs["running"] = client.create_run("0", tags={NOTE_TAG: "promote-running"})
        nested = client.create_run("0", tags={"mlflow.parentRunId": runs["promote-killed"].info.run_id})
        with noted(root, tmp_path, "promote") as tag:
            assert (tmp_path / tag[NOTE_TAG]).exists()
    assert {name: status(client, run) for name, run in runs.items()} == {
        "promote-killed": "KILLED",
        "compare-killed": "RUNNING",
        "running": "RUNNING",
    }
    assert status(client, nested) == "KILLED"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare-killed", "promote-running"]


def test_two_commands_of_a_kind_do_not_end_each_other(root, client, tmp_path):
    """A command that runs holds its note."""
    with noted(root, tmp_path, "evaluate") as first:
        run = client.create_run("0", tags=first)
        with noted(root, tmp_path, "evaluate") as second:
            assert second != first
        assert status(client, run) == "RUNNING"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_a_note_is_named(root, tmp_path):
    """No folder can be made below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/runs: "), noted(root, tmp_path / "file/runs", "folds"):
        pass
