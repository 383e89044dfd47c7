import json
import os
from pathlib import Path

import pandas as pd
import pytest

from imputune.data.raw.mimic3.variables import EVENT_TABLES, FACTOR_AND_SHIFT, VARIABLES


def test_there_are_89_variables():
    """There are as many variables as in the paper's extract, each with its own name, a unit and a range."""
    assert len(VARIABLES) == len({variable.name for variable in VARIABLES}) == 89
    assert all(variable.unit and variable.lowest < variable.highest for variable in VARIABLES)
    assert all(variable.lowest >= 0 and variable.highest <= 1_000_000 for variable in VARIABLES)


def test_every_item_belongs_to_one_variable():
    """No item is read twice; every variable has items, and charted ones of both systems."""
    items = [item for variable in VARIABLES for item in variable.items]
    assert len({item.item_id for item in items}) == len(items)
    for variable in VARIABLES:
        systems = {item.system for item in variable.items if item.table != "labevents"}
        assert systems in ({"carevue", "metavision"}, set()), variable.name
        assert variable.items
    assert {item.table for item in items} == set(EVENT_TABLES)
    assert {item.conversion for item in items} == set(FACTOR_AND_SHIFT)


def test_inputs_and_outputs_are_summed():
    """Inputs and outputs are sums over the hour, all other variables are not."""
    for variable in VARIABLES:
        is_amount = variable.items[0].table.startswith(("input", "output"))
        assert (variable.combined == "sum") == is_amount, variable.name


def test_conversions_by_value():
    """98.6 °F are 37 °C, 154 lb 69.853 kg, 70 inches 177.8 cm."""
    for name, value, expected in (("fahrenheit", 98.6, 37.0), ("pound", 154, 69.853), ("inch", 70, 177.8)):
        factor, shift = FACTOR_AND_SHIFT[name]
        assert value * factor + shift == pytest.approx(expected, abs=5e-4)


def test_facts_are_ready_for_json():
    """The facts of a variable have its item ids by table and system, and its conversions by item id."""
    facts = next(variable for variable in VARIABLES if variable.name == "temperature").facts()
    assert json.loads(facts.model_dump_json()) == {
        "name": "temperature",
        "unit": "°C",
        "combined": "mean",
        "lowest": facts.lowest,
        "highest": facts.highest,
        "items": {"chartevents_carevue": [676, 677, 678, 679], "chartevents_metavision": [223762, 223761]},
        "conversions": {"678": "fahrenheit", "679": "fahrenheit", "223761": "fahrenheit"},
    }


def test_ids_are_those_of_the_dictionaries():
    """D_ITEMS and D_LABITEMS have every item, in the table and system of variables.csv; labs are of blood."""
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
    """The units in D_ITEMS are those of the variables, or those that are converted."""
    if "IMPUTUNE_REAL_DATA" not in os.environ:
        pytest.skip("IMPUTUNE_REAL_DATA is not set: no real dictionaries to read")
    folder = Path(os.environ["IMPUTUNE_REAL_DATA"]) / "mimiciii-demo"
    units = pd.read_csv(folder / "D_ITEMS.csv.gz").set_index("ITEMID")["UNITNAME"].replace("None", None).dropna()
    synonyms = {"bpm": "beats/min", "insp/min": "breaths/min", "?C": "°C", "?F": "fahrenheit", "Inch": "inch"}
    for variable in VARIABLES:
        for item in variable.items:
            if item.item_id in units.index:
                unit = units[item.item_id]
                assert synonyms.get(unit, unit) in (variable.unit, item.conversion), (variable.name, item)
