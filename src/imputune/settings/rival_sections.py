"""Sections of params.yaml on rivals: which are trained, how long, at which learning rates, and their sizes."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from imputune.settings.names import RivalName
from imputune.settings.section import Count, FractionOrZero, ParamsSection, PositiveNumber, Weight, check_once

EvenCount = Annotated[int, Field(gt=0, multiple_of=2)]


class Seft(ParamsSection):
    """Sizes of SeFT; see `imputune.models.rivals.seft`."""

    width: Count = Field(description="Width of the network that reads an observation, 1 or more.")
    layers: Count = Field(description="Its layers, 1 or more.")
    heads: Count = Field(description="Attention heads, 1 or more.")
    time_channels: EvenCount = Field(description="Sines and cosines of an hour, 1 or more, an even number.")
    dropout: FractionOrZero = Field(description="Dropout between the layers, 0 to below 1.")


class Mtan(ParamsSection):
    """Sizes of mTAND-Enc; see `imputune.models.rivals.mtan`."""

    hidden_size: Count = Field(description="Hidden size of the GRU, 1 or more.")
    heads: Count = Field(description="Attention heads, 1 or more.")
    time_channels: Count = Field(description="Features of a time in each head, 1 or more.")
    reference_points: Count = Field(description="Reference points over the record, 1 or more.")


class IpNets(ParamsSection):
    """Sizes of IP-Nets; see `imputune.models.rivals.ipnets`."""

    hidden_size: Count = Field(description="Hidden size of the GRU, 1 or more.")
    dropout: FractionOrZero = Field(description="Dropout of the GRU's input, 0 to below 1.")
    reconstruction_weight: Weight = Field(description="Weight of the error on withheld cells, 0 or more.")


class Raindrop(ParamsSection):
    """Sizes of Raindrop; see `imputune.models.rivals.raindrop`."""

    channels: Count = Field(description="Channels of an observation, 1 or more.")
    time_channels: EvenCount = Field(description="Sines and cosines of an hour, 1 or more, an even number.")
    attention: Count = Field(description="Channels of the attention over hours, 1 or more.")


class Strats(ParamsSection):
    """Sizes of STraTS; see `imputune.models.rivals.strats`."""

    width: Count = Field(description="Width of an observation's embedding, 1 or more, a multiple of heads.")
    layers: Count = Field(description="Layers of the transformer, 1 or more.")
    heads: Count = Field(description="Attention heads, 1 or more.")
    feedforward: Count = Field(description="Width of the feed-forward networks, 1 or more.")
    dropout: FractionOrZero = Field(description="Dropout of the transformer, 0 to below 1.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, {self.heads}")
        return self


class PypotsRecurrent(ParamsSection):
    """Sizes of PyPOTS's BRITS or GRU-D."""

    rnn_hidden_size: Count = Field(description="Hidden size, 1 or more.")


class PypotsAttention(ParamsSection):
    """Sizes of PyPOTS's SAITS or iTransformer; its width is n_heads * d_k."""

    n_layers: Count = Field(description="Layers, 1 or more.")
    n_heads: Count = Field(description="Attention heads, 1 or more.")
    d_k: Count = Field(description="Channels of a head's keys, 1 or more.")
    d_v: Count = Field(description="Channels of a head's values, 1 or more.")
    d_ffn: Count = Field(description="Width of the feed-forward networks, 1 or more.")
    dropout: FractionOrZero = Field(description="Dropout, 0 to below 1.")
    attn_dropout: FractionOrZero = Field(description="Dropout of the attention weights, 0 to below 1.")


class PypotsPatches(PypotsAttention):
    """Sizes of PyPOTS's PatchTST."""

    patch_size: Count = Field(description="Hours of a patch, 1 or more, at most the record's.")
    patch_stride: Count = Field(description="Hours from one patch to the next, 1 or more.")


class PypotsTefn(ParamsSection):
    """Sizes of PyPOTS's TEFN."""

    n_fod: Count = Field(description="Size of the frame of discernment, 1 or more.")
    dropout: FractionOrZero = Field(description="Dropout, 0 to below 1.")


class Rivals(ParamsSection):
    """Complex models that are trained end to end on the same folds; all else is as finetune and record_heads say."""

    raw: tuple[RivalName, ...] = Field(
        strict=False,
        description="Rivals that `dvc repro` trains on values, mask and hours: seft, mtan, ipnets, raindrop, "
        "strats, brits, grud, saits, itransformer, patchtst, tefn; an empty list takes none.",
    )
    raw_static: tuple[RivalName, ...] = Field(
        strict=False,
        description="Those that it trains on static facts too: seft, mtan, ipnets, raindrop, strats, brits, grud, "
        "saits, itransformer, patchtst, tefn; an empty list takes none.",
    )
    epochs: Count = Field(description="Epochs at most, 1 or more.")
    patience: Count = Field(description="Epochs without a better validation AUC before training stops, 1 or more.")
    rates: tuple[PositiveNumber, ...] = Field(
        strict=False, min_length=1, description="Learning rates that are tried on the first fold, each above 0."
    )
    rate_epochs: Count = Field(description="Epochs for which each rate is tried, 1 or more.")
    seft: Seft = Field(description="Sizes of SeFT.")
    mtan: Mtan = Field(description="Sizes of mTAND-Enc.")
    ipnets: IpNets = Field(description="Sizes of IP-Nets.")
    raindrop: Raindrop = Field(description="Sizes of Raindrop.")
    strats: Strats = Field(description="Sizes of STraTS.")
    brits: PypotsRecurrent = Field(description="Sizes of BRITS.")
    grud: PypotsRecurrent = Field(description="Sizes of GRU-D.")
    saits: PypotsAttention = Field(description="Sizes of SAITS.")
    itransformer: PypotsAttention = Field(description="Sizes of iTransformer.")
    patchtst: PypotsPatches = Field(description="Sizes of PatchTST.")
    tefn: PypotsTefn = Field(description="Sizes of TEFN.")

    @field_validator("raw", "raw_static", "rates")
    @classmethod
    def _each_once(cls, entries: tuple[object, ...]) -> tuple[object, ...]:
        check_once(entries)
        return entries
