"""The registered versions of a model: finding them by alias or number, loading them, and setting tags and aliases."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import TypeAdapter

from imputune.errors import UserError, near_miss
from imputune.protocol.imputers import is_own
from imputune.protocol.variants import FIELDS
from imputune.registry.bundle import Bundle
from imputune.registry.bundle_file import read_bundle
from imputune.registry.register import CHECKSUM_TAG, FOLD_SCORES_TAG
from imputune.runtime.console import counted
from imputune.tracking import store
from imputune.tracking.store_failures import failures

PAGE_VERSIONS = 200
SHOWN = 9  # a message names so many versions one by one
BUNDLE_FOLDER = "artifacts/bundle"  # where mlflow puts a model's own artifacts
RECALIBRATED_FROM = "recalibrated_from"
RECALIBRATED_ON = "recalibrated_on"
RECALIBRATED_COHORTS = "recalibrated_cohorts"
EVALUATED = "evaluated_"  # begins the tag of a cohort on which a version was evaluated
UNCHANGED_SCORES = ("validation_auc", "validation_auprc", "test_auc", "test_auprc")
"""The fold scores that recalibration leaves as they are, because it keeps the order of the stays."""
ScoresByFold = dict[int, dict[str, float]]
_SCORES_BY_FOLD = TypeAdapter(ScoresByFold)


@dataclass(frozen=True, eq=False, kw_only=True)
class Version:
    """A registered version."""

    name: str
    number: int
    run_id: str
    tags: Mapping[str, str]
    description: str = ""

    @cached_property
    def fold_scores(self) -> ScoresByFold:
        """Each fold's final scores by name; empty if an early version of imputune registered the version."""
        return _SCORES_BY_FOLD.validate_json(self.tags.get(FOLD_SCORES_TAG, "{}"))

    def mean(self, score: str) -> float:
        """Return the mean of a score over folds."""
        return fmean(scores[score] for scores in self.fold_scores.values())

    def tag(self, name: str) -> str:
        """Return one of imputune's tags by its short name, "" if it is missing."""
        return self.tags.get(f"imputune.{name}", "")

    @property
    def is_recalibrated(self) -> bool:
        """Whether `imputune recalibrate` made it from another version."""
        return bool(self.tag(RECALIBRATED_FROM))

    @property
    def recalibrated_cohorts(self) -> list[str]:
        """The hashes of the cohorts that it was recalibrated on, one after the other."""
        return [digest for digest in self.tag(RECALIBRATED_COHORTS).split(",") if digest]

    @property
    def variant(self) -> str:
        """The name of the variant that was fine-tuned, mlp2-frozen-hidden-plateau; before it an imputer's own name."""
        name, imputer = "-".join(self.tag(field) for field in FIELDS), self.tag("imputer")
        return f"{imputer}/{name}" if imputer and is_own(imputer) else name


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
        """Load a version's bundle; UserError when its files are missing, were altered, or have an unknown format."""
        folder = self.folder_of(version)
        try:
            return read_bundle(folder, version.tags.get(CHECKSUM_TAG, ""))
        except UserError as error:
            raise UserError(f"{self.name} version {version.number}: {error}") from None

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
