from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.data.raw.meds import values
from imputune.data.raw.meds.stays import WindowRules
from meds_raw import Event, read_stays, stay

LINES = """name,unit,codes,combined,factor,offset,lowest,highest
mean_of,,A,mean,,,-50,50
sum_of,,B; C,sum,,,,
last_of,,D,last,,,,
lowest_of,,E,lowest,2,1,-60,60
highest_of,,F,highest,,,,
"""
CODES = {"A": 0, "B": 1, "C": 1, "D": 2, "E": 3, "F": 4}


def random_events(seed: int) -> list[Event]:
    """Return events of five subjects around their stays, with ties of time, repeats and values out of range."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for subject in range(1, 6):
        start = np.datetime64("2150-01-01T00:00:00") + np.timedelta64(int(rng.integers(0, 10**7)), "s")
        end = start + np.timedelta64(int(rng.integers(50, 90)), "h")
        events += stay(subject, *(str(each).replace("T", " ") for each in (start, end)), died=subject == 3)
        for _ in range(400):
            time = start + np.timedelta64(int(rng.integers(-5 * 60, 70 * 60)) // 20 * 1200, "s")
            number = float(np.float32(round(rng.normal(0, 30), 1)))
            event = (subject, str(time).replace("T", " "), str(rng.choice(list(CODES))), number)
            events += [event] * (1 + (rng.random() < 0.2))
    return [events[place] for place in rng.permutation(len(events))]


def by_pandas(events: list[Event], hours: int, bin_hours: int) -> np.ndarray:
    """Return the values of five subjects, computed by pandas from the events."""
    table = pd.DataFrame([(*event, None)[:4] for event in events], columns=["subject", "time", "code", "number"])
    table["time"] = pd.to_datetime(table["time"])
    starts = table[table["code"].str.startswith("ICU_ADMISSION")].set_index("subject")["time"]
    rows = table[table["code"].isin(list(CODES))].drop_duplicates().copy()
    rows["variable"] = rows["code"].map(CODES)
    seconds = (rows["time"] - rows["subject"].map(starts)).dt.total_seconds()
    rows["bin"] = seconds // (3600 * bin_hours)
    rows = rows[(seconds >= 0) & (seconds < 3600 * hours)]
    rows["number"] = np.where(rows["variable"] == 3, rows["number"] * 2 + 1, rows["number"])
    limit = rows["variable"].map({0: 50, 3: 60}).fillna(np.inf)
    rows = rows[rows["number"].abs() <= limit].sort_values(["time", "number"])
    values_NTD = np.full((5, hours // bin_hours, 5), np.nan)
    for (subject, bin_, variable), group in rows.groupby(["subject", "bin", "variable"]):
        how = {0: "mean", 1: "sum", 2: "last", 3: "min", 4: "max"}[int(variable)]
        number = group["number"].iloc[-1] if how == "last" else getattr(group["number"], how)()
        values_NTD[int(subject) - 1, int(bin_), int(variable)] = number
    return values_NTD


@pytest.mark.parametrize(
    ("seed", "hours", "bin_hours", "at_once"), [(1, 48, 1, 3_000_000), (2, 24, 2, 100), (3, 48, 6, 700), (4, 48, 48, 1)]
)
def test_bins_are_those_of_pandas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, hours: int, bin_hours: int, at_once: int
) -> None:
    """Random events in windows of several lengths, combined in one piece or many, give what pandas gives."""
    monkeypatch.setattr(values, "EVENTS_AT_ONCE", at_once)
    events = random_events(seed)
    rules = WindowRules(hours=hours, bin_hours=bin_hours)
    stays = read_stays(tmp_path, events, rules=rules, variables=LINES)
    assert stays.subject_ids_N.tolist() == [1, 2, 3, 4, 5]
    expected = by_pandas(events, hours, bin_hours)
    np.testing.assert_allclose(stays.values_NTD, expected, rtol=1e-6, atol=2e-6)
