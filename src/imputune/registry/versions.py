"""Reading the model registry: versions by alias or number, with where they came from; loading one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from imputune.errors import UserError, near_miss
from imputune.registry.bundle import Bundle, read_bundle
from imputune.registry.register import CHECKSUM_TAG, FOLD_SCORES_TAG
from imputune.tracking import store

PAGE = 200
SHOWN = 9  # versions named one by one
BUNDLE_FOLDER = Path("artifacts") / "bundle"  # where mlflow puts a model's own artifacts
FoldScores = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Version:
    """A registered version. `fold_scores` is empty for one that an earlier imputune registered."""

    name: str
    number: int
    run_id: str
    tags: Mapping[str, str]

    @cached_property
    def fold_scores(self) -> FoldScores:
        """Each fold's final scores by name."""
        told = json.loads(self.tags.get(FOLD_SCORES_TAG, "{}"))
        return {int(fold): scores for fold, scores in told.items()}

    def mean(self, score: str) -> float:
        """Return the mean of a score over folds."""
        return fmean(scores[score] for scores in self.fold_scores.values())

    def tag(self, name: str) -> str:
        """Return a tag of imputune's by its short name, "" where it is missing."""
        return self.tags.get(f"imputune.{name}", "")

    @property
    def cell(self) -> str:
        """The name of the cell it was fine-tuned as."""
        return "-".join(self.tag(part) for part in ("head", "mode", "input", "schedule"))


class Registry:
    """One registered model in the project's store. Every method raises UserError when the store fails."""

    def __init__(self, root: Path, name: str) -> None:
        self.uri = store.open_store(root)
        self.name = name
        self.client = MlflowClient(self.uri)

    def versions(self) -> list[Version]:
        """Return all versions, newest first; UserError when nothing was registered under the name."""
        found: list[ModelVersion] = []
        token = None
        with store.failures(self.uri):
            while token != "":
                page = self.client.search_model_versions(f"name = '{self.name}'", PAGE, page_token=token)
                found += page
                token = page.token or ""
            known = [model.name for model in self.client.search_registered_models()] if not found else []
        if not found:
            there = f"; the registry has {', '.join(known)}" if known else ""
            raise UserError(f"no model {self.name} is registered{there}: fine-tune one first (`imputune finetune`)")
        return sorted(map(_version, found), key=lambda version: -version.number)

    def aliases(self) -> dict[str, int]:
        """Return the number that each alias stands for."""
        with store.failures(self.uri):
            try:
                model = self.client.get_registered_model(self.name)
            except MlflowException as refused:
                if refused.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
        return {alias: int(number) for alias, number in model.aliases.items()}

    def find(self, wanted: str) -> Version:
        """Return the version of an alias or a number; UserError naming those that exist."""
        versions, aliases = {version.number: version for version in self.versions()}, self.aliases()
        number = int(wanted) if wanted.isdecimal() else aliases.get(wanted)
        if number in versions:
            return versions[number]
        named = ", ".join(f"{alias} (version {number})" for alias, number in aliases.items()) or "no alias"
        numbers = ", ".join(map(str, sorted(versions)))
        if len(versions) > SHOWN:
            numbers = f"{len(versions)} from {min(versions)} to {max(versions)}"
        hint = "" if wanted.isdecimal() else near_miss(wanted, aliases)
        remedy = "" if aliases else "; `imputune promote` sets champion"
        raise UserError(
            f"{self.name} has no version or alias {wanted!r}{hint}: it has {named}, and versions {numbers}{remedy}"
        )

    def load(self, version: Version) -> Bundle:
        """Load a version's bundle; UserError when its files are missing, altered, or of another imputune."""
        with store.failures(self.uri):
            folder = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{self.name}/{version.number}", tracking_uri=self.uri
            )
        try:
            return read_bundle(Path(folder) / BUNDLE_FOLDER, version.tags.get(CHECKSUM_TAG, ""))
        except UserError as error:
            raise UserError(f"{self.name} version {version.number}: {error}") from None

    def set_tags(self, version: Version, tags: Mapping[str, str]) -> None:
        """Write tags of imputune's on a version."""
        with store.failures(self.uri):
            for name, text in tags.items():
                self.client.set_model_version_tag(self.name, str(version.number), f"imputune.{name}", text)

    def set_alias(self, alias: str, number: int) -> None:
        """Let an alias stand for a version."""
        with store.failures(self.uri):
            self.client.set_registered_model_alias(self.name, alias, str(number))


def _version(found: ModelVersion) -> Version:
    return Version(found.name, int(found.version), found.run_id or "", dict(found.tags))
