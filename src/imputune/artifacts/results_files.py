"""The small files in results/ that are committed: the scores of a variant by fold, the errors of an imputer by fold.

They hold no record and no id of a stay, no paths and no times of day. Tables can be assembled from them alone.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import JsonValue, ValidationError

from imputune.artifacts.stage_output import FoldRecord, MadeFrom, Settings, TrainingOutput
from imputune.errors import UserError
from imputune.evaluation.imputation import CellErrors
from imputune.evaluation.metrics import ReliabilityPoint
from imputune.evaluation.rows import ImputerRow, imputer_rows
from imputune.evaluation.stored import Stored
from imputune.files import replace_text
from imputune.protocol.variants import Variant
from imputune.settings.names import ImputerName, RandomPattern

FORMAT: Literal[1] = 1  # of these files; raised when a reader of older files would misread them
FEWEST_STAYS = 5  # a calibration curve with a smaller group of stays is left out: its points would tell of single stays


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
    deaths: int
    seed: int
    imputer: ImputerName
    settings: Settings
    run_id: str
    code: Code

    @property
    def data(self) -> tuple[str, str, int]:
        """What must be equal for two results to be compared: cohort, folds, seed."""
        return self.cohort_hash, self.folds_hash, self.seed

    def setting(self, name: str) -> JsonValue:
        """Return a setting by its dotted name; KeyError if the result does not depend on it."""
        value: JsonValue = self.settings
        for part in name.split("."):
            if not isinstance(value, dict):
                raise KeyError(name)
            value = value[part]
        return value

    def number(self, name: str) -> int:
        """Return a whole number among the settings; see `setting`."""
        value = self.setting(name)
        if not isinstance(value, int):
            raise TypeError(f"setting {name} must be a whole number, got {value!r}")
        return value


class FoldErrors(CellErrors):
    """An imputer's errors over all held-out cells of a split of one fold."""

    imputer: ImputerName
    pattern: RandomPattern
    split: Literal["validation", "test"]


class ImputerFold(Stored):
    """The pretraining of one fold: the epoch that was kept, counted from 0, the number of epochs, and the errors."""

    fold: int
    best_epoch: int
    epochs: int
    seconds: float
    errors: tuple[FoldErrors, ...]


class ImputerFile(ResultsFile):
    """A pretrained imputer: its errors by fold, and over the folds by variable (rows)."""

    folds: tuple[ImputerFold, ...]
    rows: tuple[ImputerRow, ...]

    @classmethod
    def of(cls, output: TrainingOutput, code: Code) -> Self:
        """Return the file of an imputer's output."""
        fields = {
            "settings": pretraining_settings(output.made_from),
            "folds": tuple(map(_imputer_fold, output.folds)),
            "rows": tuple(imputer_rows([fold.imputation for fold in output.folds])),
        }
        return cls.model_validate(_about(output, code) | fields)

    def tells_of(self, output: TrainingOutput) -> bool:
        """Say whether an imputer's output was made from the same data and settings."""
        return self.data == _data(output.made_from) and self.settings == pretraining_settings(output.made_from)


class VariantFold(Stored):
    """One fold of a variant: all scores by name, the epoch that was kept, counted from 0, and its search.

    trials: of the search for the learning rate, 0 if this fold did not search; pruned_trials: those of them that were
    stopped early.
    """

    fold: int
    scores: dict[str, float]
    best_epoch: int
    epochs: int
    seconds: float
    learning_rate: float | None
    trials: int
    pruned_trials: int


class VariantFile(ResultsFile):
    """A fine-tuned variant: its scores by fold and its calibration curve over all test stays.

    imputer_run_id: the run that pretrained the imputer. imputer_settings: the settings it was pretrained with. Imputers
    of equal data and settings count as the same, wherever they were pretrained. calibration: empty where a group would
    have fewer than FEWEST_STAYS stays. For the numbers of parameters see `TrainingOutput`.
    """

    variant: Variant
    imputer_run_id: str
    imputer_settings: Settings
    num_parameters: int | None
    trainable_parameters: int | None
    folds: tuple[VariantFold, ...]
    calibration: tuple[ReliabilityPoint, ...]

    @classmethod
    def of(
        cls, output: TrainingOutput, imputer: TrainingOutput, calibration: Iterable[ReliabilityPoint], code: Code
    ) -> Self:
        """Return the file of a variant's output; `imputer` is the output of the imputer that it was made on."""
        points = tuple(calibration)
        fields = {
            "variant": output.variant,
            "settings": output.made_from.settings,
            "imputer_run_id": output.made_from.imputer_run_id,
            "imputer_settings": pretraining_settings(imputer.made_from),
            "num_parameters": output.num_parameters,
            "trainable_parameters": output.trainable_parameters,
            "folds": tuple(map(_variant_fold, output.folds)),
            "calibration": points if all(point.stays >= FEWEST_STAYS for point in points) else (),
        }
        return cls.model_validate(_about(output, code) | fields)

    def tells_of(self, output: TrainingOutput, imputer: TrainingOutput) -> bool:
        """Say whether a variant's output was made from the same data, settings and settings of the imputer."""
        same_data = self.data == _data(output.made_from)
        same_imputer = self.imputer_settings == pretraining_settings(imputer.made_from)
        return same_data and same_imputer and self.settings == output.made_from.settings

    def is_on(self, imputer: ImputerFile) -> bool:
        """Say whether the variant was made from this data and seed, on an imputer pretrained just as this one was."""
        same_imputer = self.imputer == imputer.imputer and self.imputer_settings == imputer.settings
        return same_imputer and self.data == imputer.data and len(self.folds) == len(imputer.folds)


def pretraining_settings(made_from: MadeFrom) -> Settings:
    """Return what decides what an imputer learned: further cohorts, and settings without the epochs of fine-tuning."""
    settings = dict(made_from.settings)
    if isinstance(budget := settings.get("budget"), dict):
        settings["budget"] = {name: epochs for name, epochs in budget.items() if name == "pretrain_epochs"}
    if made_from.also:
        settings["also"] = {cohort.name: cohort.cohort_hash for cohort in made_from.also}
    return settings


File = TypeVar("File", ImputerFile, VariantFile)


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


def _data(made_from: MadeFrom) -> tuple[str, str, int]:
    return made_from.cohort_hash, made_from.folds_hash, made_from.seed


def _about(output: TrainingOutput, code: Code) -> dict[str, object]:
    made_from = output.made_from
    names = ("dataset", "cohort_hash", "folds_hash", "stays", "deaths", "seed", "imputer")
    fields: dict[str, object] = {name: getattr(made_from, name) for name in names}
    return fields | {"variables": len(made_from.variables), "run_id": output.run_id, "code": code}


def _imputer_fold(fold: FoldRecord) -> ImputerFold:
    errors = [
        FoldErrors(imputer=each.imputer, pattern=each.pattern, split=each.split, **each.overall.model_dump())
        for each in fold.imputation
    ]
    return ImputerFold(
        fold=fold.fold,
        best_epoch=fold.best_epoch,
        epochs=len(fold.history),
        seconds=fold.seconds,
        errors=tuple(errors),
    )


def _variant_fold(fold: FoldRecord) -> VariantFold:
    return VariantFold(
        fold=fold.fold,
        scores=fold.scores,
        best_epoch=fold.best_epoch,
        epochs=len(fold.history),
        seconds=fold.seconds,
        learning_rate=fold.learning_rate,
        trials=len(fold.trials),
        pruned_trials=sum(trial.state == "pruned" for trial in fold.trials),
    )
