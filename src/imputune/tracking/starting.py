"""How a run begins: the one that `mlflow run` made is used, or a new one is created."""

import time
from collections.abc import Callable, Mapping
from typing import Self
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils import name_utils

from imputune.errors import UserError
from imputune.tracking import store
from imputune.tracking.database import check_artifacts
from imputune.tracking.sqlite import sqlite_path
from imputune.tracking.store_failures import failures

PARENT_TAG = "mlflow.parentRunId"
MARK_TAG = "imputune.created_as"  # of runs on a server; finds a run whose creation got no answer


def adopt_run(client: MlflowClient, run_id: str, name: str) -> Run:
    """Return the run of `mlflow run`, running, and called `name` unless somebody has named it.

    Raises UserError when the store does not hold it, or is a database and its artifacts go through a server.
    """
    run = store.active_run(client.tracking_uri, run_id)
    if run is None:
        raise UserError(
            f"the tracking store has no run {run_id} (from MLFLOW_RUN_ID); "
            "unset MLFLOW_RUN_ID, or set MLFLOW_TRACKING_URI to the store that holds it"
        )
    check_artifacts(client.tracking_uri, run.info.artifact_uri)
    is_named = run.info.run_name and not is_random(run.info.run_name)
    with failures(client.tracking_uri):
        client.update_run(run_id, status="RUNNING", name=None if is_named else name)
    return run


class PlannedRun:
    """A run that `create` creates in the store; until then, its ids are not known.

    experiment_id, tags: called by `create`, because those of a nested run contain the id of another planned run.
    """

    def __init__(
        self,
        client: MlflowClient,
        name: str,
        *,
        experiment_id: Callable[[], str],
        tags: Callable[[], Mapping[str, str]],
    ) -> None:
        self._client, self._name, self._experiment_id, self._tags = client, name, experiment_id, tags
        self._begun_ms = time.time_ns() // 1_000_000
        self._mark: str | None = None
        self._run: Run | None = None

    @classmethod
    def existing(cls, client: MlflowClient, run: Run) -> Self:
        """Return what stands for a run of the store."""
        planned = cls(client, run.info.run_name or "", experiment_id=lambda: run.info.experiment_id, tags=dict)
        planned._run = run
        return planned

    @property
    def run_id(self) -> str:
        """The run's id; raises ValueError before `create`."""
        return str(self._created.info.run_id)

    @property
    def params(self) -> dict[str, str]:
        """The parameters that the run had when this process found it."""
        return dict(self._run.data.params) if self._run else {}

    @property
    def experiment_id(self) -> str:
        """The id of the run's experiment; raises ValueError before `create`."""
        return str(self._created.info.experiment_id)

    def __str__(self) -> str:
        return str(self._run.info.run_id) if self._run else repr(self._name)

    def create(self) -> None:
        """Create the run, once: a second try, after an answer that got lost, looks for the run first."""
        experiment_id = self._experiment_id()
        if self._mark is None:
            self._mark = uuid4().hex
        else:
            found = self._client.search_runs([experiment_id], f"tags.`{MARK_TAG}` = '{self._mark}'", max_results=1)
            if found:
                self._run = found[0]
                return
        mark = {MARK_TAG: self._mark} if sqlite_path(self._client.tracking_uri) is None else {}
        self._run = self._client.create_run(experiment_id, self._begun_ms, {**self._tags(), **mark}, self._name)

    @property
    def _created(self) -> Run:
        if self._run is None:
            raise ValueError(f"the run {self._name!r} is not in the store yet")
        return self._run


def new_run(client: MlflowClient, experiment: str, tags: Mapping[str, str], name: str, command: str) -> PlannedRun:
    """Plan a run in an experiment, which is created with the run if it is missing."""
    source = {"mlflow.source.name": f"imputune {command}", "mlflow.source.type": "LOCAL"}
    uri = client.tracking_uri
    return PlannedRun(
        client, name, experiment_id=lambda: store.experiment(uri, experiment), tags=lambda: {**tags, **source}
    )


def is_random(name: str) -> bool:
    """Say whether MLflow drew a run's name from its own words, as `loud-moth-512`, because nobody named the run."""
    predicate, _, rest = name.partition("-")
    noun, _, number = rest.partition("-")
    words = name_utils._GENERATOR_PREDICATES, name_utils._GENERATOR_NOUNS
    return predicate in words[0] and noun in words[1] and number.isdecimal()
