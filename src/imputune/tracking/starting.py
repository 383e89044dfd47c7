"""How a run begins: the one that `mlflow run` made is used, or a new one is created."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils import name_utils

from imputune.errors import UserError
from imputune.tracking import store


def adopt_run(client: MlflowClient, run_id: str, name: str) -> Run:
    """Return the run of `mlflow run`, running, and called `name` unless somebody has named it.

    Raises UserError when the store does not hold it.
    """
    run = store.active_run(client.tracking_uri, run_id)
    if run is None:
        raise UserError(
            f"the tracking store has no run {run_id} (from MLFLOW_RUN_ID); "
            "unset MLFLOW_RUN_ID, or set MLFLOW_TRACKING_URI to the store that holds it"
        )
    is_named = run.info.run_name and not is_random(run.info.run_name)
    with store.failures(client.tracking_uri):
        client.update_run(run_id, status="RUNNING", name=None if is_named else name)
    return run


def new_run(client: MlflowClient, experiment: str, tags: Mapping[str, str], name: str, command: str) -> Run:
    """Create a run in an experiment, which is created if it is missing."""
    source = {"mlflow.source.name": f"imputune {command}", "mlflow.source.type": "LOCAL"}
    experiment_id = store.experiment(client.tracking_uri, experiment)
    with store.failures(client.tracking_uri):
        return client.create_run(experiment_id, tags={**tags, **source}, run_name=name)


def is_random(name: str) -> bool:
    """Say whether MLflow drew a run's name from its own words, as `loud-moth-512`, because nobody named the run."""
    predicate, _, rest = name.partition("-")
    noun, _, number = rest.partition("-")
    words = name_utils._GENERATOR_PREDICATES, name_utils._GENERATOR_NOUNS
    return predicate in words[0] and noun in words[1] and number.isdecimal()
