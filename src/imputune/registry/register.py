"""Registering the fold models of a run as a version of a model in MLflow."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, Schema

import imputune
from imputune.artifacts.stage_output import TrainedFold
from imputune.registry import serving
from imputune.registry.bundle import BOOSTED, BundleAbout
from imputune.registry.bundle_file import MemberContent, copy_bundle, write_bundle
from imputune.registry.names import CHECKSUM_TAG, FOLD_SCORES
from imputune.tracking.runs import TrackedRun
from imputune.tracking.store_failures import failures

EXAMPLE = pd.DataFrame(  # invented, because no patient's record may enter a run
    {
        "RecordID": [1, 1, 1],
        "Time": ["00:10", "01:10", "30:05"],
        "Parameter": ["HR", "HR", "Temp"],
        "Value": [80.0, 85.0, 37.0],
    }
)
RISKS_SCHEMA = Schema(
    [
        ColSpec("long", "RecordID"),
        ColSpec("double", "risk"),
        ColSpec("double", "risk_deviation"),
        ColSpec("boolean", "high_risk"),
        ColSpec("long", "observed_cells"),
        ColSpec("long", "rows_ignored"),
    ]
)
SERIES_SCHEMA = Schema(
    [
        ColSpec("long", "RecordID"),
        ColSpec("long", "Hour"),
        ColSpec("string", "Parameter"),
        ColSpec("double", "Value"),
        ColSpec("boolean", "Observed"),
        ColSpec("long", "RowsIgnored"),
    ]
)
REGISTERED_TAG = "imputune.registered"
TRAINED_RUN = "trained_run"
TRAINED_RUN_TAG = f"imputune.{TRAINED_RUN}"  # on a version from imputune register: the run that trained its models
THRESHOLD_RULE = "threshold_rule"
REQUIRED = ("mlflow", "numpy", "pandas", "pydantic", "safetensors", "torch")
BOOSTED_REQUIRED = ("xgboost-cpu",)


def register_bundle(
    run: TrackedRun,
    name: str,
    about: BundleAbout,
    folds: Sequence[TrainedFold],
    lineage: Mapping[str, str],
    *,
    members: Sequence[MemberContent] = (),
) -> str:
    """Store the fold models of a run as one model, register it under a name, and return the version.

    The version's tags are `lineage` (what the models were trained on), the run's id, the commit of the code, the scores
    of every fold, and the checksum of bundle.json. members: of a blend, whose version contains them. Raises UserError
    when the store fails.
    """
    lineage = {FOLD_SCORES: fold_scores_text({fold.fold: fold.scores for fold in folds}), **lineage}
    return _register_once(run, name, about, lambda folder: write_bundle(folder, about, folds, members), lineage)


def register_copy(run: TrackedRun, name: str, about: BundleAbout, source: Path, lineage: Mapping[str, str]) -> str:
    """Register a bundle's folder as a new version with the same weights, described anew, and return the version.

    `lineage` has the scores of every fold too; see `register_bundle`, also for the errors.
    """
    return _register_once(run, name, about, lambda folder: copy_bundle(source, folder, about), lineage)


def fold_scores_text(scores: Mapping[int, Mapping[str, float]]) -> str:
    """Return the tag FOLD_SCORES of the scores of every fold."""
    return json.dumps({str(fold): {name: round(score, 6) for name, score in of.items()} for fold, of in scores.items()})


def _register_once(
    run: TrackedRun, name: str, about: BundleAbout, fill: Callable[[Path], str], lineage: Mapping[str, str]
) -> str:
    """Register a run's bundle after all that the run recorded; try again while a server is away."""

    def attempt() -> str:
        if name in run.logged_bundles and (done := version_of_run(run.tracking_uri, name, run.run_id)):
            with failures(run.tracking_uri):
                MlflowClient(run.tracking_uri).set_tag(run.run_id, REGISTERED_TAG, f"{name}/{done}")
            return done  # the server's answer to the first try was lost
        if name not in run.logged_bundles:
            run.logged_bundles[name] = _log_bundle(run, about, fill)
        return _create_version(run, name, *run.logged_bundles[name], lineage)

    run.sender.drain()
    return run.sender.insist(attempt)


def _log_bundle(run: TrackedRun, about: BundleAbout, fill: Callable[[Path], str]) -> tuple[ModelInfo, str]:
    """Store the bundle that `fill` writes into a folder as a model; return it and the checksum of its bundle.json."""
    package = Path(imputune.__file__).parent
    with tempfile.TemporaryDirectory() as temporary, failures(run.tracking_uri):
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        checksum = fill(folder)
        with _active(run.run_id):
            logged = mlflow.pyfunc.log_model(
                name="bundle",
                python_model=serving.__file__,
                artifacts={"bundle": str(folder)},
                code_paths=[str(package)],
                signature=signature_of(about),
                input_example=EXAMPLE,
                pip_requirements=serving_requirements(about),
            )
    return logged, checksum


def _create_version(run: TrackedRun, name: str, logged: ModelInfo, checksum: str, lineage: Mapping[str, str]) -> str:
    """Register a stored bundle as a version, and return its number."""
    client = MlflowClient(run.tracking_uri)
    with failures(run.tracking_uri):
        _ensure_model(client, name)
        tags = {f"imputune.{key}": text for key, text in lineage.items()}
        tags |= {"imputune.run_id": run.run_id, **run.source, CHECKSUM_TAG: checksum}
        registered = client.create_model_version(
            name, logged.model_uri, run.run_id, tags=tags, model_id=logged.model_id
        )
        client.set_tag(run.run_id, REGISTERED_TAG, f"{name}/{registered.version}")
    return str(registered.version)


def signature_of(about: BundleAbout) -> ModelSignature:
    """Return the columns of a bundle's answers.

    The signature has no columns of the records: mlflow would convert cells before the model sees them, so that a
    RecordID of 1.5 became 1, and true became 1.0. The example shows the columns, and `long_table` checks the cells.
    """
    return ModelSignature(outputs=SERIES_SCHEMA if about.head is None else RISKS_SCHEMA)


def version_of_run(tracking_uri: str, name: str, run_id: str) -> str:
    """Return the newest version of a model that a run trained, "" if there is none.

    It was registered by that run, or later by another one from the run's output. Raises UserError if the store fails.
    """
    client = MlflowClient(tracking_uri)
    with failures(tracking_uri):
        versions = [
            version
            for condition in (f"run_id = '{run_id}'", f"tags.`{TRAINED_RUN_TAG}` = '{run_id}'")
            for version in client.search_model_versions(f"name = '{name}' and {condition}")
        ]
    return str(max((int(version.version) for version in versions), default=""))


def serving_requirements(about: BundleAbout) -> list[str]:
    """Return the packages that loading a bundle, and its members, needs, in the versions that trained it."""
    boosted = BOOSTED in (about.head, *(member.head for member in about.members))
    packages = (*REQUIRED, *(BOOSTED_REQUIRED if boosted else ()))
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


@contextmanager
def _active(run_id: str) -> Iterator[None]:
    """Make a run mlflow's active run inside the block, and leave it running afterwards, where mlflow would end it."""
    mlflow.start_run(run_id=run_id)
    try:
        yield
    finally:
        mlflow.end_run(RunStatus.to_string(RunStatus.RUNNING))


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as refused:
        if refused.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
