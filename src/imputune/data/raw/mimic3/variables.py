"""The 89 variables of variables.csv beside this file: items, units, conversions, accepted ranges."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Literal, cast, get_args

from pydantic import BaseModel

from imputune.data.static import AGE, GENDER, HEIGHT, ICU_TYPE, WEIGHT

Combined = Literal["mean", "sum", "last"]
EventTable = Literal["chartevents", "labevents", "outputevents", "inputevents_cv", "inputevents_mv"]
System = Literal["carevue", "metavision", ""]
EVENT_TABLES: tuple[EventTable, ...] = get_args(EventTable)
FACTOR_AND_SHIFT = {
    "": (1.0, 0.0),
    "fahrenheit": (5 / 9, -160 / 9),  # to °C
    "pound": (0.45359237, 0.0),  # to kg
    "inch": (2.54, 0.0),  # to cm
    "fraction": (1.0, 0.0),  # to %: values up to 1 are fractions and are multiplied by 100
}
"""A conversion multiplies an item's value by the factor and then adds the shift."""
STATIC = (
    AGE,
    GENDER,
    replace(HEIGHT, parameter="", first_of="height"),
    ICU_TYPE,
    replace(WEIGHT, parameter="", first_of="weight"),
)
NO_ITEMS = ("name", "unit", "combined", "lowest", "highest")
"""The columns of variables.csv without items; the others are named after a table and a system."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of an event table whose values count for a variable; labs are the same in both systems, "" here."""

    item_id: int
    table: EventTable
    system: System
    conversion: str


class VariableFacts(BaseModel, frozen=True, extra="forbid"):
    """A variable as `imputune extract mimic3 --list-variables --json` shows it: item ids by table and system."""

    name: str
    unit: str
    combined: Combined
    lowest: float
    highest: float
    items: dict[str, list[int]]
    conversions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ClinicalVariable:
    """A variable: its unit, how the values of an hour are combined, and the accepted range in its unit.

    combined: `mean`; `sum`, for amounts given to or lost by the patient; `last`, for scores and body measures. The
    range applies to the value of a row, and to an infusion as a whole: the sum of an hour may be higher.
    """

    name: str
    unit: str
    combined: Combined
    lowest: float
    highest: float
    items: tuple[Item, ...]

    def facts(self) -> VariableFacts:
        """Return the variable ready for JSON."""
        ids: dict[str, list[int]] = {}
        for item in self.items:
            ids.setdefault("_".join(filter(None, (item.table, item.system))), []).append(item.item_id)
        return VariableFacts(
            name=self.name,
            unit=self.unit,
            combined=self.combined,
            lowest=self.lowest,
            highest=self.highest,
            items=ids,
            conversions={str(item.item_id): item.conversion for item in self.items if item.conversion},
        )


def _read_variables() -> Iterator[ClinicalVariable]:
    text = (files("imputune.data.raw.mimic3") / "variables.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        items = [
            item for column, ids in row.items() if column not in NO_ITEMS for item in _items_of_column(column, ids)
        ]
        yield ClinicalVariable(
            name=row["name"],
            unit=row["unit"],
            combined=next(known for known in get_args(Combined) if known == row["combined"]),
            lowest=float(row["lowest"]),
            highest=float(row["highest"]),
            items=tuple(items),
        )


def _items_of_column(column: str, ids: str) -> Iterator[Item]:
    """Yield the items of one column, such as "chartevents_carevue", from words such as "678:fahrenheit"."""
    systems = {"inputevents_cv": "carevue", "inputevents_mv": "metavision"}
    table, system = (column, systems[column]) if column in systems else column.partition("_")[::2]
    for word in ids.split():
        item_id, _, conversion = word.partition(":")
        yield Item(
            item_id=int(item_id),
            table=cast(EventTable, table),
            system=cast(System, system),
            conversion=conversion,
        )


VARIABLES = tuple(_read_variables())
"""In the order of a cohort's last axis. Sources: Harutyunyan et al. 2019; Purushotham et al. 2018."""
