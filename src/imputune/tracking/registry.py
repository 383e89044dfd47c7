"""The model registry: bundles of fold models as versions, with where they came from."""

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

import imputune
from imputune.tracking import bundle_model, store
from imputune.tracking.bundle import BundleAbout, write_about
from imputune.tracking.runs import TrackedRun
from imputune.training.outputs import TrainedFold, write_weights

INPUT = Schema(
    [
        ColSpec("long", "RecordID"),
        ColSpec("string", "Time"),
        ColSpec("string", "Parameter"),
        ColSpec("double", "Value"),
    ]
)
RISKS = Schema([ColSpec("long", "RecordID"), ColSpec("double", "risk"), ColSpec("double", "risk_deviation")])
SERIES = Schema(
    [
        ColSpec("long", "RecordID"),
        ColSpec("long", "Hour"),
        ColSpec("string", "Parameter"),
        ColSpec("double", "Value"),
        ColSpec("boolean", "Observed"),
    ]
)
REGISTERED_TAG = "imputune.registered"
SERVING = ("filelock", "mlflow", "numpy", "pandas", "safetensors", "scikit-learn", "torch")


def register_bundle(
    run: TrackedRun, name: str, about: BundleAbout, folds: list[TrainedFold], tags: Mapping[str, str]
) -> str:
    """Log the fold models of a run as one model and register it; return the version.

    Raises UserError when the store fails.
    """
    signature = ModelSignature(INPUT, SERIES if about.head is None else RISKS)
    package = Path(imputune.__file__).parent
    with tempfile.TemporaryDirectory() as temporary, store.failures(run.tracking_uri):
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        write_about(about, folder)
        write_weights(folder, folds)
        logged = Model.log(
            None,
            flavor=mlflow.pyfunc,
            name="bundle",
            run_id=run.run_id,
            python_model=bundle_model.__file__,
            artifacts={"bundle": str(folder)},
            code_paths=[str(package)],
            signature=signature,
            pip_requirements=serving_requirements(),
        )
        registered = mlflow.register_model(logged.model_uri, name, tags=dict(tags))
        MlflowClient(run.tracking_uri).set_tag(run.run_id, REGISTERED_TAG, f"{name}/{registered.version}")
    return str(registered.version)


def serving_requirements() -> list[str]:
    """Return the packages that loading a bundle needs, at the versions it was trained with."""
    return [f"{package}=={version(package).partition('+')[0]}" for package in SERVING]
