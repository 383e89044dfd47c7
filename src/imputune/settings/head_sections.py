"""Sections of params.yaml on heads: sizes, training, schedules, non-neural heads, the grid of variants."""

from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from imputune.settings.names import (
    BlendHead,
    BlendScale,
    BlendWeights,
    Head,
    ImputerName,
    Mode,
    NeuralHead,
    NeuralInput,
    NeuralSchedule,
    NonNeuralHead,
    NonNeuralInput,
    SearchScope,
)
from imputune.settings.section import (
    Count,
    Fraction,
    FractionOrOne,
    FractionOrZero,
    ParamsSection,
    PositiveNumber,
    Weight,
    check_once,
)


class Heads(ParamsSection):
    """Sizes of the neural heads; the rest follows from csai.hidden_size and the number of variables."""

    mlp_width: Count = Field(description="Width of every hidden layer of an MLP, 1 or more.")


class Finetune(ParamsSection):
    """Training of a head, and of the imputer under it when unfrozen."""

    batch_size: Count = Field(description="Stays in a batch, 1 or more.")
    patience: Count = Field(description="Epochs without a better validation AUC before training stops, 1 or more.")
    masking_rate: FractionOrZero = Field(
        description="Fraction of observed cells masked while the imputer is unfrozen, 0 to below 1."
    )
    dropout: FractionOrZero = Field(description="Dropout inside the head, 0 to below 1.")
    weight_decay: Weight = Field(description="Adam's weight decay, 0 or more.")
    reconstruction_weight: Weight = Field(
        description="Weight of the imputer's own loss while it is unfrozen, 0 or more."
    )
    unfrozen_rate_factor: FractionOrOne = Field(
        description="Unfrozen training multiplies every learning rate of the schedules by this, above 0 to 1."
    )
    average_decay: FractionOrZero = Field(
        description="Decay per step of the running average of weights that is evaluated and kept, 0 to below 1."
    )
    unfrozen_average_decay: FractionOrZero = Field(description="The same while the imputer is unfrozen, 0 to below 1.")
    gradient_norm: PositiveNumber = Field(description="Gradients are scaled down to this norm, above 0.")
    variable_masking: FractionOrZero = Field(
        default=0.0,
        description="Probability that all observed cells of a variable of a stay are masked while the imputer is "
        "unfrozen, 0 to below 1.",
    )


UNFROZEN_ONLY = (
    "masking_rate",
    "variable_masking",
    "reconstruction_weight",
    "unfrozen_rate_factor",
    "unfrozen_average_decay",
)
"""The settings of `Finetune` that have no effect on frozen training."""


class RecordHeads(ParamsSection):
    """Heads whose input has static facts or summary statistics too; these values replace those of `Finetune`."""

    dropout: FractionOrZero = Field(description="Dropout inside the head, 0 to below 1.")
    input_dropout: FractionOrZero = Field(description="Dropout of the static facts and statistics, 0 to below 1.")
    weight_decay: Weight = Field(description="Adam's weight decay, 0 or more.")


class _Rates(Protocol):
    @property
    def lowest_rate(self) -> float: ...

    @property
    def highest_rate(self) -> float: ...


def _check_ascending(rates: _Rates) -> None:
    if rates.lowest_rate >= rates.highest_rate:
        raise ValueError(f"lowest_rate must be below highest_rate, {rates.highest_rate}")


class Plateau(ParamsSection):
    """ReduceLROnPlateau on validation loss (paper, section V.B)."""

    learning_rate: PositiveNumber = Field(description="First learning rate, above 0.")
    factor: Fraction = Field(description="The rate is multiplied by this on a plateau, between 0 and 1.")
    patience: Count = Field(description="Epochs without a lower validation loss that make a plateau, 1 or more.")
    min_learning_rate: PositiveNumber = Field(description="Lowest learning rate, above 0.")


class Cyclic(ParamsSection):
    """CyclicLR in mode exp_range, stepped with every batch (paper, section V.B)."""

    lowest_rate: PositiveNumber = Field(description="Learning rate at the bottom of a cycle, above 0.")
    highest_rate: PositiveNumber = Field(description="Learning rate at the top of the first cycle, above lowest_rate.")
    half_cycle_epochs: Count = Field(description="Epochs from the bottom to the top, 1 or more.")
    gamma: FractionOrOne = Field(description="Each batch multiplies the height of the cycle by this, above 0 to 1.")

    @model_validator(mode="after")
    def _rates_ascend(self) -> Self:
        _check_ascending(self)
        return self


class Optuna(ParamsSection):
    """Search of a constant learning rate (paper, section V.B); see `imputune.training.search`."""

    trials: Count = Field(description="Trials of a search, 1 or more.")
    startup_trials: Count = Field(
        description="Trials drawn at random in each Hyperband bracket before the sampler learns, 1 or more."
    )
    lowest_rate: PositiveNumber = Field(description="Lowest learning rate tried, above 0.")
    highest_rate: PositiveNumber = Field(description="Highest learning rate tried, above lowest_rate.")
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        description="Reduction factor of the HyperbandPruner, 2 or more."
    )
    trial_epochs: Count = Field(description="Epochs of a trial at most, 1 or more.")
    frozen_scope: SearchScope = Field(description="Folds that search for frozen variants: each_fold or first_fold.")
    unfrozen_scope: SearchScope = Field(description="Folds that search for unfrozen variants: each_fold or first_fold.")

    @model_validator(mode="after")
    def _rates_ascend(self) -> Self:
        _check_ascending(self)
        return self

    def scope(self, mode: Mode) -> SearchScope:
        """Return which folds search a learning rate of their own."""
        return self.frozen_scope if mode == "frozen" else self.unfrozen_scope


class Schedules(ParamsSection):
    """Learning-rate schedules by name."""

    optuna: Optuna = Field(description="A constant rate, searched.")
    cyclic: Cyclic = Field(description="A rate that rises and falls.")
    plateau: Plateau = Field(description="A rate that falls when validation loss stops improving.")


class Xgboost(ParamsSection):
    """Gradient boosting; see `imputune.models.non_neural.Xgboost`."""

    trees: Count = Field(description="Trees at most, 1 or more.")
    patience: Count = Field(description="Trees without a better validation AUC before boosting stops, 1 or more.")
    learning_rate: PositiveNumber = Field(description="Shrinkage of each tree, above 0.")
    max_depth: Count = Field(description="Depth of a tree at most, 1 or more.")
    stay_fraction: FractionOrOne = Field(description="Fraction of the stays that each tree sees, above 0 to 1.")
    feature_fraction: FractionOrOne = Field(description="Fraction of the features that each tree sees, above 0 to 1.")
    min_child_weight: Weight = Field(description="Least weight of the stays in a leaf, 0 or more.")
    l2: Weight = Field(description="Penalty on the squares of the leaves' values (lambda), 0 or more.")
    seeds: Count = Field(description="Boosters with different random draws whose risks are averaged, 1 or more.")


class Svm(ParamsSection):
    """Support vector machine; see `imputune.models.non_neural.Svm`."""

    costs: tuple[PositiveNumber, ...] = Field(
        strict=False, min_length=1, description="Costs C that are tried, each above 0; validation AUC chooses."
    )


class NonNeural(ParamsSection):
    """Non-neural heads."""

    xgboost: Xgboost = Field(description="Gradient boosting.")
    svm: Svm = Field(description="Support vector machine.")


class Blend(ParamsSection):
    """A head that combines fine-tuned variants, its members, fold by fold; see `imputune.models.blending`."""

    members: tuple[str, ...] = Field(
        strict=False,
        min_length=2,
        description="Labels of two variants or more, such as csai/mlp2-frozen-hidden-plateau.",
    )
    scale: BlendScale = Field(
        description="What is averaged: each member's calibrated risk (calibrated), or its rank (ranks)."
    )
    weights: BlendWeights = Field(
        description="equal, or cross_fitted: those with the lowest log loss on the validation stays."
    )

    @field_validator("members")
    @classmethod
    def _each_once(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        check_once(labels)
        return labels


class NeuralBlock(ParamsSection):
    """Variants with a neural head: every combination of these lists."""

    imputer: tuple[ImputerName, ...] = Field(strict=False, description="Imputers; an empty list takes none.")
    head: tuple[NeuralHead, ...] = Field(strict=False, description="mlp2, mlp5, lstm, gru.")
    mode: tuple[Mode, ...] = Field(strict=False, description="frozen, unfrozen.")
    input: tuple[NeuralInput, ...] = Field(
        strict=False,
        description="What the heads read: hidden, hidden_both, hidden_pooled, imputed, raw, each also with +static and "
        "+static+summary.",
    )
    schedule: tuple[NeuralSchedule, ...] = Field(strict=False, description="optuna, cyclic, plateau.")


class NonNeuralBlock(ParamsSection):
    """Variants with a non-neural head: every combination of these lists."""

    imputer: tuple[ImputerName, ...] = Field(strict=False, description="Imputers; an empty list takes none.")
    head: tuple[NonNeuralHead, ...] = Field(strict=False, description="xgboost, svm.")
    input: tuple[NonNeuralInput, ...] = Field(
        strict=False,
        description="What the heads read: imputed, hidden, hidden_both, hidden_pooled, summary, "
        "also with +static, +summary.",
    )


class BlendBlock(ParamsSection):
    """The blend of the members under blend, or no blend."""

    imputer: tuple[Literal["csai"], ...] = Field(
        strict=False, description="csai, under which the blend is stored; an empty list takes none."
    )
    head: tuple[BlendHead, ...] = Field(strict=False, description="blend.")


class Grid(ParamsSection):
    """The variants that `dvc repro` and `imputune grid` fine-tune; each block is one set of stages of dvc.yaml."""

    mlp: NeuralBlock = Field(description="MLPs on frozen imputers that have a hidden state.")
    mlp_record: NeuralBlock = Field(description="MLPs that read static facts or statistics too.")
    mlp_imputed: NeuralBlock = Field(description="MLPs on imputers without a hidden state.")
    mlp_unfrozen: NeuralBlock = Field(description="MLPs trained with their imputer.")
    recurrent: NeuralBlock = Field(description="LSTM and GRU.")
    non_neural: NonNeuralBlock = Field(description="xgboost and svm.")
    non_neural_more: NonNeuralBlock = Field(description="xgboost and svm on further inputs.")
    blend: BlendBlock = Field(description="The blend.")

    @property
    def blocks(self) -> dict[str, NeuralBlock | NonNeuralBlock | BlendBlock]:
        """The blocks by name."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every head of a block, each once; a blend is none of them, because it has no imputer of its own."""
        blocks = [block for block in self.blocks.values() if not isinstance(block, BlendBlock)]
        return tuple(dict.fromkeys(head for block in blocks for head in block.head))
