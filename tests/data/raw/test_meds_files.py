import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from imputune.data.raw.meds.dataset_files import find_meds
from imputune.data.raw.meds.extraction import Resources, extract_meds
from imputune.data.raw.meds.stays import WindowRules
from imputune.data.raw.meds.suggestion import suggest_variables
from imputune.data.raw.meds.variable_file import read_variable_file
from imputune.errors import UserError
from meds_raw import TYPES, VARIABLES, cells, read_stays, table_of, two_stays, write_meds, write_variables


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    """The line says what is missing, and names a folder that would do."""
    with pytest.raises(UserError, match="is not a folder: point --raw at the folder that has data/"):
        find_meds(tmp_path / "none")
    with pytest.raises(UserError, match="is no MEDS dataset: it has no folder data/; point --raw"):
        find_meds(tmp_path)
    write_meds(tmp_path / "MEDS_cohort", two_stays())
    with pytest.raises(UserError, match=r"no data/ with .parquet files \(did you mean .*/MEDS_cohort\?\)"):
        find_meds(tmp_path)
    with pytest.raises(UserError, match=r"--raw is the folder above data/ \(did you mean .*/MEDS_cohort\?\)"):
        find_meds(tmp_path / "MEDS_cohort/data")
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"no data/ with .parquet files \(did you mean .*/MEDS_cohort\?\)"):
        find_meds(tmp_path)
    (tmp_path / "empty/data").mkdir(parents=True)
    with pytest.raises(UserError, match=r"data/ has no .parquet file; point --raw"):
        find_meds(tmp_path / "empty")


@pytest.mark.parametrize(
    ("column", "kind", "told"),
    [
        ("numeric_value", pa.string(), r"0.parquet: numeric_value must be numbers \(float32\), got text; convert"),
        (
            "time",
            pa.timestamp("us", "Europe/Zurich"),
            "without a time zone, got timestamps of the time zone Europe/Zur",
        ),
        ("time", pa.string(), "time must be timestamps without a time zone, got text; convert the column"),
        ("subject_id", pa.string(), r"subject_id must be whole numbers \(int64\), got text; convert the column"),
        ("code", pa.int64(), "code must be text, got int64; convert the column"),
    ],
)
def test_columns_of_another_type(tmp_path: Path, column: str, kind: pa.DataType, told: str) -> None:
    """A column of another type than the standard's is named, with what it should be."""
    empty = pa.table({name: pa.array([], kind if name == column else right) for name, right in TYPES.items()})
    with pytest.raises(UserError, match=told):
        find_meds(write_meds(tmp_path, empty))


def test_a_suggestion_is_the_same_each_time(tmp_path: Path) -> None:
    """Estimated quantiles do not depend on the number of threads; codes that give an outcome away are not listed."""
    rng = np.random.default_rng(1)
    days = [f"2150-01-01 {hour:02}:{minute:02}:00" for hour in range(24) for minute in range(60)]
    shards = [
        [(subject, day, "HR", float(rng.lognormal(4, 1))) for subject in range(start, start + 3) for day in days]
        + [(start, days[0], "EXPIRED", 1)]
        for start in range(0, 60, 3)
    ]
    raw = write_meds(tmp_path / "raw", *shards)
    texts = {
        suggest_variables(raw, Resources(home=tmp_path / "data", threads=threads))[0] for threads in (1, 4, 4, 4, 4)
    }
    (text,) = texts
    assert [line.split(",")[0] for line in text.splitlines()] == ["name", "hr"]


def test_a_code_with_the_signs_of_patterns(tmp_path: Path) -> None:
    """The suggested codes mean themselves alone, with their asterisks and semicolons; the file is read as it stands."""
    codes = ["GAS*1;A", "GAS*1;B", "GAS\\N", "GASES", "GASX1;A"]
    days = ("2150-03-01 10:05:00", "2150-04-01 10:05:00")
    numbers = [
        (subject, days[subject == 2], code, 7.0 + place) for place, code in enumerate(codes) for subject in range(1, 12)
    ]
    raw = write_meds(tmp_path / "raw", [*two_stays(), *numbers])
    text, _ = suggest_variables(raw, Resources(home=tmp_path / "data"))
    suggested = {row["codes"] for row in csv.DictReader(text.splitlines())}
    assert suggested == {r"GAS\*1\;A", r"GAS\*1\;B", "GAS\\N", "GASES", r"GASX1\;A"}
    stays = read_stays(tmp_path / "again", [*two_stays(), *numbers], variables=text)
    assert [cells(stays, 0, each.name) for each in sorted(stays.variables, key=lambda each: each.name)] == [
        {0: 7.0},
        {0: 8.0},
        {0: 9.0},
        {0: 10.0},
        {0: 11.0},
    ]


def test_a_missing_column_and_a_damaged_file(tmp_path: Path) -> None:
    """A file without a needed column, and one that is cut off, are named."""
    without = table_of(two_stays()).drop_columns(["time"])
    with pytest.raises(
        UserError, match=r"0.parquet lacks the column time \(it has subject_id, code, numeric_value, tex"
    ):
        find_meds(write_meds(tmp_path / "one", without))
    path = write_meds(tmp_path / "two", two_stays(), two_stays()) / "data/train/1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        UserError, match=r"data/train/1.parquet is no parquet file, or damaged: write or fetch it again"
    ):
        find_meds(tmp_path / "two")


def test_damage_inside_a_file(tmp_path: Path) -> None:
    """Damaged pages, which a look at the file's end does not show, are told in one line without a value."""
    raw = write_meds(tmp_path / "raw", two_stays())
    path = raw / "data/train/0.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(bytes(content))
    file = read_variable_file(write_variables(tmp_path))
    with pytest.raises(
        UserError, match=r"^a .parquet file of the dataset is damaged: write or fetch the dataset again$"
    ):
        extract_meds(raw, file, WindowRules(), Resources(home=tmp_path / "data"))


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    """Files without numbers or texts are read, and columns beyond the standard's are ignored."""
    plain = {name: kind for name, kind in TYPES.items() if name in ("subject_id", "time", "code")}
    events = [*two_stays(), (1, "2150-03-01 12:00:00", "VENTILATOR_ON")]
    bare = table_of(events, plain)
    lines = "name,codes,value\nventilated,VENTILATOR_ON,1\n"
    assert cells(read_stays(tmp_path, bare, variables=lines), 0, "ventilated") == {2: 1}
    more = table_of(events).append_column("hadm_id", [list(range(len(events)))])
    assert cells(read_stays(tmp_path / "more", more, table_of([(3, None, "GENDER//F")])), 0, "heart_rate") == {0: 80}


def test_files_without_any_number_or_text(tmp_path: Path) -> None:
    """Columns without a value may have no type: some programs write them so."""
    words = table_of([*two_stays(), (1, "2150-03-01 12:00:00", "EYES", None, "to speech")])
    empty = table_of([(7, None, "GENDER//F")], TYPES | {"numeric_value": pa.null(), "text_value": pa.null()})
    stays = read_stays(tmp_path, empty, words)
    assert (cells(stays, 0, "heart_rate"), cells(stays, 0, "eyes")) == ({0: 80}, {2: 3})
    alone = table_of([*two_stays(), (1, "2150-03-01 12:00:00", "EYES")], TYPES | {"text_value": pa.null()})
    assert cells(read_stays(tmp_path / "alone", alone), 1, "heart_rate") == {0: 90}


def test_other_types_that_hold_the_same(tmp_path: Path) -> None:
    """Milliseconds, categories and 64-bit numbers are read as the standard's types."""
    other = {
        "subject_id": pa.int32(),
        "time": pa.timestamp("ms"),
        "code": pa.dictionary(pa.int32(), pa.string()),
        "numeric_value": pa.float64(),
        "text_value": pa.string(),
    }
    columns = table_of(two_stays())
    table = pa.table({name: columns[name].cast(kind) for name, kind in other.items() if name != "code"})
    table = table.append_column("code", columns["code"].combine_chunks().dictionary_encode())
    assert cells(read_stays(tmp_path, table, variables=VARIABLES), 1, "heart_rate") == {0: 90}


def test_events_without_subject_or_code(tmp_path: Path) -> None:
    """The standard forbids them; they are counted and left alone."""
    events = [*two_stays(), (None, "2150-03-01 12:00:00", "HR//bpm", 60), (1, "2150-03-01 12:00:00", None, 60)]
    stays = read_stays(tmp_path, events)
    assert stays.events.ignored["without a subject or code"] == 2
    assert stays.events.read == len(events)
    assert cells(stays, 0, "heart_rate") == {0: 80}


def test_a_path_with_signs_of_patterns(tmp_path: Path) -> None:
    """A folder's name may have brackets, asterisks and quotation marks."""
    strange = tmp_path / "it's [a] *folder*"
    strange.mkdir()
    assert cells(read_stays(strange, two_stays()), 0, "heart_rate") == {0: 80}
