"""Sections of params.yaml on rivals: which are trained, how long, at which learning rates, and their sizes."""

from typing import Annotated

from pydantic import Field, field_validator

from imputune.settings.names import RivalName
from imputune.settings.section import Count, FractionOrZero, ParamsSection, PositiveNumber, check_once

EvenCount = Annotated[int, Field(gt=0, multiple_of=2)]


class Seft(ParamsSection):
    """Sizes of SeFT; see `imputune.models.rivals.seft`."""

    width: Count = Field(description="Width of the network that reads an observation, 1 or more.")
    layers: Count = Field(description="Its layers, 1 or more.")
    heads: Count = Field(description="Attention heads, 1 or more.")
    time_channels: EvenCount = Field(description="Sines and cosines of an hour, an even number.")
    dropout: FractionOrZero = Field(description="Dropout between the layers, 0 to below 1.")


class Rivals(ParamsSection):
    """Complex models that are trained end to end on the same folds; all else is as finetune and record_heads say."""

    raw: tuple[RivalName, ...] = Field(
        strict=False, description="Rivals that `dvc repro` trains on values, mask and hours; an empty list takes none."
    )
    raw_static: tuple[RivalName, ...] = Field(
        strict=False, description="Those that it trains on static facts too; an empty list takes none."
    )
    epochs: Count = Field(description="Epochs at most, 1 or more.")
    patience: Count = Field(description="Epochs without a better validation AUC before training stops, 1 or more.")
    rates: tuple[PositiveNumber, ...] = Field(
        strict=False, min_length=1, description="Learning rates that are tried on the first fold, each above 0."
    )
    rate_epochs: Count = Field(description="Epochs for which each rate is tried, 1 or more.")
    seft: Seft = Field(description="Sizes of SeFT.")

    @field_validator("raw", "raw_static", "rates")
    @classmethod
    def _each_once(cls, entries: tuple[object, ...]) -> tuple[object, ...]:
        check_once(entries)
        return entries
