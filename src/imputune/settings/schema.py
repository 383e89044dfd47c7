"""params.yaml as frozen, typed models; what a key means stands beside it in params.yaml."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from imputune.errors import UserError, near_miss
from imputune.settings.names import (
    DeviceName,
    Head,
    Hiding,
    MlpHead,
    MlpInput,
    Mode,
    NeuralSchedule,
    OtherImputer,
    RecurrentHead,
    RecurrentInput,
    SearchScope,
    ShallowHead,
    ShallowInput,
)

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Budget(_Section):
    """Epochs at most, for one dataset."""

    pretrain_epochs: Positive
    frozen_epochs: Positive
    unfrozen_epochs: Positive


class Synthetic(_Section):
    """The generated cohort: how many stays, from which seed."""

    stays: Positive
    seed: Seed


class Mimic3(_Section):
    """Which ICU stays `imputune extract mimic3` takes; see `imputune.data.raw.mimic3.stays`."""

    minimum_age: Annotated[int, Field(ge=0, le=89)]
    minimum_hours: Annotated[int, Field(ge=48)]
    transfers: Literal["keep", "leave_out"]
    memory_gib: Annotated[float, Field(ge=0.25)]


class Folds(_Section):
    """Cross-validation."""

    count: Annotated[int, Field(ge=3)]


class Masking(_Section):
    """Hiding observed cells; see `imputune.data.masking.hiding_rates`."""

    hiding: Literal["non_uniform", "uniform"]
    share: Share
    factor: Rate


class Assess(_Section):
    """Hiding cells of test stays to score imputers on; see `imputune.data.masking_patterns`."""

    hiding: tuple[Hiding, ...] = Field(strict=False, min_length=1)
    shares: tuple[Share, ...] = Field(strict=False, min_length=1)
    block_hours: Positive
    block_variables: Positive

    @field_validator("hiding", "shares")
    @classmethod
    def _once(cls, words: tuple[Any, ...]) -> tuple[Any, ...]:
        return _each_once(words)


class Matrix(_Section):
    """The imputers that are compared with CSAI, and the heads that are fine-tuned on each."""

    imputer: tuple[OtherImputer, ...] = Field(strict=False, min_length=1)
    head: tuple[Head, ...] = Field(strict=False, min_length=1)

    @field_validator("imputer", "head")
    @classmethod
    def _once(cls, words: tuple[Any, ...]) -> tuple[Any, ...]:
        return _each_once(words)


class Scaling(_Section):
    """Standardisation; see `imputune.data.scaling.Scaler`."""

    tail_share: Annotated[float, Field(ge=0, lt=0.5)]


class Csai(_Section):
    """Widths of the imputer; variables and hours come from the cohort."""

    hidden: Positive
    channels: Positive
    attention_heads: Positive
    feedforward: Positive

    @model_validator(mode="after")
    def _heads_share_channels(self) -> Self:
        if self.channels % self.attention_heads:
            raise ValueError(f"channels must be a multiple of attention_heads, {self.attention_heads}")
        return self


class Pretrain(_Section):
    """Training of the imputer."""

    batch_size: Positive
    learning_rate: Rate
    imputation_weight: Weight
    history_weight: Weight
    consistency_weight: Weight
    gradient_norm: Rate


class Finetune(_Section):
    """Training of a head, and of the imputer under it when unfrozen."""

    batch_size: Positive
    patience: Positive
    hidden_share: Annotated[float, Field(ge=0, lt=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Weight
    reconstruction_weight: Weight
    unfrozen_rate_share: Annotated[float, Field(gt=0, le=1)]
    average_decay: Annotated[float, Field(ge=0, lt=1)]
    unfrozen_average_decay: Annotated[float, Field(ge=0, lt=1)]
    gradient_norm: Rate


UNFROZEN_ALONE = ("hidden_share", "reconstruction_weight", "unfrozen_rate_share", "unfrozen_average_decay")
"""The settings of `Finetune` that frozen training does not look at."""


class Plateau(_Section):
    """ReduceLROnPlateau on validation loss (paper, section V.B)."""

    learning_rate: Rate
    factor: Share
    patience: Positive
    min_learning_rate: Rate


class Cyclic(_Section):
    """CyclicLR in mode exp_range, stepped with every batch (paper, section V.B)."""

    lowest_rate: Rate
    highest_rate: Rate
    half_cycle_epochs: Positive
    gamma: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _rates_ascend(self) -> Self:
        return _ascending(self)


class Optuna(_Section):
    """Search of a constant learning rate (paper, section V.B); see `imputune.training.search`."""

    trials: Positive
    startup_trials: Positive
    lowest_rate: Rate
    highest_rate: Rate
    reduction_factor: Annotated[int, Field(ge=2)]
    trial_epochs: Positive
    frozen_scope: SearchScope
    unfrozen_scope: SearchScope

    @model_validator(mode="after")
    def _rates_ascend(self) -> Self:
        return _ascending(self)

    def scope(self, mode: Mode) -> SearchScope:
        """Return which folds search a learning rate of their own."""
        return self.frozen_scope if mode == "frozen" else self.unfrozen_scope


class Schedules(_Section):
    """Learning-rate schedules by name."""

    optuna: Optuna
    cyclic: Cyclic
    plateau: Plateau


class Xgboost(_Section):
    """Gradient boosting; see `imputune.models.non_neural.Xgboost`."""

    trees: Positive
    patience: Positive
    learning_rate: Rate
    max_depth: Positive
    stay_share: Annotated[float, Field(gt=0, le=1)]
    feature_share: Annotated[float, Field(gt=0, le=1)]


class Svm(_Section):
    """Support vector machine; see `imputune.models.non_neural.Svm`."""

    costs: tuple[Rate, ...] = Field(strict=False, min_length=1)


class Shallow(_Section):
    """Heads that are no networks."""

    xgboost: Xgboost
    svm: Svm


class MlpCells(_Section):
    """Cells of the perceptrons: every combination."""

    head: tuple[MlpHead, ...] = Field(strict=False)
    mode: tuple[Mode, ...] = Field(strict=False)
    input: tuple[MlpInput, ...] = Field(strict=False)
    schedule: tuple[NeuralSchedule, ...] = Field(strict=False)


class RecurrentCells(_Section):
    """Cells of the recurrent heads: every combination."""

    head: tuple[RecurrentHead, ...] = Field(strict=False)
    mode: tuple[Mode, ...] = Field(strict=False)
    input: tuple[RecurrentInput, ...] = Field(strict=False)
    schedule: tuple[NeuralSchedule, ...] = Field(strict=False)


class ShallowCells(_Section):
    """Cells of the heads that are no networks: every combination."""

    head: tuple[ShallowHead, ...] = Field(strict=False)
    input: tuple[ShallowInput, ...] = Field(strict=False)


class Grid(_Section):
    """The cells that `dvc repro` and `imputune grid` fine-tune."""

    mlp: MlpCells
    recurrent: RecurrentCells
    shallow: ShallowCells


class Promote(_Section):
    """What a candidate must reach to become champion; see `imputune.evaluation.gates`."""

    minimum_auc: Share
    auc_margin: Weight
    calibration_margin: Weight
    resamples: Positive


class Evaluate(_Section):
    """Measuring a model on another cohort."""

    resamples: Positive


class Params(_Section):
    """All of params.yaml."""

    dataset: str
    seed: Seed
    workers: Positive
    device: DeviceName
    budget: dict[str, Budget]
    synthetic: Synthetic
    mimic3: Mimic3
    folds: Folds
    scaling: Scaling
    masking: Masking
    csai: Csai
    pretrain: Pretrain
    finetune: Finetune
    schedules: Schedules
    shallow: Shallow
    grid: Grid
    matrix: Matrix
    assess: Assess
    promote: Promote
    evaluate: Evaluate

    def budget_of(self, dataset: str) -> Budget:
        """Return the dataset's epochs; raises UserError naming the datasets that have some."""
        if dataset not in self.budget:
            known = ", ".join(self.budget)
            raise UserError(
                f"params.yaml has no budget for dataset {dataset!r}{near_miss(dataset, self.budget)}: "
                f"add it under budget (there are: {known})"
            )
        return self.budget[dataset]


def _each_once(words: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(words)) < len(words):
        raise ValueError("each may stand here once")
    return words


def _ascending(rates: Any) -> Any:
    if rates.lowest_rate >= rates.highest_rate:
        raise ValueError(f"lowest_rate must be below highest_rate, {rates.highest_rate}")
    return rates
