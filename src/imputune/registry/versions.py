"""The registered versions of a model: finding them by alias or number, loading them, and setting tags and aliases."""

from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from imputune.errors import UserError, near_miss
from imputune.registry.bundle import Bundle
from imputune.registry.bundle_file import load_version
from imputune.registry.names import BUNDLE_FOLDER
from imputune.registry.version import Version
from imputune.runtime.console import counted
from imputune.tracking import store
from imputune.tracking.store_failures import failures

PAGE_VERSIONS = 200
SHOWN = 9  # a message names so many versions one by one


class Registry:
    """One registered model in the project's store. Every method raises UserError when the store fails."""

    def __init__(self, root: Path, name: str) -> None:
        self.uri = store.open_existing_store(root)
        self.name = name
        self.client = MlflowClient(self.uri)

    def versions(self) -> list[Version]:
        """Return all versions, newest first; UserError when nothing was registered under the name."""
        with failures(self.uri):
            registered = list(
                store.all_pages(
                    lambda token: self.client.search_model_versions(
                        f"name = '{self.name}'", PAGE_VERSIONS, page_token=token
                    )
                )
            )
            known = [] if registered else [model.name for model in self.client.search_registered_models()]
        if not registered:
            others = f"; the registry has {', '.join(known)}" if known else ""
            raise UserError(
                f"no model {self.name} is registered in {store.shown_store(self.uri)}{others}: "
                "run `imputune finetune`, or `imputune register` for models in artifacts/"
            )
        return sorted(map(_version, registered), key=lambda version: -version.number)

    def aliases(self) -> dict[str, int]:
        """Return the version number of each alias."""
        with failures(self.uri):
            try:
                model = self.client.get_registered_model(self.name)
            except MlflowException as refused:
                if refused.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
        return {alias: int(number) for alias, number in model.aliases.items()}

    def find(self, wanted: str) -> Version:
        """Return a version by its alias or number; raises UserError that names the existing ones."""
        versions, aliases = {version.number: version for version in self.versions()}, self.aliases()
        number = int(wanted) if wanted.isdecimal() else aliases.get(wanted)
        if number in versions:
            return versions[number]
        named = ", ".join(f"{alias} (version {number})" for alias, number in aliases.items()) or "no alias"
        numbers = f"version{'s' * (len(versions) > 1)} {', '.join(map(str, sorted(versions)))}"
        if len(versions) > SHOWN:
            numbers = f"{counted(len(versions), 'version')}, the first {min(versions)} and the last {max(versions)}"
        hint = "" if wanted.isdecimal() else near_miss(wanted, aliases)
        remedy = "" if aliases else "; `imputune promote` sets champion"
        raise UserError(f"{self.name} has no version or alias {wanted!r}{hint}: it has {named}, and {numbers}{remedy}")

    def folder_of(self, version: Version) -> Path:
        """Return a folder with a version's bundle: the store's own, or a copy from a server."""
        with failures(self.uri):
            # Of the whole model, mlflow would write a file into the store's own folder.
            return Path(
                mlflow.artifacts.download_artifacts(
                    artifact_uri=f"models:/{self.name}/{version.number}/{BUNDLE_FOLDER}", tracking_uri=self.uri
                )
            )

    def load(self, version: Version) -> Bundle:
        """Load a version's bundle; see `load_version` for the errors."""
        return load_version(version, self.folder_of(version))

    def set_tags(self, version: Version, tags: Mapping[str, str]) -> None:
        """Set tags of a version by their short names; see `Version.tag`."""
        with failures(self.uri):
            for name, text in tags.items():
                self.client.set_model_version_tag(self.name, str(version.number), f"imputune.{name}", text)

    def set_alias(self, alias: str, number: int) -> None:
        """Point an alias to a version."""
        with failures(self.uri):
            self.client.set_registered_model_alias(self.name, alias, str(number))


def _version(registered: ModelVersion) -> Version:
    return Version(
        name=registered.name,
        number=int(registered.version),
        run_id=registered.run_id or "",
        tags=dict(registered.tags),
        description=registered.description or "",
    )
