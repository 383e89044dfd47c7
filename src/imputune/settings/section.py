"""The base of every section of params.yaml, and the kinds of numbers in them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0)]
PositiveNumber = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
FractionOrZero = Annotated[float, Field(ge=0, lt=1)]
FractionOrOne = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class ParamsSection(BaseModel):
    """A section of params.yaml: frozen, without unknown keys, no type converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def check_once(words: Sequence[object]) -> None:
    """Raise ValueError if an entry of a list is listed twice."""
    if len(set(words)) < len(words):
        raise ValueError("an entry is listed twice")
