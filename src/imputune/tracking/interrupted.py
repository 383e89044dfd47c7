"""Ends the runs that a killed command left running, and deletes the versions that it registered."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from mlflow import MlflowClient

from imputune import signals
from imputune.errors import UserError
from imputune.files import host_name
from imputune.tracking import store
from imputune.tracking.run_details import NOTE_CONTENT, UNFINISHED, ended_early
from imputune.tracking.starting import PARENT_TAG
from imputune.tracking.store_failures import StoreUnavailableError, failures

NOTE_TAG = "imputune.note"
"""The tag of a run that names its note; see `noted`."""


@dataclass(kw_only=True)
class Note:
    """A command's note: the tags that its run must be created with, and whether the note outlives the command.

    It must where the run could not be ended in the store: the next command of its kind ends that run.
    """

    tags: dict[str, str]
    is_kept: bool = False


@contextmanager
def noted(root: Path, folder: Path, command: str) -> Iterator[Note]:
    """Leave a note in a folder while a command runs, after ending the runs of those of its kind that were killed.

    The system unlocks the note of a process that ends, however it ends, so a note that is not locked is of a killed
    command. That holds on the machine that wrote the note, and not for a copy of the project: a note says which machine
    wrote it, and its inode. Raises UserError when the store fails, or the system refuses to write or lock a note.
    """
    for left in folder.glob(f"{command}-*"):
        try:
            _end_killed(root, left)
        except StoreUnavailableError:
            if not store.in_use:
                raise
            break  # the server went away in the middle of this command: the next one does it
    path = folder / f"{command}-{uuid4().hex}"
    with signals.held():
        descriptor = _locked(path)
        note = Note(tags={NOTE_TAG: path.name})
        try:
            with signals.released():
                yield note
        finally:
            if not note.is_kept:
                path.unlink(missing_ok=True)
            os.close(descriptor)


def end_interrupted(root: Path, run_id: str) -> bool:
    """End the run of a killed command, and the runs nested in it, as KILLED; delete the versions it registered.

    Returns whether the run had already finished; then nothing changes. A run that does not exist any more is ignored.
    Raises UserError when the store fails.
    """
    uri = store.open_store(root)
    run = store.active_run(uri, run_id)
    if run is None:
        return False
    if run.info.status == "FINISHED":
        return True
    client = MlflowClient(uri)
    with failures(uri):
        for version in client.search_model_versions(f"run_id = '{run_id}'"):
            client.delete_model_version(version.name, version.version)
        _end(client, run.info.experiment_id, run_id)
    return False


def _locked(path: Path) -> int:
    """Write a note and lock it; return its file descriptor."""
    unlocked = path.with_name(f".{path.name}.new")  # under this name no other command takes it for a killed one's
    with _refusals(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        note = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(note, fcntl.LOCK_EX)
            os.write(note, f"{host_name()} {os.fstat(note).st_ino}".encode())
            unlocked.rename(path)
        except BaseException:
            os.close(note)
            unlocked.unlink(missing_ok=True)
            raise
    return note


def _end_killed(root: Path, path: Path) -> None:
    """End the runs of a note that this machine wrote and no process holds, and remove it; of a copy, only remove it."""
    with _refusals(path.parent):
        try:
            note = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return  # its command has just ended
        except PermissionError:
            return  # another user's
    try:
        with _refusals(path.parent):
            host, _, inode = os.read(note, 1024).decode(errors="replace").partition(" ")
            if host != host_name():
                return
            try:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # its command runs
        if inode == str(os.fstat(note).st_ino):
            _end_runs(root, path.name)
        with _refusals(path.parent):
            path.unlink(missing_ok=True)
    finally:
        os.close(note)


def _end_runs(root: Path, note: str) -> None:
    """End the runs that were created with a note's tag."""
    uri = store.open_store(root)
    client = MlflowClient(uri)
    with failures(uri):
        experiments = [each.experiment_id for each in client.search_experiments()]
        wanted = f"tags.`{NOTE_TAG}` = '{note}' and attributes.status = 'RUNNING'"
        running = [run.info.run_id for run in client.search_runs(experiments, wanted)]
    for run_id in running:
        end_interrupted(root, run_id)


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Raise UserError when the system refuses something in a folder."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot write in {folder}: {reason}; free the disk or ask for permission") from error


def _end(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    for child in client.search_runs([experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'"):
        _end(client, experiment_id, child.info.run_id)
    run = client.get_run(run_id)
    if run.info.status == "RUNNING":
        described = run.data.tags.get(NOTE_CONTENT, "")
        if UNFINISHED in described:
            client.set_tag(run_id, NOTE_CONTENT, described.replace(UNFINISHED, ended_early("KILLED")))
        client.set_terminated(run_id, "KILLED")
