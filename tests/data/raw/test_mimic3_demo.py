import os
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from benchmarks.mimic3_tables import write_events
from imputune.data.cohort import Cohort
from imputune.data.raw.mimic3.extraction import Mimic3Source, extract_mimic3
from imputune.data.raw.mimic3.variables import VARIABLES
from imputune.data.window import Window
from mimic3_raw import RULES


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's real tables, and a CHARTEVENTS generated for its stays from its D_ITEMS."""
    if "IMPUTUNE_REAL_DATA" not in os.environ:
        pytest.skip("IMPUTUNE_REAL_DATA is not set: no real records to read")
    folder = tmp_path_factory.mktemp("demo")
    for path in (Path(os.environ["IMPUTUNE_REAL_DATA"]) / "mimiciii-demo").glob("*.csv.gz"):
        (folder / path.name).symlink_to(path)
    with duckdb.connect() as database:
        for name in ("icustays", "d_items", "d_labitems"):
            path = folder / f"{name.upper()}.csv.gz"
            database.execute(f"CREATE TABLE {name} AS FROM read_csv('{path}', sample_size = -1)")
        write_events(database, folder, "chartevents", 100_000)
    return folder


@pytest.fixture(scope="session")
def demo_cohort(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The cohort of the demo's tables."""
    return extract_mimic3(demo, RULES, tmp_path_factory.mktemp("demo_data"), 2)


def read(demo: Path, name: str, *times: str) -> pd.DataFrame:
    """Return one of the demo's tables, read without the extraction's code."""
    return pd.read_csv(demo / f"{name}.csv.gz", low_memory=False, parse_dates=list(times))


def first_stays(demo: Path) -> pd.DataFrame:
    """Return the first ICU stay of each patient, if it lasted two days and the patient is an adult, ascending by id."""
    stays = read(demo, "ICUSTAYS", "INTIME", "OUTTIME").sort_values("INTIME").drop_duplicates("SUBJECT_ID")
    birth = stays[["SUBJECT_ID"]].merge(read(demo, "PATIENTS", "DOB"))["DOB"].to_numpy()
    adult = pd.to_datetime(birth) + pd.DateOffset(years=18) <= stays["INTIME"].to_numpy()
    long = stays[adult & (stays["OUTTIME"] - stays["INTIME"] >= pd.Timedelta(hours=48))]
    return long.sort_values("ICUSTAY_ID").merge(read(demo, "ADMISSIONS")[["HADM_ID", "HOSPITAL_EXPIRE_FLAG"]])


def test_demo_stays(demo: Path, demo_cohort: Cohort) -> None:
    """The cohort has those of the demo's 136 ICU stays that pandas selects by the same rules, with their outcomes."""
    expected, source = first_stays(demo), Mimic3Source.model_validate(demo_cohort.source)
    assert source.stays_read == 136
    assert demo_cohort.source_ids_N is not None
    assert demo_cohort.source_ids_N.tolist() == expected["ICUSTAY_ID"].tolist()
    assert demo_cohort.outcome_N.tolist() == expected["HOSPITAL_EXPIRE_FLAG"].tolist()
    assert sum(source.exclusions.values()) == 136 - len(expected)


def test_demo_outcomes(demo: Path, demo_cohort: Cohort) -> None:
    """Length of the ICU stay and readmission are those that pandas finds; a death in hospital has no readmission."""
    stays = first_stays(demo)
    days = (stays["OUTTIME"] - stays["INTIME"]) / pd.Timedelta(days=1)
    for limit in (3, 7):
        assert demo_cohort.outcomes[f"los_over_{limit}_days"].tolist() == (days > limit).astype(int).tolist()
    admissions = read(demo, "ADMISSIONS", "ADMITTIME", "DISCHTIME").set_index("HADM_ID")
    expected = []
    for _, stay in stays.iterrows():
        left = admissions.loc[stay["HADM_ID"]]
        later = admissions[(admissions["SUBJECT_ID"] == stay["SUBJECT_ID"]) & (admissions.index != stay["HADM_ID"])]
        waited = later["ADMITTIME"] - left["DISCHTIME"]
        again = ((waited >= pd.Timedelta(0)) & (waited <= pd.Timedelta(days=30))).any()
        expected.append(-1 if left["HOSPITAL_EXPIRE_FLAG"] else int(again))
    assert 0 < expected.count(1) < expected.count(0)
    assert demo_cohort.outcomes["readmission_within_30_days"].tolist() == expected


CONVERTED = (
    ((678, 679, 223761), lambda degrees: (degrees - 32) / 1.8),
    ((3581, 226531), lambda pounds: pounds * 0.45359237),
)


@pytest.mark.parametrize(
    ("table", "value", "name", "items", "combined"),
    [
        ("LABEVENTS", "VALUENUM", "creatinine", [50912], "mean"),
        ("LABEVENTS", "VALUENUM", "sodium", [50983, 50824], "mean"),
        ("LABEVENTS", "VALUENUM", "platelets", [51265], "mean"),
        ("CHARTEVENTS", "VALUENUM", "heart_rate", [211, 220045], "mean"),
        ("CHARTEVENTS", "VALUENUM", "respiratory_rate", [618, 615, 220210, 224690], "mean"),
        ("OUTPUTEVENTS", "VALUE", "stool_output", None, "sum"),
        ("OUTPUTEVENTS", "VALUE", "urine_output", None, "sum"),
        ("INPUTEVENTS_CV", "AMOUNT", "oral_intake", [30056], "sum"),
        ("INPUTEVENTS_CV", "AMOUNT", "sodium_chloride", [30018, 30190, 30352], "sum"),
        ("CHARTEVENTS", "VALUENUM", "temperature", None, "mean"),
        ("CHARTEVENTS", "VALUENUM", "weight", None, "last"),
        ("CHARTEVENTS", "VALUENUM", "gcs_motor", None, "last"),
    ],
)
def test_demo_cells(
    demo: Path, demo_cohort: Cohort, table: str, value: str, name: str, items: list[int] | None, combined: str
) -> None:
    """Every hour of a variable in every stay is what pandas computes from the raw rows."""
    compare_cells(demo, demo_cohort, table, value, name, items, combined)


@pytest.mark.parametrize("window", [Window(hours=24, bin_hours=4), Window(hours=96)])
def test_demo_cells_of_another_window(demo: Path, tmp_path: Path, window: Window) -> None:
    """Bins of four hours, and a window longer than some stays, are what pandas computes from the raw rows."""
    cohort = extract_mimic3(demo, RULES, tmp_path, 2, window=window)
    for table, value, name, combined in (
        ("LABEVENTS", "VALUENUM", "creatinine", "mean"),
        ("OUTPUTEVENTS", "VALUE", "urine_output", "sum"),
        ("CHARTEVENTS", "VALUENUM", "gcs_motor", "last"),
    ):
        compare_cells(demo, cohort, table, value, name, None, combined)
    stays, admissions = first_stays(demo), read(demo, "ADMISSIONS", "DISCHTIME").set_index("HADM_ID")
    end = stays["INTIME"] + pd.Timedelta(hours=window.hours)
    left_early = (admissions["DISCHTIME"].loc[stays["HADM_ID"]].to_numpy() < end) & (stays["OUTTIME"] < end)
    assert cohort.source_ids_N is not None
    assert cohort.source_ids_N.tolist() == stays["ICUSTAY_ID"][~left_early].tolist()
    shorter = (stays["OUTTIME"] < end)[~left_early].sum()
    assert (Mimic3Source.model_validate(cohort.source).stays_shorter_than_the_window or 0) == shorter
    assert (left_early.sum() > 0, shorter > 0) == (window.hours > 48, window.hours > 48)


def compare_cells(
    demo: Path, cohort: Cohort, table: str, value: str, name: str, items: list[int] | None, combined: str
) -> None:
    """Compute a variable's cells of a cohort from the raw rows with pandas, and compare."""
    window = cohort.window
    column = cohort.variable_names.index(name)
    wanted = items or [item.item_id for item in VARIABLES[column].items]
    rows = read(demo, table, "CHARTTIME").merge(
        first_stays(demo)[["SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "INTIME", "OUTTIME"]],
        on="SUBJECT_ID",
        suffixes=("", "_STAY"),
    )
    rows = rows[rows["ITEMID"].isin(wanted) & (rows["HADM_ID"].isna() | (rows["HADM_ID"] == rows["HADM_ID_STAY"]))]
    if "ERROR" in rows:
        rows = rows[rows["ERROR"] != 1]
    rows = rows.assign(bin=(rows["CHARTTIME"] - rows["INTIME"]) // pd.Timedelta(hours=window.bin_hours))
    rows = rows[(rows["bin"] >= 0) & (rows["bin"] < window.bins) & rows[value].notna()]
    rows = rows[rows["CHARTTIME"] < rows["OUTTIME"]]
    for items_in, convert in CONVERTED:
        rows[value] = rows[value].where(~rows["ITEMID"].isin(items_in), convert(rows[value]))
    rows = rows[(rows[value] >= VARIABLES[column].lowest) & (rows[value] <= VARIABLES[column].highest)]
    stay = "ICUSTAY_ID_STAY" if "ICUSTAY_ID_STAY" in rows else "ICUSTAY_ID"
    order = [name for name in ("ORDERID",) if name in rows]
    rows = rows.drop_duplicates([stay, "ITEMID", "CHARTTIME", value, *order]).sort_values(["CHARTTIME", value])
    assert cohort.source_ids_N is not None
    stays_N = cohort.source_ids_N
    expected = rows[rows[stay].isin(stays_N)].groupby([stay, "bin"])[value].agg(combined)
    by_carevue = first_stays(demo).query("DBSOURCE == 'carevue'")["ICUSTAY_ID"]
    read_here = set(by_carevue if table == "INPUTEVENTS_CV" else stays_N)
    observed_NT = ~np.isnan(cohort.values_NTD[:, :, column])
    extracted = {
        (int(stays_N[n]), int(t)): float(cohort.values_NTD[n, t, column])
        for n, t in np.argwhere(observed_NT)
        if stays_N[n] in read_here
    }
    assert len(extracted) > 10
    assert extracted == pytest.approx(expected.to_dict(), rel=1e-5)


def test_demo_infusions(demo: Path, demo_cohort: Cohort) -> None:
    """The saline of each hour, from MetaVision's infusions, is what a loop over the rows gives."""
    stays = first_stays(demo)[["SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "INTIME"]]
    rows = read(demo, "INPUTEVENTS_MV", "STARTTIME", "ENDTIME").drop(columns="ICUSTAY_ID")
    rows = rows[(rows["ITEMID"] == 225158) & (rows["STATUSDESCRIPTION"] != "Rewritten") & (rows["AMOUNT"] >= 0)]
    rows = rows.merge(stays).drop_duplicates(["ICUSTAY_ID", "ORDERID", "STARTTIME", "ENDTIME", "AMOUNT"])
    given: dict[tuple[int, int], float] = {}
    for row in rows.itertuples():
        start, end = ((time - row.INTIME).total_seconds() / 3600 for time in (row.STARTTIME, row.ENDTIME))
        for hour in range(48):
            inside = min(end, hour + 1) - max(start, hour)
            if start <= end and (inside > 0 or (start == end and hour <= start < hour + 1)):
                fraction = inside / (end - start) if end > start else 1
                given[row.ICUSTAY_ID, hour] = given.get((row.ICUSTAY_ID, hour), 0) + row.AMOUNT * fraction
    column = demo_cohort.variable_names.index("sodium_chloride")
    assert demo_cohort.source_ids_N is not None
    extracted = {
        (int(stay), hour): float(values_T[hour])
        for stay, values_T in zip(demo_cohort.source_ids_N, demo_cohort.values_NTD[:, :, column], strict=True)
        for hour in np.flatnonzero(~np.isnan(values_T))
        if stay in set(rows["ICUSTAY_ID"])
    }
    assert len(extracted) > 100
    assert extracted == pytest.approx(given, rel=1e-5, abs=1e-5)
