"""MIMIC-III's tables with damaged text; a second reading of the heart rates of two stays, with Python's csv module."""

import gzip
import re
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.fuzz_inputs import FuzzError, broken, from_csv, harmless, number, to_csv
from imputune.data.cohort import Cohort
from imputune.data.raw.mimic3.extraction import extract_mimic3
from imputune.data.raw.mimic3.tables import NEEDED
from imputune.data.raw.mimic3.variables import VARIABLES
from imputune.settings.schema import Mimic3

RULES = Mimic3(minimum_age=18, minimum_hours=48, transfers="keep", memory_gib=0.5)
HEART_RATE, NAME = 211, "heart_rate"
STAYS = {301: (1, 11, datetime(2150, 3, 1, 10)), 302: (2, 12, datetime(2150, 4, 1, 0, 30))}
LOWEST, HIGHEST = next((float(each.lowest), float(each.highest)) for each in VARIABLES if each.name == NAME)
PATTERN = "%Y-%m-%d %H:%M:%S"


def write_tables(random: Random, folder: Path) -> bool:
    """Write the ten tables, one of them saved again by another program or damaged; return whether it is harmless."""
    tables = _tables(random)
    chosen, is_harmless = random.choice(("chartevents", "chartevents", *tables)), random.random() < 0.5
    for name, rows in tables.items():
        header = list(NEEDED[name])
        content = to_csv([header, *rows]).encode()
        if name == chosen and is_harmless:
            content = harmless(random, [random.choice((column, column.upper())) for column in header], rows)
        elif name == chosen:
            content = broken(random, header, rows)
        suffix = random.choice((".csv", ".CSV", ".csv.gz"))
        (folder / f"{random.choice((name, name.upper()))}{suffix}").write_bytes(
            gzip.compress(content) if suffix.endswith("gz") else content
        )
    return is_harmless


def _tables(random: Random) -> dict[str, list[list[str]]]:
    events = []
    for stay, (subject, admission, entry) in STAYS.items():
        for _ in range(random.randrange(2, 7)):
            time = entry + timedelta(minutes=random.randrange(-100, 50 * 60))
            value = random.choice((str(random.randrange(40, 180)), f"{random.uniform(40, 180):.2f}", "900", ""))
            events.append((subject, admission, stay, HEART_RATE, time.strftime(PATTERN), value, ""))
    keys = {"subject_id": 0, "hadm_id": 1, "icustay_id": 2, "itemid": 3, "charttime": 4, "valuenum": 5, "error": 6}
    listed = [(item.item_id, item.table) for variable in VARIABLES for item in variable.items]
    rows: dict[str, list[dict[str, object]]] = {
        "patients": [{"subject_id": s, "gender": "F", "dob": "2100-01-01 00:00:00"} for s, _, _ in STAYS.values()],
        "admissions": [{"subject_id": s, "hadm_id": a, "hospital_expire_flag": s % 2} for s, a, _ in STAYS.values()],
        "icustays": [_stay(stay) for stay in STAYS],
        "d_items": [{"itemid": item, "linksto": table} for item, table in listed if table != "labevents"],
        "d_labitems": [{"itemid": item} for item, table in listed if table == "labevents"],
        "chartevents": [{name: event[place] for name, place in keys.items()} for event in events],
    }
    return {
        name: [[str(row.get(column, "")) for column in NEEDED[name]] for row in rows.get(name, [])] for name in NEEDED
    }


def _stay(stay: int) -> dict[str, object]:
    subject, admission, entry = STAYS[stay]
    return {
        "subject_id": subject,
        "hadm_id": admission,
        "icustay_id": stay,
        "first_careunit": "MICU",
        "last_careunit": "MICU",
        "first_wardid": 1,
        "last_wardid": 1,
        "intime": entry.strftime(PATTERN),
        "outtime": (entry + timedelta(hours=72)).strftime(PATTERN),
    }


def extract(folder: Path, home: Path) -> Cohort:
    """Extract the cohort of the tables."""
    return extract_mimic3(folder, RULES, home, threads=1)


def check(cohort: Cohort, folder: Path) -> str:
    """Compare the heart rates with those that Python's csv module reads; return "kept" or "counted".

    Every row of heart rates in a stay's hours must have a cell or be counted.
    """
    means, rows_in_hours, dropped = _second_heart_rates(folder)
    place = cohort.variable_names.index(NAME)
    found = {}
    assert cohort.source_ids_N is not None
    for n, hour in zip(*np.nonzero(cohort.observed_NTD[:, :, place]), strict=True):
        found[int(cohort.source_ids_N[n]), int(hour)] = float(cohort.values_NTD[n, hour, place])
    expected = {key: value for key, value in means.items() if key[0] in cohort.source_ids_N}
    if found.keys() != expected.keys() or any(not np.isclose(found[key], expected[key], atol=1e-5) for key in found):
        raise FuzzError(f"heart rates {found}, in the text {expected}")
    told = cohort.source["rows_dropped"]
    assert isinstance(told, dict)
    counted = sum(int(str(count)) for count in told.values())
    whole = len(cohort.stay_ids_N) == len(STAYS)
    if whole and (cohort.source["rows_in_the_stays_hours"], counted) != (rows_in_hours, dropped):
        raise FuzzError(f"counts {cohort.source['rows_in_the_stays_hours']} rows and drops {counted}, not {dropped}")
    return "counted" if counted or not whole else "kept"


def _second_heart_rates(folder: Path) -> tuple[dict[tuple[int, int], float], int, int]:
    [path] = [each for each in folder.iterdir() if each.name.lower().startswith("chartevents")]
    content = path.read_bytes()
    table = from_csv(gzip.decompress(content) if path.name.endswith(".gz") else content)
    if not table or any(len(row) != len(table[0]) for row in table):
        raise FuzzError("kept a CHARTEVENTS that the second reading cannot read")
    header = [name.strip().lower() for name in table[0]]
    values, rows, dropped, seen = defaultdict[tuple[int, int], list[float]](list), 0, 0, set[object]()
    for cells in table[1:]:
        row = {name: cells[header.index(name)].strip() for name in NEEDED["chartevents"]}
        if any(row[name] and number(row[name]) is None for name in ("subject_id", "hadm_id", "itemid", "valuenum")):
            raise FuzzError(f"kept a row with a cell that is no number: {row}")
        if row["charttime"] and not re.fullmatch(r"\d{4}-\d\d?-\d\d?( \d\d?:\d\d(:\d\d)?)?", row["charttime"]):
            raise FuzzError(f"kept a row with a time that is none: {row['charttime']!r}")
        ids = [number(row[name]) if row[name] else None for name in ("subject_id", "hadm_id", "itemid")]
        for stay, (subject, admission, entry) in STAYS.items():
            if ids[0] != subject or ids[1] not in (admission, None) or ids[2] != HEART_RATE or not row["charttime"]:
                continue
            since = (datetime.fromisoformat(row["charttime"]) - entry).total_seconds()
            if not 0 <= since < 48 * 3600:
                continue
            rows += 1
            value = number(row["valuenum"]) if row["valuenum"] else None
            key = (stay, since, value)
            void = row["error"] and number(row["error"]) == 1
            if void or value is None or not LOWEST <= value <= HIGHEST or key in seen:
                dropped += 1
                continue
            seen.add(key)
            values[stay, int(since // 3600)].append(value)
    return {key: sum(many) / len(many) for key, many in values.items()}, rows, dropped
