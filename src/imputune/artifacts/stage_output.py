"""What the stages leave on disk and hand on, typed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, JsonValue, TypeAdapter, field_validator

from imputune.errors import UserError
from imputune.evaluation.assessment import AssessedFold
from imputune.evaluation.imputation import ImputationErrors
from imputune.evaluation.stored import EARLIER_EVENTS, Stored
from imputune.protocol.division import Division
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.protocol.rivals import Rival
from imputune.protocol.variants import Variant
from imputune.runtime.recorder import Trial
from imputune.settings.names import ImputerName

FORMAT: Literal[3] = 3  # of result.json; raised when a reader of older files would misread them
ALSO_TAG = "also_cohorts"
Stage = Literal["pretrain", "finetune", "overfit", "assess", "rivals"]
Settings = dict[str, JsonValue]
"""Sections of params.yaml by name, as plain values."""
LATER_SETTINGS: tuple[tuple[str, str, Mapping[str, JsonValue]], ...] = (
    ("pretrain", "imputation_weight", {"missingness_weight": 0.0, "variable_masking": 0.0}),
    ("finetune", "masking_rate", {"variable_masking": 0.0}),
)
"""Settings that outputs of earlier versions lack: section, a setting that stands beside them, and what these did."""


def example_bins(bins: int) -> slice:
    """Return which bins of an assessment's generated stay are masked: hours 18 to 29 of 48, in others alike."""
    return slice(round(bins * 18 / 48), round(bins * 30 / 48))


class Origin(Stored):
    """The data an output belongs to: cohort, folds, variables in their order, seed; events of the outcome.

    outcome_hash: of the outcome's labels, "" for the cohort's first outcome; see `data.cohort.outcome_hash`.
    """

    dataset: str
    cohort_hash: str
    folds_hash: str
    variables: tuple[str, ...]
    stays: int
    events: int = Field(validation_alias=EARLIER_EVENTS)
    seed: int
    outcome: str = DEFAULT_OUTCOME
    outcome_hash: str = ""

    def check(self, found: "Origin", folder: Path, remedy: str) -> None:
        """Raise UserError when the output in `folder` was trained on other variables, data or folds than these."""
        if found.variables != self.variables:
            differing = sorted(set(found.variables) ^ set(self.variables)) or ["their order"]
            raise UserError(
                f"the imputer in {folder} was trained on other variables ({len(found.variables)}, the cohort has "
                f"{len(self.variables)}; differing: {', '.join(differing[:5])}): {remedy}"
            )
        for what, theirs, ours in (
            ("data", found.cohort_hash, self.cohort_hash),
            ("folds", found.folds_hash, self.folds_hash),
        ):
            if theirs != ours:
                raise UserError(
                    f"the imputer in {folder} was trained on other {what} than {self.dataset} now has: {remedy}"
                )


class FurtherCohort(Stored):
    """A cohort whose stays, without their outcomes, trained an imputer beside the training stays of each fold."""

    name: str
    cohort_hash: str
    stays: int


FURTHER_COHORTS: TypeAdapter[tuple[FurtherCohort, ...]] = TypeAdapter(tuple[FurtherCohort, ...])


class MadeFrom(Origin):
    """All that decides what is in an output: equal descriptions, equal outputs.

    imputer: "" for a rival, which has none. imputer_run_id: the run that pretrained the imputer; "" for the pretraining
    itself, and for a rival. variant: of fine-tuning. rival: of stage rivals.
    settings: the sections of params.yaml that the output depends on. also: the further cohorts that the imputer was
    pretrained on; of a blend, those of all its members. members: of a blend, a digest of what each member was made
    from, by its label.
    """

    stage: Stage
    imputer: ImputerName | Literal[""]
    imputer_run_id: str = ""
    variant: Variant | None = None
    rival: Rival | None = None
    settings: Settings
    also: tuple[FurtherCohort, ...] = ()
    members: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def at(cls, origin: Origin, **fields: object) -> Self:
        """Return the description of an output on some data."""
        return cls.model_validate(origin.model_dump() | fields)

    @field_validator("settings")
    @classmethod
    def _with_later_settings(cls, settings: Settings) -> Settings:
        """Give the description of an earlier version's output the settings that came later, so that it stays valid."""
        filled = dict(settings)
        for name, beside, later in LATER_SETTINGS:
            section = filled.get(name)
            if isinstance(section, dict) and beside in section:
                filled[name] = {**later, **section}
        return filled

    @property
    def digest(self) -> str:
        """A text that differs where the descriptions of two outputs differ, and stays the same over versions."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        content["deaths"] = content.pop("events")  # the name that earlier versions hashed
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, wanted: "MadeFrom") -> list[str]:
        """Return the dotted names of what differs, settings without their prefix."""
        names = differing_names(self.model_dump(mode="json"), wanted.model_dump(mode="json"))
        return [name.removeprefix("settings.") for name in names]

    @property
    def also_stays(self) -> int:
        """The number of stays of all further cohorts."""
        return sum(cohort.stays for cohort in self.also)

    def also_tags(self) -> dict[str, str]:
        """Return the further cohorts as a tag, JSON; nothing if there are none."""
        return {ALSO_TAG: FURTHER_COHORTS.dump_json(self.also).decode()} if self.also else {}

    @property
    def division(self) -> Division:
        """The protocol by which the stays were divided; KeyError if the output does not depend on it."""
        return division_of(self.settings)

    def setting(self, name: str) -> JsonValue:
        """Return a setting by its dotted name; KeyError if the output does not depend on it."""
        return setting_of(self.settings, name)

    def number(self, name: str) -> int:
        """Return a whole number among the settings; see `setting`."""
        return number_of(self.settings, name)


class FoldRecord(Stored):
    """What result.json says of a fold: all but its weights, boosters and predictions; see `TrainedFold`.

    boosters_sha256: the checksum of each of its boosters, in their order. failure: why a rival has no scores, weights
    and predictions; "" otherwise.
    """

    fold: int
    scores: dict[str, float]
    best_epoch: int
    seconds: float
    history: list[dict[str, float]]
    imputation: list[ImputationErrors]
    learning_rate: float | None
    trials: list[Trial]
    boosters_sha256: tuple[str, ...] = ()
    failure: str = ""


class TrainingOutput(Stored):
    """The result.json of pretraining, fine-tuning and overfitting.

    num_parameters counts the head alone, trainable_parameters all that fine-tuning changes; both None for an imputer
    and for a non-neural head.
    """

    format: Literal[3] = FORMAT
    made_from: MadeFrom
    run_id: str
    num_parameters: int | None = None
    trainable_parameters: int | None = None
    folds: tuple[FoldRecord, ...]

    @property
    def variant(self) -> Variant:
        """The variant of fine-tuning; ValueError for an imputer."""
        if self.made_from.variant is None:
            raise ValueError(f"output of stage {self.made_from.stage} has no variant")
        return self.made_from.variant

    @property
    def histories(self) -> dict[int, list[dict[str, float]]]:
        """The curves by fold."""
        return {fold.fold: fold.history for fold in self.folds}


class AssessmentOutput(Stored):
    """The result.json of an assessment.

    missing_share_edges: borders of the groups of stays by their share of missing cells. example: the generated stay, T
    rows of D values in the variables' units, None where nothing was observed.
    """

    format: Literal[3] = FORMAT
    made_from: MadeFrom
    run_id: str
    missing_share_edges: tuple[float, ...]
    example: list[list[float | None]]
    folds: tuple[AssessedFold, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedFold:
    """What training one fold returns.

    weights: arrays under the prefixes `scaler.`, `imputer.` and, after fine-tuning, `head.`; under `blend.` alone for a
    blend; empty for svm. boosters: those of xgboost, in its open format. scores: final scores by name. history: one row
    of metrics per epoch. imputation: errors on held-out validation and test cells (pretraining). predictions: stay_id,
    split, risk of validation and test stays (fine-tuning). learning_rate and trials: result and course of a search.
    failure: why a rival has no scores.
    """

    fold: int
    weights: Mapping[str, np.ndarray]
    boosters: tuple[bytes, ...] = ()
    scores: dict[str, float]
    best_epoch: int
    seconds: float
    history: list[dict[str, float]]
    imputation: list[ImputationErrors] = field(default_factory=list)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    learning_rate: float | None = None
    trials: list[Trial] = field(default_factory=list)
    failure: str = ""

    @property
    def final_metrics(self) -> dict[str, float]:
        """What a recorder gets at the end of the fold: scores, best epoch and seconds."""
        return self.scores | {"best_epoch": float(self.best_epoch), "seconds": self.seconds}

    @property
    def boosters_sha256(self) -> tuple[str, ...]:
        """The checksum of each booster."""
        return tuple(hashlib.sha256(booster).hexdigest() for booster in self.boosters)

    @property
    def record(self) -> FoldRecord:
        """What result.json says of the fold."""
        return FoldRecord(**{name: getattr(self, name) for name in FoldRecord.model_fields})


def differing_names(found: Mapping[str, JsonValue], wanted: Mapping[str, JsonValue]) -> list[str]:
    """Return the dotted names whose values differ; only keys of `wanted` are compared."""
    names = []
    for key, value in wanted.items():
        theirs = found.get(key)
        if isinstance(value, dict):
            below = differing_names(theirs if isinstance(theirs, dict) else {}, value)
            names += [f"{key}.{name}" for name in below]
        elif theirs != value:
            names.append(key)
    return names


def division_of(settings: Settings) -> Division:
    """Return the protocol that the section folds tells of; KeyError without it."""
    folds = settings["folds"]
    return Division.of(folds if isinstance(folds, dict) else {})


def setting_of(settings: Settings, name: str) -> JsonValue:
    """Return a setting by its dotted name; KeyError if it is not among `settings`."""
    value: JsonValue = settings
    for part in name.split("."):
        if not isinstance(value, dict):
            raise KeyError(name)
        value = value[part]
    return value


def number_of(settings: Settings, name: str) -> int:
    """Return a whole number among `settings`; KeyError without it, TypeError if it is none."""
    value = setting_of(settings, name)
    if not isinstance(value, int):
        raise TypeError(f"setting {name} must be a whole number, got {value!r}")
    return value
