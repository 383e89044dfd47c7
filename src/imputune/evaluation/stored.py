"""The base of results that are stored as JSON, and their plain values."""

from pydantic import AliasChoices, BaseModel, ConfigDict, JsonValue

EARLIER_EVENTS = AliasChoices("events", "deaths")
"""The names of a number of events in stored results; earlier versions knew one outcome, and said deaths."""


class Stored(BaseModel):
    """A result: frozen, without unknown fields; NaN stays NaN in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


def rounded(value: JsonValue, places: int) -> JsonValue:
    """Return plain values with every number rounded to some decimal places."""
    if isinstance(value, float):
        return round(value, places)
    if isinstance(value, dict):
        return {name: rounded(each, places) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each, places) for each in value]
    return value
