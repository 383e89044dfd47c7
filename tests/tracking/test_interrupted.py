import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from imputune.errors import UserError
from imputune.files import host_name
from imputune.tracking import store
from imputune.tracking.interrupted import NOTE_TAG, noted
from imputune.tracking.run_details import UNFINISHED


def status(client, run):
    """Return the status of a run now."""
    return client.get_run(run.info.run_id).info.status


def leave(path, host=None, inode=None):
    """Write a note as a command that was killed leaves it, on this machine unless it is given; return its path."""
    path.touch()
    path.write_text(f"{host or host_name()} {inode or path.stat().st_ino}")
    return path


@pytest.fixture
def client(root):
    """A client of the module's store."""
    return MlflowClient(store.open_store(root))


def test_the_next_command_of_a_kind_ends_the_run_of_a_killed_one(root, client, tmp_path):
    """Its run and those nested in it end as KILLED; runs of commands of another kind, or that still run, go on."""
    for name in ("promote-killed", "compare-killed"):
        leave(tmp_path / name)
    with leave(tmp_path / "promote-running").open("r+") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        runs = {name: client.create_run("0", tags={NOTE_TAG: name}) for name in ("promote-killed", "compare-killed")}
        runs["running"] = client.create_run("0", tags={NOTE_TAG: "promote-running"})
        nested = client.create_run("0", tags={"mlflow.parentRunId": runs["promote-killed"].info.run_id})
        with noted(root, tmp_path, "promote") as note:
            assert (tmp_path / note.tags[NOTE_TAG]).exists()
    assert {name: status(client, run) for name, run in runs.items()} == {
        "promote-killed": "KILLED",
        "compare-killed": "RUNNING",
        "running": "RUNNING",
    }
    assert status(client, nested) == "KILLED"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare-killed", "promote-running"]


def test_the_description_of_a_killed_run_promises_no_result(root, client, tmp_path):
    """It says how the run ended; a result that was written before stays."""
    for name, result in (("promote-early", UNFINISHED), ("promote-late", "test AUC 0.5")):
        leave(tmp_path / name)
        note = f"Tests version 3.\n\n{result}\n\nRun it again."
        client.create_run("0", run_name=name, tags={NOTE_TAG: name, "mlflow.note.content": note})
    with noted(root, tmp_path, "promote"):
        pass
    described = {
        run.info.run_name: run.data.tags["mlflow.note.content"]
        for run in client.search_runs(["0"], "tags.`mlflow.note.content` LIKE 'Tests version 3%'")
    }
    assert described == {
        "promote-early": "Tests version 3.\n\nIt ended as KILLED, without a result.\n\nRun it again.",
        "promote-late": "Tests version 3.\n\ntest AUC 0.5\n\nRun it again.",
    }


def test_two_commands_of_a_kind_do_not_end_each_other(root, client, tmp_path):
    """A command that runs holds its note."""
    with noted(root, tmp_path, "evaluate") as first:
        run = client.create_run("0", tags=first.tags)
        with noted(root, tmp_path, "evaluate") as second:
            assert second != first
        assert status(client, run) == "RUNNING"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_a_note_is_named(root, tmp_path):
    """No folder can be made below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/runs: "), noted(root, tmp_path / "file/runs", "folds"):
        pass


def test_a_note_of_another_machine_is_left_alone(root, client, tmp_path):
    """Its lock is not seen here: its command may run."""
    path = leave(tmp_path / "promote-elsewhere", host="another-machine")
    run = client.create_run("0", tags={NOTE_TAG: path.name})
    with noted(root, tmp_path, "promote"):
        pass
    assert status(client, run) == "RUNNING"
    assert list(tmp_path.iterdir()) == [path]


def test_in_a_copy_of_the_project_no_run_is_ended(root, client, tmp_path):
    """A copy that was made while a command ran has its note, not locked, and may share its store."""
    folder, copy = tmp_path / "runs", tmp_path / "copy"
    with noted(root, folder, "promote") as note:
        run = client.create_run("0", tags=note.tags)
        shutil.copytree(folder, copy)
        with noted(root, copy, "promote"):
            pass
        assert status(client, run) == "RUNNING"
    assert list(copy.iterdir()) == []


def test_a_note_is_a_text_file_of_its_machine(root, tmp_path):
    """It names the machine and its own inode, and cannot be executed."""
    with noted(root, tmp_path, "promote") as note:
        path = tmp_path / note.tags[NOTE_TAG]
        assert path.read_text() == f"{host_name()} {path.stat().st_ino}"
        assert path.stat().st_mode & 0o111 == 0


def test_a_note_of_another_user_is_left_alone(root, client, tmp_path, monkeypatch):
    """The system does not let this user open it."""
    path, opened = leave(tmp_path / "promote-another"), os.open
    run = client.create_run("0", tags={NOTE_TAG: path.name})

    def refuse(name, *arguments, **options):
        if name == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(name, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with noted(root, tmp_path, "promote"):
        pass
    assert status(client, run) == "RUNNING"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize(("function", "reason"), [("flock", "No locks available"), ("open", "Input/output error")])
def test_a_system_that_cannot_lock_is_a_user_error(root, tmp_path, monkeypatch, left, function, reason):
    """Whether the note of a killed command or the new one is refused, the folder is named, and no half note stays."""
    number = errno.ENOLCK if function == "flock" else errno.EIO
    paths = [leave(tmp_path / "promote-killed")] if left else []
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    opened = os.open

    def refuse(name, *arguments, **options):
        if isinstance(name, Path) and not name.is_relative_to(tmp_path):
            return opened(name, *arguments, **options)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl if function == "flock" else os, function, refuse)
    with pytest.raises(UserError, match=f"cannot write in .*: {reason}; "), noted(root, tmp_path, "promote"):
        pytest.fail("there is no note")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == paths
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_a_refused_rename_leaves_no_note(root, tmp_path, monkeypatch):
    """The descriptor is closed and the unfinished note removed."""

    def refuse(path, target):
        raise OSError(errno.EROFS, "Read-only file system")

    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="Read-only file system"), noted(root, tmp_path, "promote"):
        pytest.fail("there is no note")
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
