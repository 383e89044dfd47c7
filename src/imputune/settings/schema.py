"""params.yaml as frozen, typed models; each field says what it means, its unit and its range."""

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from imputune.errors import UserError, near_miss
from imputune.settings.fold_sections import Folds
from imputune.settings.head_sections import Blend, Finetune, Grid, Heads, NonNeural, RecordHeads, Schedules
from imputune.settings.imputer_sections import Assess, Csai, Masking, Pretrain, Pypots, Scaling
from imputune.settings.names import CatalogueName, DeviceName, EngineName, ImputerName, check_own_name
from imputune.settings.rival_sections import Rivals
from imputune.settings.section import Count, Fraction, ParamsSection, Seed, Weight, check_once

FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Budget(ParamsSection):
    """How long one dataset trains."""

    pretrain_epochs: Count = Field(description="Epochs of pretraining at most, 1 or more.")
    frozen_epochs: Count = Field(description="Epochs of a head on a frozen imputer at most, 1 or more.")
    unfrozen_epochs: Count = Field(description="Epochs of head and imputer together at most, 1 or more.")


class Synthetic(ParamsSection):
    """The generated cohort."""

    stays: Count = Field(description="Number of stays, 1 or more.")
    seed: Seed = Field(description="Seed of the generator, 0 to 2**32 - 1.")


class Mimic3(ParamsSection):
    """Which ICU stays `imputune extract mimic3` takes; see `imputune.data.raw.mimic3.stays`."""

    minimum_age: Annotated[int, Field(ge=0, le=89)] = Field(description="Age at ICU admission in full years, 0 to 89.")
    minimum_hours: Count = Field(description="Hours in the ICU that a stay must last, 1 or more.")
    transfers: Literal["keep", "leave_out"] = Field(
        description="Stays whose first and last care unit or ward differ: keep or leave_out."
    )
    memory_gib: Annotated[float, Field(ge=0.25)] = Field(
        description="Most memory of DuckDB in GiB, 0.25 or more; the cohort's values need more."
    )


class Threshold(ParamsSection):
    """From which risk on a stay counts as high risk, found on validation stays; see `imputune.evaluation.metrics`."""

    rule: Literal["youden", "sensitivity"] = Field(
        description="youden: highest sensitivity + specificity; sensitivity: highest threshold that reaches one."
    )
    sensitivity: Fraction = Field(description="Sensitivity that the rule sensitivity reaches, between 0 and 1.")

    @property
    def label(self) -> str:
        """The rule in tags and bundles: youden, or sensitivity and its number."""
        return "youden" if self.rule == "youden" else f"sensitivity {self.sensitivity:g}"


class Promote(ParamsSection):
    """What a candidate must reach to become champion; see `imputune.evaluation.gates`."""

    minimum_auc: Fraction = Field(description="Lowest mean test AUC, between 0 and 1.")
    auc_margin: Weight = Field(
        description="The candidate's mean test AUC may be at most this much below the champion's, 0 or more."
    )
    calibration_margin: Weight = Field(
        description="Its mean calibration error may be at most this much above the champion's, 0 or more."
    )
    resamples: Count = Field(description="Bootstrap resamples of the test stays, 1 or more.")


class Evaluate(ParamsSection):
    """Measuring a model on another cohort."""

    resamples: Count = Field(description="Bootstrap resamples of the stays, 1 or more.")


class Params(ParamsSection):
    """All of params.yaml."""

    dataset: str = Field(description="The cohort in data/<dataset> that commands read.")
    outcome: str = Field(
        default="", description="The outcome that heads predict; in_hospital_death, or the cohort's first, by default."
    )
    seed: Seed = Field(description="Seed of all random draws, 0 to 2**32 - 1.")
    workers: Count = Field(description="Folds trained side by side, 1 or more.")
    engine: EngineName = Field("local", description="Where folds are trained: local (this machine) or ray.")
    device: DeviceName = Field(description="Device that PyTorch uses: cpu, cuda, or auto (cuda if there is a GPU).")
    budget: dict[str, Budget] = Field(description="Epochs by dataset.")
    synthetic: Synthetic = Field(description="The generated cohort.")
    mimic3: Mimic3 = Field(description="The extraction of MIMIC-III.")
    folds: Folds = Field(description="How the stays are divided into training, validation and test stays.")
    scaling: Scaling = Field(description="Standardisation.")
    masking: Masking = Field(description="Masking in pretraining.")
    csai: Csai = Field(description="Sizes of CSAI.")
    pypots: Pypots = Field(description="Sizes of PyPOTS's networks.")
    pretrain: Pretrain = Field(description="Pretraining of CSAI; batch_size also of PyPOTS's networks.")
    heads: Heads = Field(description="Sizes of the neural heads.")
    finetune: Finetune = Field(description="Training of a neural head.")
    record_heads: RecordHeads = Field(description="Heads that also read static facts or summary statistics.")
    schedules: Schedules = Field(description="Learning-rate schedules.")
    non_neural: NonNeural = Field(description="Non-neural heads.")
    blend: Blend = Field(description="The blend of several variants.")
    rivals: Rivals = Field(description="Complex models that are trained end to end on the same folds.")
    imputers: tuple[CatalogueName, ...] = Field(
        strict=False, min_length=1, description="Imputers that are pretrained, assessed and compared."
    )
    also: dict[str, Annotated[tuple[str, ...], Field(strict=False)]] = Field(
        description="Further imputers by their own name: CSAI that also trains on these cohorts, folders in data/.",
    )
    grid: Grid = Field(description="The variants that are fine-tuned.")
    assess: Assess = Field(description="Scoring of imputers alone.")
    threshold: Threshold = Field(description="The threshold of high risk.")
    promote: Promote = Field(description="Gates of a promotion.")
    evaluate: Evaluate = Field(description="Evaluation on another cohort.")

    @field_validator("imputers")
    @classmethod
    def _each_once(cls, names: tuple[CatalogueName, ...]) -> tuple[CatalogueName, ...]:
        check_once(names)
        return names

    @field_validator("also")
    @classmethod
    def _own_names_and_folders(cls, also: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, folders in also.items():
            check_own_name(name)
            check_once(folders)
            if not folders:
                raise ValueError(f"{name} has no cohort: name folders in data/, or remove it")
            if outside := [folder for folder in folders if not FOLDER_NAME.fullmatch(folder)]:
                raise ValueError(f"{name} must name folders in data/, such as set-b: got {outside[0]!r}")
        return also

    @model_validator(mode="after")
    def _grid_has_its_imputers(self) -> Self:
        for block_name, block in self.grid.blocks.items():
            for name in block.imputer:
                if name not in self.all_imputers:
                    where = "also" if name not in get_args(CatalogueName) else "imputers"
                    raise ValueError(f"grid.{block_name} has imputer {name}, which is not under {where}: add it there")
        return self

    @property
    def all_imputers(self) -> tuple[ImputerName, ...]:
        """The imputers that `dvc repro` and --imputer all mean: those under imputers, and those under also."""
        return (*self.imputers, *self.also)

    def budget_of(self, dataset: str) -> Budget:
        """Return the dataset's epochs; raises UserError naming the datasets that have some."""
        if dataset not in self.budget:
            known = ", ".join(self.budget)
            raise UserError(
                f"params.yaml has no budget for dataset {dataset!r}{near_miss(dataset, self.budget)}: "
                f"add it under budget (there are: {known})"
            )
        return self.budget[dataset]
