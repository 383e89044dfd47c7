import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from mimic3_raw import CHART, tables, write

from benchmarks.mimic3_tables import ROWS, write_events, write_tables
from imputune.config import Mimic3
from imputune.data.cohort import Cohort, cohort_hash, read_cohort, write_cohort
from imputune.data.mimic3.extraction import extract_mimic3
from imputune.data.mimic3.variables import VARIABLES
from imputune.errors import UserError

RULES = Mimic3(minimum_age=18, minimum_hours=48, transfers="keep", memory_gib=0.5)


def extract(raw: Path, home: Path, **rules: object) -> Cohort:
    """Extract with the usual rules, or others."""
    return extract_mimic3(raw, RULES.model_copy(update=rules), home, threads=2)


def cell(cohort: Cohort, stay: int, hour: int, name: str) -> float:
    """One value by position of stay and hour and by name, as written in decimals."""
    return round(float(cohort.values_NTD[stay, hour, cohort.variable_names.index(name)]), 4)


def observed(cohort: Cohort, stay: int, name: str) -> dict[int, float]:
    """A stay's observed hours of a variable."""
    values_T = cohort.values_NTD[stay, :, cohort.variable_names.index(name)]
    return {int(hour): round(float(values_T[hour]), 4) for hour in np.flatnonzero(~np.isnan(values_T))}


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """The cohort of the tables written by hand."""
    return extract(write(tmp_path / "raw", tables()), tmp_path / "data")


def test_stays_by_rule(cohort: Cohort) -> None:
    """Every stay left out is counted once, under the first rule that it breaks."""
    assert cohort.source_ids_N is not None
    assert cohort.source_ids_N.tolist() == [301, 302, 309]
    assert cohort.stay_ids_N.tolist() == [1, 2, 3]
    assert cohort.died_N.tolist() == [0, 1, 0]
    assert cohort.source["exclusions"] == {
        "without a patient or admission": 1,
        "without times of entry and leave": 1,
        "younger than 18": 1,
        "not the patient's first ICU stay": 1,
        "shorter than 48 hours": 1,
        "without a measurement": 1,
    }
    assert cohort.source["stays_read"] == 9


def test_rules_of_params(tmp_path: Path) -> None:
    """Age, length and transfers are asked for as params.yaml says."""
    raw = write(tmp_path / "raw", tables())
    stricter = extract(raw, tmp_path, minimum_age=51, minimum_hours=49, transfers="leave_out")
    assert stricter.source_ids_N is not None
    assert stricter.source_ids_N.tolist() == [302]
    assert stricter.source["exclusions"]["younger than 51"] == 3
    assert stricter.source["exclusions"]["shorter than 49 hours"] == 2
    unmoved = extract(raw, tmp_path, transfers="leave_out").source
    assert unmoved["exclusions"]["with a transfer between units"] == 1
    younger = extract(raw, tmp_path, minimum_age=10)
    assert younger.source["exclusions"] == cohort_exclusions(younger_than=10)


def cohort_exclusions(younger_than: int) -> dict[str, int]:
    """The counts where the child is old enough, which then has no measurement."""
    return {
        "without a patient or admission": 1,
        "without times of entry and leave": 1,
        f"younger than {younger_than}": 0,
        "not the patient's first ICU stay": 1,
        "shorter than 48 hours": 1,
        "without a measurement": 2,
    }


def test_hourly_means_by_value(cohort: Cohort) -> None:
    """Hours begin at the entry; repeated rows count once; text, errors and other admissions do not count."""
    assert observed(cohort, 0, "heart_rate") == {0: 85, 1: 85, 6: 71, 8: 73, 47: 66}
    assert observed(cohort, 1, "heart_rate") == {0: 75}
    assert observed(cohort, 2, "heart_rate") == {0: 60}


def test_units_by_value(cohort: Cohort) -> None:
    """Fahrenheit, pounds, inches, fractions, litres and micrograms become the variable's unit."""
    assert observed(cohort, 0, "temperature") == {2: 37.5}
    assert observed(cohort, 1, "temperature") == {0: 38.5}
    assert observed(cohort, 0, "weight") == {0: 69.8532}
    assert observed(cohort, 0, "height") == {0: 177.8}
    assert observed(cohort, 0, "inspired_oxygen") == {0: 50}
    assert observed(cohort, 0, "urine_output") == {1: 150, 2: 200}
    assert observed(cohort, 0, "norepinephrine") == {0: 0.5}


def test_last_and_labs_by_value(cohort: Cohort) -> None:
    """A score is the hour's latest, the highest of several at one time; labs count without an admission too."""
    assert (cell(cohort, 0, 0, "gcs_motor"), cell(cohort, 0, 0, "gcs_eye")) == (5, 4)
    assert observed(cohort, 0, "potassium") == {0: 4.25}
    assert observed(cohort, 0, "lactate") == {}


def test_infusions_are_divided_over_their_hours(cohort: Cohort) -> None:
    """An infusion gives each hour its share, before and after the 48 hours too; a bolus is in its hour."""
    assert observed(cohort, 1, "sodium_chloride") == {0: 100, 1: 140, 5: 30, 47: 30}
    assert observed(cohort, 0, "sodium_chloride") == {0: 100}


def test_dropped_rows_are_counted(cohort: Cohort) -> None:
    """Each row of the stays' hours that does not count has its reason."""
    assert cohort.source["rows_dropped"] == {
        "marked as an error or rewritten": 4,
        "without a number": 3,
        "in another unit": 2,
        "out of the accepted range": 1,
        "repeating another": 1,
    }
    assert int(cohort.observed_NTD.sum()) == 23


def test_descriptors(cohort: Cohort) -> None:
    """Age in full years, at most 90; sex, care unit, and the first height and weight."""
    rows = cohort.descriptors.round(2).replace({np.nan: None})
    assert rows["age_years"].tolist() == [50, 90, 60]
    assert rows["gender"].tolist() == [0, 1, 1]
    assert rows["icu_type"].tolist() == [1, 4, 1]
    assert rows["height_cm"].tolist() == [177.8, None, None]
    assert rows["weight_kg"].tolist() == [69.85, None, None]


@pytest.mark.parametrize(("suffix", "lower"), [(".csv", False), (".csv", True), (".csv.gz", True)])
def test_plain_and_lower_case_tables_give_the_same_bytes(tmp_path: Path, suffix: str, lower: bool) -> None:
    """Packed or not, whatever the case of names, the cohort is the same file by file, and can be read back."""
    folders = []
    for name, how in (("one", {}), ("two", {"suffix": suffix, "lower": lower})):
        raw = write(tmp_path / name, tables(), **how)
        folders.append(tmp_path / "out" / name)
        write_cohort(extract(raw, tmp_path), folders[-1])
    assert cohort_hash(folders[0]) == cohort_hash(folders[1])
    read = read_cohort(folders[0])
    assert read.source_ids_N is not None
    assert read.source_ids_N.tolist() == [301, 302, 309]


def test_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    """The same rows in another order give the same bytes."""
    first = extract(write(tmp_path / "one", tables()), tmp_path)
    reversed_tables = {name: rows[::-1] for name, rows in tables().items()}
    second = extract(write(tmp_path / "two", reversed_tables), tmp_path)
    assert first.values_NTD.tobytes() == second.values_NTD.tobytes()
    assert first.descriptors.equals(second.descriptors)


def test_no_stay_left(tmp_path: Path) -> None:
    """Rules that nobody keeps are an error with the counts; so are stays without any measurement."""
    raw = write(tmp_path / "raw", tables())
    with pytest.raises(
        UserError, match=r"none of the 9 ICU stays is left \(.*7 younger than 400.*\): check the tables"
    ):
        extract(raw, tmp_path, minimum_age=400)
    no_events = {
        name: [row for row in rows if name in KEPT] or [CHART | {"ITEMID": 0}] for name, rows in tables().items()
    }
    for name in ("LABEVENTS", "OUTPUTEVENTS", "INPUTEVENTS_CV", "INPUTEVENTS_MV"):
        no_events[name] = [dict(tables()[name][0]) | {"ITEMID": 0}]
    with pytest.raises(UserError, match=r"none of the 9 .*4 without a measurement"):
        extract(write(tmp_path / "other", no_events), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "raw"]


KEPT = {"PATIENTS", "ADMISSIONS", "ICUSTAYS", "D_ITEMS", "D_LABITEMS"}


def test_repeated_key(tmp_path: Path) -> None:
    """A table that names a stay twice would count it twice, and is refused."""
    doubled = tables()
    doubled["ICUSTAYS"].append(doubled["ICUSTAYS"][0])
    with pytest.raises(UserError, match=r"ICUSTAYS.csv.gz has 1 rows without a ICUSTAY_ID of their own"):
        extract(write(tmp_path / "raw", doubled), tmp_path)


def test_disk_too_small_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the temporary files may not fit, one line says how much is needed, and nothing is left."""
    raw = write(tmp_path / "raw", tables())
    monkeypatch.setattr(
        "imputune.data.mimic3.extraction.shutil.disk_usage", lambda path: os.statvfs_result, raising=True
    )
    monkeypatch.setattr(
        "imputune.data.mimic3.extraction.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})
    )
    with pytest.raises(UserError, match=r"temporary files may take .* GiB and .* has 0.0 free: free the disk"):
        extract(raw, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
from imputune.config import Mimic3
from imputune.data.mimic3.extraction import extract_mimic3
from imputune.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
rules = Mimic3(minimum_age=18, minimum_hours=48, transfers="keep", memory_gib=0.5)
try:
    extract_mimic3(Path(sys.argv[1]), rules, Path(sys.argv[2]), 2)
except UserError as error:
    print(error)
"""


def test_disk_full_on_the_way(generated: Path, tmp_path: Path) -> None:
    """Where the system refuses to let the temporary files grow, one line says so, and they are removed."""
    words = [sys.executable, "-c", LIMITED, str(generated), str(tmp_path / "data")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert re.fullmatch(r"cannot write temporary files.*: free the disk, or write elsewhere with --out\n", done.stdout)
    assert done.stderr == ""
    assert list((tmp_path / "data").iterdir()) == []


def test_another_extraction_and_what_a_killed_one_left(tmp_path: Path) -> None:
    """Two extractions into one place are refused; what a killed one left is removed by the next."""
    raw = write(tmp_path / "raw", tables())
    scratch = tmp_path / "data/.mimic3.scratch"
    scratch.mkdir(parents=True)
    (scratch / "events.duckdb").write_bytes(b"left over")
    with FileLock(scratch / "lock"), pytest.raises(UserError, match="another `imputune extract mimic3` writes to"):
        extract(raw, tmp_path / "data")
    assert (scratch / "events.duckdb").is_file()
    assert len(extract(raw, tmp_path / "data").died_N) == 3
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of the benchmark's generator, at a thousandth of the full size."""
    folder = tmp_path_factory.mktemp("generated")
    rows = write_tables(folder, 0.001)
    assert rows["chartevents"] == round(ROWS["chartevents"] * 0.001) == 330_712
    return folder


def test_generated_tables(generated: Path, tmp_path: Path) -> None:
    """The generator's tables have both systems and every kind of fault, and give a cohort of every variable."""
    with duckdb.connect() as database:
        rows = f"FROM read_csv('{generated / 'CHARTEVENTS.csv.gz'}')"
        assert database.execute(f"SELECT count(*) {rows}").fetchall() == [(330_712,)]
    cohort = extract(generated, tmp_path)
    assert cohort.observed_NTD.any(axis=(0, 1)).all()
    assert 0 < cohort.died_N.sum() < len(cohort.died_N)
    dropped = dict(cohort.source["rows_dropped"])
    assert dropped.pop("out of the accepted range") == 0
    assert min(dropped.values()) > 0
    low, high = (np.array([getattr(variable, end) for variable in VARIABLES]) for end in ("lowest", "highest"))
    one_value = np.array([variable.combined != "sum" for variable in VARIABLES])
    values_RD = cohort.values_NTD.reshape(-1, len(VARIABLES))
    assert (np.nanmin(values_RD, axis=0) >= low * 0.999).all()
    assert (np.nanmax(values_RD, axis=0) <= high)[one_value].all()


def test_progress_is_told(generated: Path, tmp_path: Path) -> None:
    """The watcher hears of every event table, and at the end of all its bytes."""
    heard: dict[str, tuple[int, int | None]] = {}
    extract_mimic3(generated, RULES, tmp_path, 2, lambda name, came, size: heard.update({name: (came, size)}))
    assert list(heard) == [
        f"{name}.csv.gz" for name in ("CHARTEVENTS", "LABEVENTS", "OUTPUTEVENTS", "INPUTEVENTS_CV", "INPUTEVENTS_MV")
    ]
    assert all(came == size == (generated / name).stat().st_size for name, (came, size) in heard.items())


def test_ctrl_c_ends_it_and_leaves_nothing(generated: Path, tmp_path: Path) -> None:
    """Interrupted while it reads, the command ends with 130 and one line; an earlier cohort stays as it was."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((Path(__file__).parents[2] / name).read_text())
    command = [sys.executable, "-m", "imputune.cli", "extract", "mimic3", "--raw"]
    before = tmp_path / "data/mimic3"
    small = write(tmp_path / "raw", tables())
    assert subprocess.run([*command, str(small)], cwd=tmp_path, capture_output=True, timeout=120).returncode == 0
    digest = cohort_hash(before)
    started = subprocess.Popen([*command, str(generated)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "data/.mimic3.scratch/events.duckdb").exists():
        assert started.poll() is None
        time.sleep(0.001)
    started.send_signal(signal.SIGINT)
    _, told = started.communicate(timeout=60)
    assert (started.returncode, told.count("\n")) == (130, 1)
    assert cohort_hash(before) == digest
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mimic3"]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's real tables, with a CHARTEVENTS generated for its stays from its D_ITEMS."""
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
    return extract(demo, tmp_path_factory.mktemp("demo_data"))


def read(demo: Path, name: str, *times: str) -> pd.DataFrame:
    """One of the demo's tables, by another way than the extractor's."""
    return pd.read_csv(demo / f"{name}.csv.gz", low_memory=False, parse_dates=list(times))


def first_stays(demo: Path) -> pd.DataFrame:
    """The first ICU stay of each patient, where it lasted two days and the patient is an adult, ascending by id."""
    stays = read(demo, "ICUSTAYS", "INTIME", "OUTTIME").sort_values("INTIME").drop_duplicates("SUBJECT_ID")
    birth = stays[["SUBJECT_ID"]].merge(read(demo, "PATIENTS", "DOB"))["DOB"].to_numpy()
    adult = pd.to_datetime(birth) + pd.DateOffset(years=18) <= stays["INTIME"].to_numpy()
    long = stays[adult & (stays["OUTTIME"] - stays["INTIME"] >= pd.Timedelta(hours=48))]
    return long.sort_values("ICUSTAY_ID").merge(read(demo, "ADMISSIONS")[["HADM_ID", "HOSPITAL_EXPIRE_FLAG"]])


def test_demo_stays(demo: Path, demo_cohort: Cohort) -> None:
    """Of the demo's 136 ICU stays those are kept that pandas finds by the same rules, with their outcomes."""
    expected = first_stays(demo)
    assert demo_cohort.source["stays_read"] == 136
    assert demo_cohort.source_ids_N is not None
    assert demo_cohort.source_ids_N.tolist() == expected["ICUSTAY_ID"].tolist()
    assert demo_cohort.died_N.tolist() == expected["HOSPITAL_EXPIRE_FLAG"].tolist()
    assert sum(demo_cohort.source["exclusions"].values()) == 136 - len(expected)


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
    ],
)
def test_demo_cells(
    demo: Path, demo_cohort: Cohort, table: str, value: str, name: str, items: list[int] | None, combined: str
) -> None:
    """Every hour of a variable, in every stay, is what pandas makes of the raw rows."""
    place = demo_cohort.variable_names.index(name)
    wanted = items or [item.item_id for item in VARIABLES[place].items]
    rows = read(demo, table, "CHARTTIME").merge(
        first_stays(demo)[["SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "INTIME"]], on="SUBJECT_ID", suffixes=("", "_STAY")
    )
    rows = rows[rows["ITEMID"].isin(wanted) & (rows["HADM_ID"].isna() | (rows["HADM_ID"] == rows["HADM_ID_STAY"]))]
    if "ERROR" in rows:
        rows = rows[rows["ERROR"] != 1]
    rows = rows.assign(hour=(rows["CHARTTIME"] - rows["INTIME"]) // pd.Timedelta(hours=1))
    rows = rows[(rows["hour"] >= 0) & (rows["hour"] < 48) & rows[value].notna()]
    rows = rows[(rows[value] >= VARIABLES[place].lowest) & (rows[value] <= VARIABLES[place].highest)]
    stay = "ICUSTAY_ID_STAY" if "ICUSTAY_ID_STAY" in rows else "ICUSTAY_ID"
    rows = rows.drop_duplicates([stay, "ITEMID", "CHARTTIME", value])
    expected = rows.groupby([stay, "hour"])[value].agg(combined)
    assert demo_cohort.source_ids_N is not None
    stays_N = demo_cohort.source_ids_N
    by_carevue = first_stays(demo).query("DBSOURCE == 'carevue'")["ICUSTAY_ID"]
    read_here = set(by_carevue if table == "INPUTEVENTS_CV" else stays_N)
    observed_NT = ~np.isnan(demo_cohort.values_NTD[:, :, place])
    found = {
        (int(stays_N[n]), int(t)): float(demo_cohort.values_NTD[n, t, place])
        for n, t in np.argwhere(observed_NT)
        if stays_N[n] in read_here
    }
    assert len(found) > 10
    assert found == pytest.approx(expected.to_dict(), rel=1e-5)


def test_demo_infusions(demo: Path, demo_cohort: Cohort) -> None:
    """What MetaVision's saline infusions give in the 48 hours is, in sum, what their times and amounts say."""
    stays = first_stays(demo)[["SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "INTIME"]]
    rows = read(demo, "INPUTEVENTS_MV", "STARTTIME", "ENDTIME").drop(columns="ICUSTAY_ID")
    rows = rows[(rows["ITEMID"] == 225158) & (rows["STATUSDESCRIPTION"] != "Rewritten")].merge(stays)
    rows = rows.drop_duplicates(["ICUSTAY_ID", "STARTTIME", "ENDTIME", "AMOUNT"])
    end = rows["INTIME"] + pd.Timedelta(hours=48)
    inside = rows["ENDTIME"].clip(upper=end) - rows["STARTTIME"].clip(lower=rows["INTIME"])
    share = (inside / (rows["ENDTIME"] - rows["STARTTIME"])).clip(lower=0)
    place = demo_cohort.variable_names.index("sodium_chloride")
    assert demo_cohort.source_ids_N is not None
    given = rows["ICUSTAY_ID"].isin(demo_cohort.source_ids_N)
    total_N = np.nansum(demo_cohort.values_NTD[:, :, place], axis=1)
    metavision = np.isin(demo_cohort.source_ids_N, rows["ICUSTAY_ID"])
    assert total_N[metavision].sum() == pytest.approx((rows["AMOUNT"] * share)[given].sum(), rel=1e-5)
