"""The section folds of params.yaml: how the stays are divided into training, validation and test stays."""

from math import isclose
from typing import Annotated, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from imputune.settings.names import ProtocolName
from imputune.settings.section import Fraction, ParamsSection, Seed, check_once

Seeds = Annotated[tuple[Seed, ...], Field(strict=False)]


def _check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds:
        raise ValueError("there must be one seed or more: each is a split")
    check_once(seeds)
    return seeds


class Fractions(ParamsSection):
    """The fractions of stays that train, validate and test; they add up to 1."""

    train: Fraction = Field(default=0.64, description="Fraction of stays that train, between 0 and 1.")
    validation: Fraction = Field(default=0.16, description="Fraction of stays that choose the epoch, between 0 and 1.")
    test: Fraction = Field(default=0.2, description="Fraction of stays that test, between 0 and 1.")

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        total = self.train + self.validation + self.test
        if not isclose(total, 1, abs_tol=1e-9):
            raise ValueError(f"train, validation and test must add up to 1, they add up to {total:g}")
        return self


class SingleSplit(ParamsSection):
    """Protocol single_split: random splits by fractions, one for each seed."""

    fractions: Fractions = Field(default=Fractions(), description="Fractions of stays; they add up to 1.")
    seeds: Seeds = Field(default=(0, 1, 2, 3, 4), description="Seeds of the splits, each once; 0 to 2**32 - 1.")

    _seeds_once = field_validator("seeds")(_check_seeds)


class External(ParamsSection):
    """Protocol external: train and validate on one cohort, test on another; see `imputune extract joined`."""

    validation: Fraction = Field(
        default=0.2, description="Fraction of the first cohort's stays that choose the epoch, between 0 and 1."
    )
    seeds: Seeds = Field(
        default=(0, 1, 2, 3, 4), description="Seeds of the first cohort's splits, each once; 0 to 2**32 - 1."
    )

    _seeds_once = field_validator("seeds")(_check_seeds)


class Folds(ParamsSection):
    """How the stays are divided; see `imputune.data.folds`. Only the chosen protocol's settings have an effect."""

    protocol: ProtocolName = Field(
        default="cross_validation", description="cross_validation, single_split or external; each split is a fold."
    )
    count: Annotated[int, Field(ge=3)] = Field(description="Number of folds of cross_validation, 3 or more.")
    single_split: SingleSplit = Field(default=SingleSplit(), description="Splits of protocol single_split.")
    external: External = Field(default=External(), description="Splits of protocol external.")

    @property
    def in_effect(self) -> dict[str, JsonValue]:
        """The settings that have an effect, as results keep them.

        Those of cross_validation have no key protocol: earlier versions knew no other, and their results stay valid.
        """
        if self.protocol == "cross_validation":
            return {"count": self.count}
        chosen = self.single_split if self.protocol == "single_split" else self.external
        return {"protocol": self.protocol, **chosen.model_dump(mode="json")}
