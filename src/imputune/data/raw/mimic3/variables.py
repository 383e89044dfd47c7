"""The 89 variables, as variables.csv beside this file lists them: items, units, conversions, accepted ranges."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, cast, get_args

Combined = Literal["mean", "sum", "last"]
EventTable = Literal["chartevents", "labevents", "outputevents", "inputevents_cv", "inputevents_mv"]
System = Literal["carevue", "metavision", ""]
EVENT_TABLES: tuple[EventTable, ...] = get_args(EventTable)
FACTOR_AND_SHIFT = {
    "": (1.0, 0.0),
    "fahrenheit": (5 / 9, -160 / 9),  # to °C
    "pound": (0.45359237, 0.0),  # to kg
    "inch": (2.54, 0.0),  # to cm
    "fraction": (1.0, 0.0),  # to %: values of at most 1 are shares, times 100
}
"""What a conversion multiplies an item's value with, and what it then adds."""


@dataclass(frozen=True)
class Item:
    """One item of an event table whose values count for a variable; `system` is "" for labs, which share one."""

    item_id: int
    table: EventTable
    system: System
    conversion: str


@dataclass(frozen=True)
class ClinicalVariable:
    """A variable: its unit, how the values of an hour are combined, and the range (in its unit) that is accepted.

    combined: `mean`; `sum`, for amounts that go in or out; `last`, for scores and measures of the body. The range is of
    what a row gives, an infusion as a whole: an hour's sum may be higher.
    """

    name: str
    unit: str
    combined: Combined
    lowest: float
    highest: float
    items: tuple[Item, ...]

    def row(self) -> dict[str, Any]:
        """Return the variable ready for JSON, item ids by table and system."""
        ids: dict[str, list[int]] = {}
        for item in self.items:
            ids.setdefault("_".join(filter(None, (item.table, item.system))), []).append(item.item_id)
        return {
            "name": self.name,
            "unit": self.unit,
            "combined": self.combined,
            "lowest": self.lowest,
            "highest": self.highest,
            "items": ids,
            "conversions": {str(item.item_id): item.conversion for item in self.items if item.conversion},
        }


def _read() -> Iterator[ClinicalVariable]:
    text = (files("imputune.data.raw.mimic3") / "variables.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        name, unit, combined, lowest, highest, *places = row.values()
        items = [item for place, ids in zip(list(row)[5:], places, strict=True) for item in _items(place, ids)]
        way: Combined = next(known for known in get_args(Combined) if known == combined)
        yield ClinicalVariable(name, unit, way, float(lowest), float(highest), tuple(items))


def _items(place: str, ids: str) -> Iterator[Item]:
    """Yield the items of one column, such as "chartevents_carevue", from words such as "678:fahrenheit"."""
    systems = {"inputevents_cv": "carevue", "inputevents_mv": "metavision"}
    table, system = (place, systems[place]) if place in systems else place.partition("_")[::2]
    for word in ids.split():
        item_id, _, conversion = word.partition(":")
        yield Item(int(item_id), cast(EventTable, table), cast(System, system), conversion)


VARIABLES = tuple(_read())
"""In the order of a cohort's last axis. Sources: Harutyunyan et al. 2019; Purushotham et al. 2018."""
