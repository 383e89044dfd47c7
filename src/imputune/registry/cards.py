"""The card of a registered version in MLflow: its description, and model_card.md and .json among its artifacts."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from imputune.registry.version import Version
from imputune.registry.versions import Registry
from imputune.tracking.store_failures import failures

DESCRIPTION_LIMIT = 5000
"""Characters of a description: so many has the column in MLflow's tables, and PostgreSQL refuses a longer text."""
CARD, NUMBERS = "model_card.md", "model_card.json"


def write_card(registry: Registry, version: Version, *, card: str, description: str, numbers: str) -> None:
    """Store a version's card: as its description, and as files of its run and of its model's folder.

    description: the card in at most DESCRIPTION_LIMIT characters. numbers: the content of model_card.json. Raises
    ValueError for a longer description, UserError when the store fails.
    """
    _log(registry, version, {CARD: card, NUMBERS: numbers})
    _describe(registry, version, description)


def change_card(
    registry: Registry, version: Version, change: Callable[[str], str], limited: Callable[[str], str]
) -> None:
    """Change the card of a version, and its description alike.

    The description may have been written by a user, and is changed as it is; `limited` shortens it. A version without
    model_card.md gets none. Raises ValueError for a description that is still too long, UserError when the store fails.
    """
    with failures(registry.uri):
        present = registry.client.get_model_version(registry.name, str(version.number)).description or ""
    if card := read_file(registry, version, CARD):
        _log(registry, version, {CARD: change(card)})
    _describe(registry, version, limited(change(present)))


def read_file(registry: Registry, version: Version, name: str) -> str:
    """Return a card's file, "" for a version that has none."""
    with failures(registry.uri), tempfile.TemporaryDirectory() as folder:
        for place in _places(registry, version):
            if name in {each.path for each in place.list_artifacts()}:
                return Path(place.download_artifacts(name, folder)).read_text(encoding="utf-8")
    return ""


def describe_model(registry: Registry, text: str) -> None:
    """Give the registered model a description, unless it has one; UserError when the store fails."""
    with failures(registry.uri):
        if not registry.client.get_registered_model(registry.name).description:
            registry.client.update_registered_model(registry.name, text)


def _describe(registry: Registry, version: Version, description: str) -> None:
    if len(description) > DESCRIPTION_LIMIT:
        raise ValueError(f"a description must have at most {DESCRIPTION_LIMIT} characters, got {len(description)}")
    with failures(registry.uri):
        registry.client.update_model_version(registry.name, str(version.number), description)


def _log(registry: Registry, version: Version, files: dict[str, str]) -> None:
    """Log files to a version's model and run."""
    with failures(registry.uri), tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            for place in _places(registry, version):
                place.log_artifact(str(path))


def _places(registry: Registry, version: Version) -> list[ArtifactRepository]:
    """Return where the artifacts of a version's model and of its run are; a run that was removed is left out.

    Not by MlflowClient: it keeps the place of a run that it has once seen, also if that run is in another store.
    """
    uris = [registry.client.get_model_version_download_uri(registry.name, str(version.number))]
    try:
        uris.append(registry.client.get_run(version.run_id).info.artifact_uri)
    except MlflowException as refused:
        if refused.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return [get_artifact_repository(uri, tracking_uri=registry.uri) for uri in uris]
