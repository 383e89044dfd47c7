"""Ends the runs that a killed command left running, and deletes the versions that it registered."""

from pathlib import Path

from mlflow import MlflowClient

from imputune.tracking import store
from imputune.tracking.runs import PARENT_TAG


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
    with store.failures(uri):
        for version in client.search_model_versions(f"run_id = '{run_id}'"):
            client.delete_model_version(version.name, version.version)
        _end(client, run.info.experiment_id, run_id)
    return False


def _end(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    for child in client.search_runs([experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'"):
        _end(client, experiment_id, child.info.run_id)
    if client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, "KILLED")
