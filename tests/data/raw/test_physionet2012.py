import gzip
import hashlib
import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.data.cohort import Cohort, Variable
from imputune.data.cohort_facts import describe
from imputune.data.raw.binning import totals
from imputune.data.raw.outcomes import further_outcomes
from imputune.data.raw.physionet2012 import ChallengeSource, bin_long_table, extract_physionet2012
from imputune.data.raw.physionet2012_parameters import VARIABLES
from imputune.data.raw.records import RecordSet
from imputune.errors import UserError

HEAD = (
    "Time,Parameter,Value\n00:00,RecordID,{id}\n00:00,Age,54\n00:00,Gender,0\n00:00,Height,-1\n"
    "00:00,ICUType,4\n00:00,Weight,80.5\n"
)
OUTCOMES = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n11,6,1,5,-1,0\n12,16,8,8,7,1\n"
VALUES_11 = "00:07,HR,73\n00:59,HR,78\n01:00,HR,80\n47:59,Temp,36.6\n48:00,HR,200\n48:05,Weight,81\n01:30,Temp,-17.8\n"
VALUES_12 = "02:00,Weight,90\n02:00,MechVent,1\n03:00,pH,7.31\n"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with set a: two hand-written stays; the second patient died."""
    write_set(tmp_path, {"11": HEAD.format(id=11) + VALUES_11, "12": HEAD.format(id=12) + VALUES_12}, OUTCOMES)
    return tmp_path


def write_set(folder: Path, records: dict[str, str], outcomes: str, letter: str = "a") -> None:
    """Write records by file name, and outcomes, as a set of the challenge."""
    (folder / f"set-{letter}").mkdir()
    for name, text in records.items():
        (folder / f"set-{letter}" / f"{name}.txt").write_bytes(text.encode())
    (folder / f"Outcomes-{letter}.txt").write_text(outcomes)


def pack(folder: Path) -> Path:
    """Create the archive of set a beside its folder."""
    with tarfile.open(folder / "set-a.tar.gz", "w:gz") as tar:
        tar.add(folder / "set-a", arcname="set-a")
    return folder / "set-a.tar.gz"


def cell(cohort: Cohort, stay: int, hour: int, name: str) -> float:
    """Return the value of a variable in a stay's hour."""
    return float(cohort.values_NTD[stay, hour, cohort.variable_names.index(name)])


def source_of(cohort: Cohort) -> ChallengeSource:
    """Return a cohort's source with its types."""
    return ChallengeSource.model_validate(cohort.source)


def message(raw: Path, sets: tuple[str, ...] = ("a",)) -> str:
    """Return the one-line error for this input."""
    with pytest.raises(UserError) as caught:
        extract_physionet2012(raw, sets)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_hourly_means_by_value(raw: Path) -> None:
    """Each cell has the mean of its full hour, and nothing else is observed."""
    cohort = extract_physionet2012(raw, ("a",))
    assert cohort.values_NTD.shape == (2, 48, 35)
    assert cell(cohort, 0, 0, "HR") == 75.5
    assert cell(cohort, 0, 1, "HR") == 80
    assert cell(cohort, 0, 47, "Temp") == np.float32(36.6)
    assert cell(cohort, 1, 3, "pH") == np.float32(7.31)
    assert cohort.observed_NTD.sum() == 4
    assert cohort.stay_ids_N.tolist() == [11, 12]
    assert cohort.outcome_N.tolist() == [0, 1]


def test_every_row_read_is_used_or_counted(raw: Path) -> None:
    """Dropped rows are counted by reason; with the five used rows they add up to the rows read."""
    source = source_of(extract_physionet2012(raw, ("a",)))
    assert source.rows_dropped == {
        "no parameter name": 0,
        "not one of the variables": 12 + 3,
        "after hour 48": 1,
        "negative value": 1,
    }
    assert source.rows_read == 5 + sum(source.rows_dropped.values())


def test_static_data_are_those_at_admission(raw: Path) -> None:
    """Static data come from 00:00, a later weight does not replace the first, and -1 means unknown."""
    static = extract_physionet2012(raw, ("a",)).static
    assert static["weight_kg"].tolist() == [80.5, 80.5]
    assert static["age_years"].tolist() == [54, 54]
    assert static["gender"].tolist() == [0, 0]
    assert static["icu_type"].tolist() == [4, 4]
    assert static["height_cm"].isna().all()


def test_stays_without_measurements_are_counted(raw: Path) -> None:
    """A stay with only late, negative or other rows is left out and counted."""
    (raw / "set-a" / "11.txt").write_text(HEAD.format(id=11) + "48:00,HR,90\n03:00,Temp,-1\n03:00,MechVent,1\n")
    cohort = extract_physionet2012(raw, ("a",))
    assert cohort.stay_ids_N.tolist() == [12]
    assert source_of(cohort).exclusions == {"no measurements": 1}
    assert len(cohort.static) == 1
    (raw / "set-a" / "12.txt").write_text(HEAD.format(id=12))
    assert "no measurements in any of the 2 records" in message(raw)


def test_archive_and_folder_give_the_same_cohort(raw: Path) -> None:
    """The archive, its folder, and the folder above give the same cohort; the source says which was read."""
    from_folder = extract_physionet2012(raw / "set-a", ("a",))
    archive = pack(raw)
    for start in (raw, archive):
        cohort = extract_physionet2012(start, ("a",))
        np.testing.assert_array_equal(cohort.values_NTD, from_folder.values_NTD)
        assert source_of(cohort).sha256 == {
            "set-a.tar.gz": hashlib.sha256(archive.read_bytes()).hexdigest(),
            "Outcomes-a.txt": hashlib.sha256((raw / "Outcomes-a.txt").read_bytes()).hexdigest(),
        }
    assert list(source_of(from_folder).sha256) == ["set-a/", "Outcomes-a.txt"]
    assert str(raw) not in str(from_folder.source)
    assert source_of(from_folder).command == "imputune extract physionet2012 --sets a"


def test_sets_join_in_the_order_of_ids(raw: Path) -> None:
    """Two sets form one cohort, ascending by id, each stay with its own outcome."""
    outcomes = OUTCOMES.splitlines()[0] + "\n5,1,1,1,1,1\n"
    write_set(raw, {"5": HEAD.format(id=5) + "00:10,HR,61\n"}, outcomes, letter="b")
    cohort = extract_physionet2012(raw, ("b", "a"))
    assert cohort.stay_ids_N.tolist() == [5, 11, 12]
    assert cohort.outcome_N.tolist() == [1, 0, 1]
    assert cell(cohort, 0, 0, "HR") == 61
    assert source_of(cohort).command.endswith("--sets a,b")


def test_windows_line_ends_change_nothing(raw: Path) -> None:
    """A record with carriage returns gives the same values as without."""
    expected = extract_physionet2012(raw, ("a",)).values_NTD
    path = raw / "set-a" / "11.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(extract_physionet2012(raw, ("a",)).values_NTD, expected)


def test_a_row_without_parameter_is_dropped_and_counted(raw: Path) -> None:
    """A row with an empty parameter name, with or without a value, is not a measurement."""
    path = raw / "set-a" / "12.txt"
    path.write_text(path.read_text() + "04:00,,\n05:00,,-1\n")
    cohort = extract_physionet2012(raw, ("a",))
    assert source_of(cohort).rows_dropped["no parameter name"] == 2
    assert cohort.observed_NTD.sum() == 4


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("03:00,HR", "2 fields"),
        ("03:00,HR,70,5", "4 fields"),
        ("", "1 fields"),
        ("03:00,HR,abc", "value 'abc' is not a number"),
        ("03:00,HR,", "value '' is not a number"),
        ("03:00,HR,nan", "value 'nan' is not a number"),
        ("03:00,HR,inf", "value 'inf' is not a number"),
        ("03:00,Hr,70", "unknown parameter 'Hr' (did you mean 'HR'?)"),
        ("03:00,Lactat,2", "unknown parameter 'Lactat' (did you mean 'Lactate'?)"),
        ("25:99,HR,70", "time '25:99' is not HH:MM"),
        ("3:00,HR,70", "time '3:00' is not HH:MM"),
        (",HR,70", "time '' is not HH:MM"),
        ("-1:00,HR,70", "time '-1:00' is not HH:MM"),
        ('03:00,"HR,70', "unknown parameter"),
    ],
)
def test_a_broken_line_is_named(raw: Path, line: str, cause: str) -> None:
    """The error names the file, the line, the cause and a remedy."""
    path = raw / "set-a" / "12.txt"
    path.write_text(path.read_text() + f"{line}\n04:00,HR,70\n")
    refusal = message(raw)
    assert refusal.startswith(f"set-a/12.txt line 11: {cause}")
    assert "; correct or remove" in refusal or "rename it or remove" in refusal or "; remove its rows, or" in refusal


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "set-a/12.txt line 1: the file is empty"),
        (
            "00:00,RecordID,12\n00:10,HR,70\n",
            "set-a/12.txt line 1: the header Time,Parameter,Value is missing",
        ),
        ("Time,Parameter,Value\n", "set-a/12.txt: no RecordID line"),
        ("Time,Parameter,Value\n00:10,HR,70\n", "set-a/12.txt: no RecordID line"),
        (HEAD.format(id=12.5), "set-a/12.txt line 2: RecordID must be a whole number"),
        (HEAD.format(id=11), "set-a/12.txt line 2: duplicate id 11, already at set-a/11.txt line 2"),
        (HEAD.format(id=13), "Outcomes-a.txt has no line for 1 of the 2 stays of set-a (the first: 13)"),
    ],
)
def test_a_broken_record_is_named(raw: Path, text: str, cause: str) -> None:
    """For an empty file, a missing header or id, a repeated id, and an id without outcome, the error names the file."""
    (raw / "set-a" / "12.txt").write_text(text)
    assert message(raw).startswith(cause)


def test_an_id_in_two_sets_is_named(raw: Path) -> None:
    """The same id in two sets is an error, not two stays."""
    write_set(raw, {"12": HEAD.format(id=12) + VALUES_12}, OUTCOMES, letter="b")
    assert message(raw, ("a", "b")).startswith("set-b/12.txt line 2: duplicate id 12, already at set-a/12.txt line 2")


@pytest.mark.parametrize(
    ("outcomes", "cause"),
    [
        ("", "Outcomes-a.txt line 1: no column RecordID"),
        ("RecordID,Survival\n11,0\n", "Outcomes-a.txt line 1: no column In-hospital_death"),
        (OUTCOMES + "12,1,1,1,1,0\n", "Outcomes-a.txt line 4: duplicate id 12"),
        (OUTCOMES + "13,1\n", "Outcomes-a.txt line 4: 2 fields, not 6"),
        (
            OUTCOMES + "13,1,1,1,1,2\n",
            "Outcomes-a.txt line 4: RecordID '13' and In-hospital_death '2' must be",
        ),
        (OUTCOMES + "x,1,1,1,1,0\n", "Outcomes-a.txt line 4: RecordID 'x' and In-hospital_death '0' must be"),
    ],
)
def test_a_broken_outcomes_file_is_named(raw: Path, outcomes: str, cause: str) -> None:
    """For a wrong header, a broken line and a duplicate id in the outcomes, the error names the line."""
    (raw / "Outcomes-a.txt").write_text(outcomes)
    assert message(raw).startswith(cause)


def test_missing_inputs_are_named(raw: Path, tmp_path: Path) -> None:
    """For a missing folder, set or outcomes file, an empty set and an unknown letter, the error says what to do."""
    assert message(tmp_path / "none").endswith("does not exist; point --raw at the folder with set-a.tar.gz or set-a/")
    assert "holds neither set-b.tar.gz nor set-b/; put one there" in message(raw, ("b",))
    assert message(raw, ("d",)) == "unknown set 'd'; the sets are a, b, c"
    assert "a set must be named once" in message(raw, ("a", "a"))
    (raw / "Outcomes-a.txt").unlink()
    assert "Outcomes-a.txt is missing; put it beside set-a" in message(raw)
    write_set(raw, {}, OUTCOMES, letter="b")
    assert "holds no .txt record" in message(raw, ("b",))


def test_one_set_named_in_raw_must_be_the_wanted_set(raw: Path) -> None:
    """An archive or folder of set b with --sets a is an error, even if set a is beside it."""
    write_set(raw, {"5": HEAD.format(id=5) + "00:10,HR,61\n"}, OUTCOMES.splitlines()[0] + "\n5,1,1,1,1,1\n", letter="b")
    (raw / "set-b.tar.gz").write_bytes(pack(raw).read_bytes())
    for name in ("set-b", "set-b.tar.gz"):
        assert message(raw / name) == f"{raw / name} is set b, not the wanted set a; add --sets b"
        assert "not the wanted set a" in message(raw / name, ("a", "b"))
    assert extract_physionet2012(raw / "set-b", ("b",)).stay_ids_N.tolist() == [5]


def test_a_damaged_archive_is_named(raw: Path) -> None:
    """A truncated archive, another file, and a gzip without tar are errors, not a shorter cohort."""
    archive = pack(raw)
    content = archive.read_bytes()
    inner = gzip.decompress(content)
    for damaged in (
        content[: len(content) // 2],
        b"<html>",
        b"",
        gzip.compress(b"x" * 2000),
        gzip.compress(inner[:2000]),
    ):
        archive.write_bytes(damaged)
        assert "set-a.tar.gz is truncated or not a tar.gz archive" in message(raw)
        assert message(raw).endswith("; download it again")


def test_a_long_table_bins_like_records(raw: Path) -> None:
    """bin_long_table gives the extraction's cells for the given variables, and keeps an empty stay."""
    table = pd.DataFrame(
        {
            "RecordID": [9, 9, 9, 4, 9],
            "Time": ["00:07", "00:59", "48:00", "00:00", "03:00"],
            "Parameter": ["HR", "HR", "HR", "Age", "Temp"],
            "Value": [73, 78, 200, 60, 37],
        }
    )
    stays = bin_long_table(table, (Variable("HR", "beats/min"),))
    values_NTD = stays.values_NTD
    assert stays.stay_ids_N.tolist() == [4, 9]
    assert totals(stays.ignored)["after hour 48"] == 1
    assert values_NTD.shape == (2, 48, 1)
    assert np.isnan(values_NTD[0]).all()
    assert values_NTD[1, 0, 0] == 75.5
    assert np.isnan(values_NTD[1, 1:]).all()


@pytest.mark.parametrize(
    ("column", "value", "cause"),
    [
        ("Time", "25:99", "row 2 of the table: time '25:99'"),
        ("Parameter", "Puls", "row 2 of the table: unknown parameter 'Puls'"),
        ("Value", "high", "row 2 of the table: value 'high' is not a number"),
        ("RecordID", "x", "row 2 of the table: RecordID 'x' is not a whole number"),
    ],
)
def test_a_broken_long_table_names_the_row(column: str, value: str, cause: str) -> None:
    """The error names a row that cannot be read by its number, and a missing column by its name."""
    table = pd.DataFrame(
        {"RecordID": ["9", "9"], "Time": ["00:07"] * 2, "Parameter": ["HR"] * 2, "Value": ["73", "74"]}
    )
    table.loc[1, column] = value
    with pytest.raises(UserError) as caught:
        bin_long_table(table, VARIABLES)
    assert str(caught.value).startswith(cause)
    with pytest.raises(UserError, match=f"the table has no column {column}"):
        bin_long_table(table.drop(columns=column), VARIABLES)


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder of the real challenge files."""
    if "IMPUTUNE_REAL_DATA" not in os.environ:
        pytest.skip("IMPUTUNE_REAL_DATA is not set: no real records to read")
    return Path(os.environ["IMPUTUNE_REAL_DATA"]) / "physionet-2012"


def test_set_a_has_its_known_facts(real_folder: Path) -> None:
    """Set a has its stays, observed cells, deaths, negative values and missing shares."""
    cohort = extract_physionet2012(real_folder, ("a",))
    facts = describe(cohort)
    assert (facts.stays, facts.hours, facts.variables) == (3997, 48, 35)
    assert facts.observed_cells == 1_308_232
    assert facts.events == 554
    assert facts.exclusions == {"no measurements": 3}
    outcomes = {name: (each.labelled, each.events) for name, each in facts.outcomes.items()}
    assert outcomes == {
        "in_hospital_death": (3997, 554),
        "los_over_3_days": (3939, 3742),
        "los_over_7_days": (3939, 2572),
        "one_year_survival": (3968, 2954),
    }
    assert not set(cohort.stay_ids_N.tolist()) & {140501, 140936, 141264}
    assert source_of(cohort).rows_read == 1_757_980
    assert source_of(cohort).rows_dropped["negative value"] == 24
    shares = {"HR": 0.099, "Urine": 0.308, "SysABP": 0.461, "Albumin": 0.988, "TroponinI": 0.998}
    for name, share in shares.items():
        assert facts.missing_share_by_variable[name] == pytest.approx(share, abs=5e-4)


def test_sets_a_and_b_have_their_known_facts(real_folder: Path) -> None:
    """Sets a and b together have 7,990 stays and 554 + 568 deaths."""
    facts = describe(extract_physionet2012(real_folder, ("a", "b")))
    assert facts.stays == 7990
    assert facts.events == 1122


LENGTHS = """RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death
11,6,1,3,-1,0
12,16,8,8,8,1
13,16,8,-1,365,0
14,16,8,1,366,0
15,16,8,4,1,0
16,16,8,x,-1,1
"""


def test_further_outcomes_by_value() -> None:
    """Over 3 and 7 days, survival of more than 365 days; unknown, too early, contradicting and unfit days: no label."""
    notes = list[str]()
    files = RecordSet(name="set-a", records=(), outcomes_name="Outcomes-a.txt", outcomes=LENGTHS.encode(), sha256={})
    table = further_outcomes(files, np.arange(11, 17), notes.append)
    assert table["los_over_3_days"].tolist() == [0, 1, -1, -1, 1, -1]
    assert table["los_over_7_days"].tolist() == [0, 1, -1, -1, 0, -1]
    assert table["one_year_survival"].tolist() == [1, 0, 0, 1, -1, -1]
    assert notes == [
        "3 of 6 stays have no label from Length_of_stay in Outcomes-a.txt: 1 not recorded, "
        "1 under 2 days, so known before hour 48, 1 no whole number",
        "2 of 6 stays have no label from Survival in Outcomes-a.txt: 1 -1 for a death in hospital, "
        "1 under 2 days, so known before hour 48",
    ]


def test_a_file_without_the_columns_has_no_further_outcomes() -> None:
    """In-hospital death alone is enough."""
    content = b"RecordID,In-hospital_death\n11,0\n12,1\n"
    files = RecordSet(name="set-a", records=(), outcomes_name="Outcomes-a.txt", outcomes=content, sha256={})
    assert further_outcomes(files, np.array([11, 12]), print).columns.empty
