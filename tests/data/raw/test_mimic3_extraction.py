import gzip
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest
from filelock import FileLock

from benchmarks.mimic3_tables import ROWS, write_tables
from imputune.data.cohort import Cohort, cohort_hash, read_cohort, write_cohort
from imputune.data.raw.mimic3.extraction import Mimic3Source, extract_mimic3
from imputune.data.raw.mimic3.variables import VARIABLES
from imputune.data.window import Window
from imputune.errors import UserError
from mimic3_raw import RULES, Row, chart, tables, write
from projects import hear_interrupts

pytestmark = pytest.mark.slow


def extract(raw: Path, home: Path, **rules: object) -> Cohort:
    """Extract with the usual rules, or with some of them changed."""
    return extract_mimic3(raw, RULES.model_copy(update=rules), home, threads=2)


def source_of(cohort: Cohort) -> Mimic3Source:
    """Return a cohort's source with its types."""
    return Mimic3Source.model_validate(cohort.source)


def cell(cohort: Cohort, stay: int, hour: int, name: str) -> float:
    """Return the value of a variable in a stay's hour, rounded."""
    return round(float(cohort.values_NTD[stay, hour, cohort.variable_names.index(name)]), 4)


def observed(cohort: Cohort, stay: int, name: str) -> dict[int, float]:
    """Return the observed hours of a variable in a stay, with their values."""
    values_T = cohort.values_NTD[stay, :, cohort.variable_names.index(name)]
    return {int(hour): round(float(values_T[hour]), 4) for hour in np.flatnonzero(~np.isnan(values_T))}


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """The cohort of the hand-written tables."""
    return extract(write(tmp_path / "raw", tables()), tmp_path / "data")


def test_stays_by_rule(cohort: Cohort) -> None:
    """Every stay that is left out is counted once, for the first rule that it breaks."""
    assert cohort.source_ids_N is not None
    assert cohort.source_ids_N.tolist() == [301, 302, 309]
    assert cohort.stay_ids_N.tolist() == [1, 2, 3]
    assert cohort.outcome_N.tolist() == [0, 1, 0]
    assert source_of(cohort).exclusions == {
        "without a patient or admission": 1,
        "without times of entry and exit": 2,
        "younger than 18": 1,
        "not the patient's first ICU stay": 1,
        "shorter than 48 hours": 1,
        "without a measurement": 1,
    }
    assert source_of(cohort).stays_read == 10


def test_rules_of_params(tmp_path: Path) -> None:
    """The rules on age, length and transfers follow params.yaml."""
    raw = write(tmp_path / "raw", tables())
    stricter = extract(raw, tmp_path, minimum_age=51, minimum_hours=49, transfers="leave_out")
    assert stricter.source_ids_N is not None
    assert stricter.source_ids_N.tolist() == [302]
    assert source_of(stricter).exclusions["younger than 51"] == 3
    assert source_of(stricter).exclusions["shorter than 49 hours"] == 2
    unmoved = source_of(extract(raw, tmp_path, transfers="leave_out")).exclusions
    assert unmoved["with a transfer between units"] == 1
    younger = source_of(extract(raw, tmp_path, minimum_age=10)).exclusions
    assert (younger["younger than 10"], younger["without a measurement"]) == (0, 2)


def test_hourly_means_by_value(cohort: Cohort) -> None:
    """Hours start at ICU admission; repeated rows count once; text, errors and other admissions do not count."""
    assert observed(cohort, 0, "heart_rate") == {0: 85, 1: 85, 6: 71, 8: 73, 47: 66}
    assert observed(cohort, 1, "heart_rate") == {0: 75}
    assert observed(cohort, 2, "heart_rate") == {0: 60}
    assert [observed(cohort, stay, "oxygen_saturation") for stay in range(3)] == [{}, {}, {}]


def test_units_by_value(cohort: Cohort) -> None:
    """Fahrenheit, pounds, inches, fractions, litres and micrograms are converted to the variable's unit."""
    assert observed(cohort, 0, "temperature") == {2: 37.5}
    assert observed(cohort, 1, "temperature") == {0: 38.5}
    assert observed(cohort, 0, "weight") == {0: 69.8532}
    assert observed(cohort, 0, "height") == {0: 177.8}
    assert observed(cohort, 0, "inspired_oxygen") == {0: 50}
    assert observed(cohort, 0, "urine_output") == {1: 150, 2: 200}
    assert observed(cohort, 0, "norepinephrine") == {0: 0.5}


def test_last_and_labs_by_value(cohort: Cohort) -> None:
    """A score is the latest of the hour, the highest of several at one time; labs also count without an admission."""
    assert (cell(cohort, 0, 0, "gcs_motor"), cell(cohort, 0, 0, "gcs_eye")) == (5, 4)
    assert observed(cohort, 0, "potassium") == {0: 4.25}
    assert observed(cohort, 0, "lactate") == {}


def test_infusions_are_divided_over_their_hours(cohort: Cohort) -> None:
    """Each hour has its part of an infusion, also if that starts or ends outside the 48 hours; equal orders are two."""
    assert observed(cohort, 1, "sodium_chloride") == {0: 100, 1: 180, 5: 30, 47: 30}
    assert observed(cohort, 0, "sodium_chloride") == {0: 100, 2: 40}
    assert observed(cohort, 1, "packed_red_cells") == {}


def test_dropped_rows_are_counted(cohort: Cohort) -> None:
    """Each row of the stays' hours that does not count is counted by reason."""
    assert source_of(cohort).rows_dropped == {
        "marked as an error or rewritten": 4,
        "without a number": 3,
        "in another unit": 2,
        "out of the accepted range": 1,
        "ending before they begin, or without an end": 1,
        "repeating another": 3,
    }
    assert int(cohort.observed_NTD.sum()) == 24


def test_static(cohort: Cohort) -> None:
    """Age in full years, at most 90; sex, care unit, and the first height and weight."""
    rows = cohort.static.round(2).replace({np.nan: None})
    assert rows["age_years"].tolist() == [50, 90, 60]
    assert rows["gender"].tolist() == [0, 1, 1]
    assert rows["icu_type"].tolist() == [1, 4, 1]
    assert rows["height_cm"].tolist() == [177.8, None, None]
    assert rows["weight_kg"].tolist() == [69.85, None, None]


@pytest.mark.parametrize(("suffix", "lower"), [(".csv", False), (".csv", True), (".csv.gz", True)])
def test_plain_and_lower_case_tables_give_the_same_bytes(tmp_path: Path, suffix: str, lower: bool) -> None:
    """Packed or not, in upper or lower case, the tables give the same files, which can be read back."""
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
    assert first.static.equals(second.static)


def test_no_stay_left(tmp_path: Path) -> None:
    """If all stays break a rule or have no measurement, the error has the counts."""
    raw = write(tmp_path / "raw", tables())
    with pytest.raises(UserError, match=r"all 10 ICU stays were left out \(.*7 younger than 400.*\): check the tables"):
        extract(raw, tmp_path, minimum_age=400)
    events = ("CHARTEVENTS", "LABEVENTS", "OUTPUTEVENTS", "INPUTEVENTS_CV", "INPUTEVENTS_MV")
    not_read = {name: [dict(tables()[name][-1]) | {"ITEMID": 0}] for name in events}
    with pytest.raises(UserError, match=r"all 10 ICU stays were left out .*4 without a measurement"):
        extract(write(tmp_path / "other", tables() | not_read), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "raw"]


def test_outcomes_without_two_values_are_told(tmp_path: Path) -> None:
    """One line for each outcome that the cohort cannot have: labels of one value, or columns that ADMISSIONS lacks."""
    notes: list[str] = []
    cohort = extract_mimic3(write(tmp_path / "raw", tables()), RULES, tmp_path / "data", 2, note=notes.append)
    assert list(cohort.outcomes) == ["in_hospital_death", "los_over_3_days"]
    assert notes == [
        "los_over_7_days is no outcome of this cohort: its labels have one value only",
        "readmission_within_30_days is no outcome of this cohort: no stay has a label (ADMISSIONS needs SUBJECT_ID, "
        "ADMITTIME and DISCHTIME)",
    ]


def with_hospital_times(left: str) -> dict[str, list[Row]]:
    """Return the tables with times in ADMISSIONS; the patient of stay 309 left the hospital at `left`."""
    later = tables()
    times = {"ADMITTIME": "2150-03-01 08:00:00", "DISCHTIME": "2150-05-01 10:00:00"}
    later["ADMISSIONS"] = [
        row | times | ({"DISCHTIME": left} if row["HADM_ID"] == 19 else {}) for row in later["ADMISSIONS"]
    ]
    # in the last second of stay 309, and on the ward after it
    moved = {"SUBJECT_ID": 8, "HADM_ID": 19}
    later["CHARTEVENTS"] += [
        chart(time, 211, value, **moved) for time, value in (("03 09:59:59", 62), ("03 10:00:00", 64))
    ]
    return later


def test_a_shorter_window_in_longer_bins(tmp_path: Path) -> None:
    """By hand: means, sums and infusions of bins of two hours in the first day; the dataset has a name of its own."""
    raw, window = write(tmp_path / "raw", tables()), Window(hours=24, bin_hours=2)
    cohort = extract_mimic3(raw, RULES, tmp_path / "data", 2, window=window)
    assert (cohort.dataset, cohort.window, cohort.values_NTD.shape) == ("mimic3_24h_by_2h", window, (3, 12, 89))
    assert observed(cohort, 0, "heart_rate") == {0: 85, 3: 71, 4: 73}
    assert observed(cohort, 0, "urine_output") == {0: 150, 1: 200}
    assert observed(cohort, 1, "sodium_chloride") == {0: 280, 2: 30}
    assert observed(cohort, 0, "gcs_motor") == {0: 5}
    assert cohort.source["command"] == "imputune extract mimic3 --hours 24 --bin-hours 2"
    assert cohort.source["records"] == "mimic3"
    write_cohort(cohort, tmp_path / "day")
    assert read_cohort(tmp_path / "day").window == window


def test_stays_shorter_than_the_window(tmp_path: Path) -> None:
    """A stay of 48 hours in a window of 72 is kept: what came after its end is not read, and it is counted."""
    raw = write(tmp_path / "raw", with_hospital_times("2150-03-09 10:00:00"))
    notes: list[str] = []
    long = Window(hours=72)
    cohort = extract_mimic3(raw, RULES, tmp_path / "data", 2, note=notes.append, window=long)
    assert cohort.source_ids_N is not None
    assert cohort.source_ids_N.tolist() == [301, 302, 309]
    assert observed(cohort, 0, "heart_rate") == {0: 85, 1: 85, 6: 71, 8: 73, 47: 66, 48: 99}
    assert observed(cohort, 1, "sodium_chloride") == {0: 100, 1: 180, 5: 30, 47: 30, 48: 30}
    assert observed(cohort, 2, "heart_rate") == {0: 60, 47: 62}
    assert source_of(cohort).stays_shorter_than_the_window == 1
    assert notes[0] == (
        "los_over_3_days is no outcome of this cohort: no stay has a label (it is known at hour 72, when the window "
        "ends)"
    )
    assert "los_over_3_days" not in cohort.outcomes


def test_an_outcome_that_is_known_before_the_window_ends(tmp_path: Path) -> None:
    """A stay that ended in the window, with the patient out of hospital by then, is left out and counted."""
    raw = write(tmp_path / "raw", with_hospital_times("2150-03-04 09:59:59"))
    cohort = extract_mimic3(raw, RULES, tmp_path / "data", 2, window=Window(hours=72))
    assert cohort.source_ids_N is not None
    assert cohort.source_ids_N.tolist() == [301, 302]
    assert source_of(cohort).exclusions["with an outcome known before the window ends"] == 1
    lacking = write(tmp_path / "lacking", tables())
    with pytest.raises(UserError, match=r"ADMISSIONS.csv.gz lacks DISCHTIME.* stays under 72 hours cannot be judged"):
        extract_mimic3(lacking, RULES, tmp_path / "data", 2, window=Window(hours=72))
    with pytest.raises(UserError, match="24 hours cannot be divided into bins of 5: give --hours a multiple"):
        extract_mimic3(raw, RULES, tmp_path / "data", 2, window=Window(hours=24, bin_hours=5))


def test_the_usual_window_has_its_earlier_bytes(cohort: Cohort, tmp_path: Path) -> None:
    """A cohort of 48 hours is what it was before there were windows, source.json too."""
    write_cohort(cohort, tmp_path / "usual")
    assert cohort_hash(tmp_path / "usual") == "e5b7465b16d5675adfb13c5e91d70c8d1525856d219427673c17e187ccd0b792"


def test_the_command_with_another_window(earlier: tuple[Path, str]) -> None:
    """The options make a dataset of their own beside the earlier cohort; a folder of another window is refused."""
    project, digest = earlier
    done = subprocess.run([*COMMAND, "raw", "--hours", "24"], cwd=project, capture_output=True, text=True, timeout=120)
    assert "data/mimic3_24h: 3 stays, 1 death" in done.stdout, done.stderr
    assert cohort_hash(project / "data/mimic3") == digest
    words = [*COMMAND, "raw", "--hours", "12", "--out", "data/mimic3"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "data/mimic3 has a cohort of 48 hours with the first outcome in_hospital_death, this one has 12" in (
        done.stderr
    )
    assert cohort_hash(project / "data/mimic3") == digest


def test_repeated_key(tmp_path: Path) -> None:
    """A table with the same stay twice would count it twice, and is refused."""
    doubled = tables()
    doubled["ICUSTAYS"].append(doubled["ICUSTAYS"][0])
    with pytest.raises(
        UserError, match=r"ICUSTAYS.csv.gz repeats a ICUSTAY_ID, or has a row without one: fetch it again"
    ):
        extract(write(tmp_path / "raw", doubled), tmp_path)


def test_free_space_is_checked_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the temporary files may not fit, one line says how much space is needed, and no file is left."""
    raw = write(tmp_path / "raw", tables())
    monkeypatch.setattr(
        "imputune.data.raw.mimic3.extraction.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})
    )
    with pytest.raises(UserError, match=r"temporary files may take .* GiB and .* has 0.0 free: free the disk"):
        extract(raw, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
from imputune.settings.schema import Mimic3
from imputune.data.raw.mimic3.extraction import Mimic3Source, extract_mimic3
from imputune.data.window import Window
from imputune.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
rules = Mimic3(minimum_age=18, minimum_hours=48, transfers="keep", memory_gib=0.5)
try:
    extract_mimic3(Path(sys.argv[1]), rules, Path(sys.argv[2]), 2)
except UserError as error:
    print(error)
"""


def test_disk_full_during_the_extraction(generated: Path, tmp_path: Path) -> None:
    """If the system refuses to write more to the temporary files, one line says so, and they are removed."""
    words = [sys.executable, "-c", LIMITED, str(generated), str(tmp_path / "data")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert re.fullmatch("cannot write temporary files in data/: free the disk\n", done.stdout)
    assert done.stderr == ""
    assert list((tmp_path / "data").iterdir()) == []


def test_another_extraction_and_leftovers_of_a_killed_one(tmp_path: Path) -> None:
    """A second extraction into the same folder is refused; leftovers of a killed one are removed by the next."""
    raw = write(tmp_path / "raw", tables())
    scratch = tmp_path / "data/.mimic3.scratch"
    scratch.mkdir(parents=True)
    (scratch / "events.duckdb").write_bytes(b"left over")
    with FileLock(scratch / "lock"), pytest.raises(UserError, match="another `imputune extract mimic3` writes to"):
        extract(raw, tmp_path / "data")
    assert (scratch / "events.duckdb").is_file()
    with pytest.raises(UserError, match="is not a folder"):
        extract(tmp_path / "no", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    assert len(extract(raw, tmp_path / "data").outcome_N) == 3
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of the benchmark's generator, at a thousandth of the full size."""
    folder = tmp_path_factory.mktemp("generated")
    rows = write_tables(folder, 0.001)
    assert rows["chartevents"] == round(ROWS["chartevents"] * 0.001) == 330_712
    return folder


def test_generated_tables(generated: Path, tmp_path: Path) -> None:
    """The generated tables have both systems and every kind of fault, and give a cohort with every variable."""
    with duckdb.connect() as database:
        rows = f"FROM read_csv('{generated / 'CHARTEVENTS.csv.gz'}')"
        assert database.execute(f"SELECT count(*) {rows}").fetchall() == [(330_712,)]
    cohort = extract(generated, tmp_path)
    assert cohort.observed_NTD.any(axis=(0, 1)).all()
    assert 0 < cohort.outcome_N.sum() < len(cohort.outcome_N)
    dropped = dict(source_of(cohort).rows_dropped)
    assert dropped.pop("out of the accepted range") == 0
    assert dropped.pop("ending before they begin, or without an end") == 0
    assert min(dropped.values()) > 0
    low, high = (np.array([getattr(variable, end) for variable in VARIABLES]) for end in ("lowest", "highest"))
    one_value = np.array([variable.combined != "sum" for variable in VARIABLES])
    values_RD = cohort.values_NTD.reshape(-1, len(VARIABLES))
    assert (np.nanmin(values_RD, axis=0) >= low * 0.999).all()
    assert (np.nanmax(values_RD, axis=0) <= high)[one_value].all()


def test_progress_is_reported(generated: Path, tmp_path: Path) -> None:
    """Progress is reported for every event table, at the end with all its bytes."""
    reported: dict[str, tuple[int, int | None]] = {}
    extract_mimic3(generated, RULES, tmp_path, 2, lambda name, done, size: reported.update({name: (done, size)}))
    assert list(reported) == [
        f"{name}.csv.gz" for name in ("CHARTEVENTS", "LABEVENTS", "OUTPUTEVENTS", "INPUTEVENTS_CV", "INPUTEVENTS_MV")
    ]
    assert all(done == size == (generated / name).stat().st_size for name, (done, size) in reported.items())


@pytest.fixture
def earlier(tmp_path: Path) -> tuple[Path, str]:
    """A project with a cohort of the hand-written tables, and the cohort's hash."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((Path(__file__).parents[3] / name).read_text())
    small = write(tmp_path / "raw", tables())
    assert subprocess.run([*COMMAND, str(small)], cwd=tmp_path, capture_output=True, timeout=120).returncode == 0
    return tmp_path, cohort_hash(tmp_path / "data/mimic3")


COMMAND = [sys.executable, "-m", "imputune.cli", "extract", "mimic3", "--raw"]


def test_ctrl_c_stops_it_and_leaves_nothing(generated: Path, earlier: tuple[Path, str]) -> None:
    """Interrupted while it reads, the command exits with 130 and one line; an earlier cohort stays as it was."""
    project, digest = earlier
    shutil.copytree(generated, project / "long")
    packed = generated / "CHARTEVENTS.csv.gz"
    header, _, rows = gzip.decompress(packed.read_bytes()).partition(b"\n")
    (project / "long" / packed.name).write_bytes(gzip.compress(header + b"\n") + 20 * gzip.compress(rows, 1))
    started = subprocess.Popen(
        [*COMMAND, "long"], cwd=project, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
    while not (project / "data/.mimic3.scratch/events.duckdb").exists():
        assert started.poll() is None
        time.sleep(0.01)
    time.sleep(1)
    assert started.poll() is None
    started.send_signal(signal.SIGINT)
    _, printed = started.communicate(timeout=60)
    assert (started.returncode, printed.count("\n")) == (130, 1)
    assert cohort_hash(project / "data/mimic3") == digest
    assert [path.name for path in (project / "data").iterdir()] == ["mimic3"]


def test_bad_tables_leave_an_earlier_cohort(earlier: tuple[Path, str]) -> None:
    """After a truncated table, and after rules that every stay breaks, the earlier cohort is unchanged."""
    project, digest = earlier
    path = project / "raw/CHARTEVENTS.csv.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    done = subprocess.run([*COMMAND, "raw"], cwd=project, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    path.write_bytes(content)
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("minimum_hours: 48", "minimum_hours: 4800"))
    done = subprocess.run([*COMMAND, "raw"], cwd=project, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "all 10 ICU stays were left out" in done.stderr
    assert cohort_hash(project / "data/mimic3") == digest
    assert [path.name for path in (project / "data").iterdir()] == ["mimic3"]


def test_threads_change_nothing(generated: Path, tmp_path: Path) -> None:
    """One thread and four give the same bytes."""
    one, four = (extract_mimic3(generated, RULES, tmp_path, threads) for threads in (1, 4))
    assert one.values_NTD.tobytes() == four.values_NTD.tobytes()
    assert one.source == four.source
