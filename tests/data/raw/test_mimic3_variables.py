import os
from pathlib import Path

import pandas as pd
import pytest

from imputune.data.raw.mimic3.variables import EVENT_TABLES, FACTOR_AND_SHIFT, VARIABLES


def test_there_are_89_variables():
    """As many as the paper's extract has, each under a name of its own, with a unit and a range."""
    assert len(VARIABLES) == len({variable.name for variable in VARIABLES}) == 89
    assert all(variable.unit and variable.lowest < variable.highest for variable in VARIABLES)
    assert all(variable.lowest >= 0 and variable.highest <= 1_000_000 for variable in VARIABLES)


def test_every_item_belongs_to_one_variable():
    """No item is read twice, and every variable has items, of both systems where they are charted."""
    items = [item for variable in VARIABLES for item in variable.items]
    assert len({item.item_id for item in items}) == len(items)
    for variable in VARIABLES:
        systems = {item.system for item in variable.items if item.table != "labevents"}
        assert systems in ({"carevue", "metavision"}, set()), variable.name
        assert variable.items
    assert {item.table for item in items} == set(EVENT_TABLES)
    assert {item.conversion for item in items} == set(FACTOR_AND_SHIFT)


def test_amounts_that_go_in_or_out_are_summed():
    """Inputs and outputs are sums over the hour, nothing else is."""
    for variable in VARIABLES:
        moved = variable.items[0].table.startswith(("input", "output"))
        assert (variable.combined == "sum") == moved, variable.name


def test_conversions_by_value():
    """98.6 °F are 37 °C, 154 lb 69.853 kg, 70 inches 177.8 cm."""
    for name, value, expected in (("fahrenheit", 98.6, 37.0), ("pound", 154, 69.853), ("inch", 70, 177.8)):
        factor, shift = FACTOR_AND_SHIFT[name]
        assert value * factor + shift == pytest.approx(expected, abs=5e-4)


def test_ids_are_those_of_the_dictionaries():
    """D_ITEMS and D_LABITEMS have every item, in the table and of the system that variables.csv says, labs of blood."""
    if "IMPUTUNE_REAL_DATA" not in os.environ:
        pytest.skip("IMPUTUNE_REAL_DATA is not set: no real dictionaries to read")
    folder = Path(os.environ["IMPUTUNE_REAL_DATA"]) / "mimiciii-demo"
    charted = pd.read_csv(folder / "D_ITEMS.csv.gz").set_index("ITEMID")[["LINKSTO", "DBSOURCE"]]
    blood = pd.read_csv(folder / "D_LABITEMS.csv.gz").query("FLUID == 'Blood'")["ITEMID"].tolist()
    for variable in VARIABLES:
        for item in variable.items:
            if item.table == "labevents":
                assert item.item_id in blood, item
            else:
                assert charted.loc[item.item_id].tolist() == [item.table, item.system], item


def test_units_are_those_of_the_dictionary():
    """Where D_ITEMS gives a unit, it is the variable's, or the one that its conversion starts from."""
    if "IMPUTUNE_REAL_DATA" not in os.environ:
        pytest.skip("IMPUTUNE_REAL_DATA is not set: no real dictionaries to read")
    folder = Path(os.environ["IMPUTUNE_REAL_DATA"]) / "mimiciii-demo"
    units = pd.read_csv(folder / "D_ITEMS.csv.gz").set_index("ITEMID")["UNITNAME"].replace("None", None).dropna()
    alike = {"bpm": "beats/min", "insp/min": "breaths/min", "?C": "°C", "?F": "fahrenheit", "Inch": "inch"}
    for variable in VARIABLES:
        for item in variable.items:
            if item.item_id in units.index:
                unit = units[item.item_id]
                assert alike.get(unit, unit) in (variable.unit, item.conversion), (variable.name, item)
