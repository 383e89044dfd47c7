"""What the small committed files in results/ have in common, and reading and writing them.

There is a file for each variant, pretrained imputer and assessed imputer. They hold no record and no id of a stay, no
paths and no times of day. Tables can be assembled from them alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, JsonValue, ValidationError

from imputune.artifacts.stage_output import (
    AssessmentOutput,
    MadeFrom,
    Settings,
    TrainingOutput,
    division_of,
    number_of,
    setting_of,
)
from imputune.errors import UserError
from imputune.evaluation.stored import EARLIER_EVENTS, Stored
from imputune.files import replace_text
from imputune.protocol.division import Division
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.settings.names import ImputerName

FORMAT: Literal[1] = 1  # of these files; raised when a reader of older files would misread them


class Code(Stored):
    """What computed a result: the package's version, the commit, and the kind of device; None where unknown.

    changed: whether a tracked file differed from the commit.
    """

    version: str | None = None
    commit: str | None = None
    changed: bool | None = None
    device: str | None = None

    @classmethod
    def of(cls, tags: Mapping[str, str], *, version: str | None = None, device: str | None = None) -> Self:
        """Return what the tags of a run say; `device` is used where they name none."""
        dirty = tags.get("imputune.git_dirty")
        return cls(
            version=version,
            commit=tags.get("mlflow.source.git.commit"),
            changed=None if dirty is None else dirty == "true",
            device=tags.get("imputune.device", device),
        )


class ResultsFile(Stored):
    """What both kinds of files say: the data, what was trained with which settings, and the run.

    variables: their number. settings: the sections of params.yaml that the result depends on.
    """

    format: Literal[1] = FORMAT
    dataset: str
    cohort_hash: str
    folds_hash: str
    variables: int
    stays: int
    events: int = Field(validation_alias=EARLIER_EVENTS)
    outcome: str = DEFAULT_OUTCOME
    outcome_hash: str = ""
    seed: int
    imputer: ImputerName
    settings: Settings
    run_id: str
    code: Code

    @property
    def data(self) -> tuple[str, str, int]:
        """What must be equal for two results to be compared: cohort, folds, seed."""
        return self.cohort_hash, self.folds_hash, self.seed

    @property
    def division(self) -> Division:
        """The protocol by which the stays were divided."""
        return division_of(self.settings)

    @property
    def labels(self) -> tuple[str, str]:
        """Which labels were predicted: the outcome, and the hash of its labels; see `Origin`."""
        return self.outcome, self.outcome_hash

    def setting(self, name: str) -> JsonValue:
        """Return a setting by its dotted name; KeyError if the result does not depend on it."""
        return setting_of(self.settings, name)

    def number(self, name: str) -> int:
        """Return a whole number among the settings; see `setting`."""
        return number_of(self.settings, name)


File = TypeVar("File", bound=ResultsFile)


def write_results_file(path: Path, file: ResultsFile) -> None:
    """Write a file in one step, its folder made if need be; UserError when the system refuses."""
    replace_text(path, json.dumps(file.model_dump(mode="json"), indent=1) + "\n")


def read_results_file(path: Path, kind: type[File]) -> File:
    """Read a file; raises UserError, naming it, when it is broken or was written by another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("format")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{path} is broken") from None
    if version != FORMAT:
        raise UserError(f"{path} is of another version of imputune")
    try:
        return kind.model_validate(content)
    except ValidationError:
        raise UserError(f"{path} is broken, or of another version of imputune") from None


def find_results_file(path: Path, kind: type[File]) -> File | None:
    """Return a file as `read_results_file` does, None where that raises UserError."""
    try:
        return read_results_file(path, kind)
    except UserError:
        return None


def data_of(made_from: MadeFrom) -> tuple[str, str, int]:
    """Return what must be equal for two results to be compared: cohort, folds, seed."""
    return made_from.cohort_hash, made_from.folds_hash, made_from.seed


def about(output: TrainingOutput | AssessmentOutput, code: Code) -> dict[str, object]:
    """Return the fields of `ResultsFile` but its settings, from an output."""
    made_from = output.made_from
    names = ("dataset", "cohort_hash", "folds_hash", "stays", "events", "outcome", "outcome_hash", "seed", "imputer")
    fields: dict[str, object] = {name: getattr(made_from, name) for name in names}
    return fields | {"variables": len(made_from.variables), "run_id": output.run_id, "code": code}


def pretraining_settings(made_from: MadeFrom) -> Settings:
    """Return what decides what an imputer learned: further cohorts, and settings without the epochs of fine-tuning."""
    settings = dict(made_from.settings)
    if isinstance(budget := settings.get("budget"), dict):
        settings["budget"] = {name: epochs for name, epochs in budget.items() if name == "pretrain_epochs"}
    if made_from.also:
        settings["also"] = {cohort.name: cohort.cohort_hash for cohort in made_from.also}
    return settings
