"""Sections of params.yaml on imputers: scaling, masking, sizes, pretraining, assessment."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from imputune.settings.names import MaskingPattern, RandomPattern
from imputune.settings.section import Count, Fraction, FractionOrZero, ParamsSection, PositiveNumber, Weight, check_once


class Scaling(ParamsSection):
    """Standardisation; see `imputune.data.scaling.Scaler`."""

    clip_quantile: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        description="Values below this quantile, or above 1 minus it, are clipped; 0 (no clipping) to below 0.5."
    )


class Masking(ParamsSection):
    """Observed cells withheld from an imputer; see `imputune.data.masking.masking_rates`."""

    pattern: RandomPattern = Field(description="Masking pattern: uniform or non_uniform.")
    rate: Fraction = Field(description="Expected fraction of observed cells that are masked, between 0 and 1.")
    factor: PositiveNumber = Field(description="Factor f of the non-uniform rates, above 0.")


class Csai(ParamsSection):
    """Sizes of CSAI; variables and hours come from the cohort."""

    hidden_size: Count = Field(description="Size of the hidden state, which heads read, 1 or more.")
    channels: Count = Field(description="Channels of the self-attention, a multiple of attention_heads.")
    attention_heads: Count = Field(description="Heads of the self-attention, 1 or more.")
    feedforward: Count = Field(description="Width of the layer after the self-attention, 1 or more.")

    @model_validator(mode="after")
    def _heads_divide_channels(self) -> Self:
        if self.channels % self.attention_heads:
            raise ValueError(f"channels must be a multiple of attention_heads, {self.attention_heads}")
        return self


class Saits(ParamsSection):
    """Sizes of PyPOTS's SAITS, by its own names. Its d_model is n_heads times d_k: PyPOTS accepts no other value."""

    n_layers: Count = Field(description="Layers of each block, 1 or more.")
    n_heads: Count = Field(description="Attention heads, 1 or more.")
    d_k: Count = Field(description="Width of a key, 1 or more.")
    d_v: Count = Field(description="Width of a value, 1 or more.")
    d_ffn: Count = Field(description="Width of the feed-forward layer, 1 or more.")


class Csdi(ParamsSection):
    """Sizes of PyPOTS's CSDI, by its own names."""

    n_layers: Count = Field(description="Residual layers, 1 or more.")
    n_heads: Count = Field(description="Attention heads, 1 or more.")
    n_channels: Count = Field(description="Channels of a residual layer, 1 or more.")
    d_time_embedding: Count = Field(description="Width of the code of an hour, 1 or more.")
    d_feature_embedding: Count = Field(description="Width of the code of a variable, 1 or more.")
    d_diffusion_embedding: Count = Field(description="Width of the code of a diffusion step, 1 or more.")


class Gpvae(ParamsSection):
    """Sizes of PyPOTS's GP-VAE, by its own names."""

    latent_size: Count = Field(description="Width of the latent series, 1 or more.")
    encoder_sizes: tuple[Count, ...] = Field(
        strict=False, min_length=1, description="Widths of encoder layers, 1 or more."
    )
    decoder_sizes: tuple[Count, ...] = Field(
        strict=False, min_length=1, description="Widths of decoder layers, 1 or more."
    )
    window_size: Count = Field(description="Window of the encoder's convolution in bins, 1 or more.")


class Pypots(ParamsSection):
    """Sizes of PyPOTS's networks; BRITS, GRU-D, M-RNN and US-GAN have no other size than csai.hidden_size."""

    saits: Saits = Field(description="Sizes of SAITS.")
    csdi: Csdi = Field(description="Sizes of CSDI.")
    gpvae: Gpvae = Field(description="Sizes of GP-VAE.")


class Pretrain(ParamsSection):
    """Pretraining of CSAI; PyPOTS's networks use only batch_size, and train at their own rate of 0.001."""

    batch_size: Count = Field(description="Stays in a batch, 1 or more.")
    learning_rate: PositiveNumber = Field(
        description="Adam's first learning rate, above 0; it falls to 0 along a cosine over the epochs."
    )
    imputation_weight: Weight = Field(description="Weight of the error on masked cells, 0 or more.")
    history_weight: Weight = Field(description="Weight of the history regression's error on visible cells, 0 or more.")
    consistency_weight: Weight = Field(description="Weight of the difference between the two directions, 0 or more.")
    gradient_norm: PositiveNumber = Field(description="Gradients are scaled down to this norm, above 0.")
    missingness_weight: Weight = Field(
        default=0.0,
        description="Weight of predicting which variables the next hour has, 0 or more; 0 (not predicted) by default.",
    )
    variable_masking: FractionOrZero = Field(
        default=0.0,
        description="Probability that all observed cells of a variable of a stay are masked too, 0 to below 1.",
    )


class Ranking(ParamsSection):
    """The masking by which imputers are ranked; `assess` must score it."""

    pattern: MaskingPattern = Field(description="Masking pattern, one of assess.patterns.")
    rate: Fraction = Field(description="Masking rate, one of assess.rates.")


class Assess(ParamsSection):
    """Masking of test stays to score imputers on; see `imputune.data.masking_patterns`."""

    patterns: tuple[MaskingPattern, ...] = Field(
        strict=False, min_length=1, description="Masking patterns: uniform, non_uniform, hours, onward, blocks."
    )
    rates: tuple[Fraction, ...] = Field(
        strict=False, min_length=1, description="Expected fractions of observed cells masked, between 0 and 1."
    )
    ranking: Ranking = Field(description="The pattern and rate by which imputers are ranked.")
    block_hours: Count = Field(description="Successive hours of a block, rounded up to whole bins, 1 or more.")
    block_variables: Count = Field(description="Variables of a block, drawn anew for each stay, 1 or more.")

    @field_validator("patterns", "rates")
    @classmethod
    def _each_once(cls, words: tuple[object, ...]) -> tuple[object, ...]:
        check_once(words)
        return words
