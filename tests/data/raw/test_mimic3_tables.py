import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from imputune.data.raw.mimic3.extraction import extract_mimic3
from imputune.data.raw.mimic3.tables import find_tables
from imputune.errors import UserError
from mimic3_raw import RULES, Row, tables, write

pytestmark = pytest.mark.slow

MARK = 987654


def message(raw: Path, home: Path) -> str:
    """Return the one-line error for these tables, after checking that no file is left behind."""
    with pytest.raises(UserError) as caught:
        extract_mimic3(raw, RULES, home, 2)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not home.exists() or list(home.iterdir()) == []
    return str(caught.value)


def test_everything_missing_is_named_at_once(tmp_path):
    """One line names all missing tables and columns."""
    content = tables()
    del content["CHARTEVENTS"], content["D_LABITEMS"]
    content["ICUSTAYS"] = [
        {key: value for key, value in row.items() if key not in ("INTIME", "FIRST_WARDID")}
        for row in content["ICUSTAYS"]
    ]
    content["PATIENTS"] = [{key: value for key, value in row.items() if key != "DOB"} for row in content["PATIENTS"]]
    raw = write(tmp_path / "raw", content)
    assert message(raw, tmp_path / "data") == (
        f"{raw} lacks table D_LABITEMS; table CHARTEVENTS; column DOB in PATIENTS.csv.gz; column FIRST_WARDID, "
        "INTIME in ICUSTAYS.csv.gz: put MIMIC-III v1.4's tables there, as .csv or .csv.gz"
    )


def test_no_folder_and_no_tables(tmp_path):
    """A missing folder, a file, and an empty folder have different messages."""
    assert message(tmp_path / "no", tmp_path / "data").startswith(f"{tmp_path / 'no'} is not a folder: point --raw")
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in message(tmp_path / "file", tmp_path / "data")
    (tmp_path / "empty").mkdir()
    assert message(tmp_path / "empty", tmp_path / "data").count("table ") == 10


def test_other_files_are_ignored(tmp_path):
    """Tables that are not needed, a list of checksums and a folder are ignored."""
    raw = write(tmp_path / "raw", tables())
    (raw / "NOTEEVENTS.csv.gz").write_bytes(b"not read")
    (raw / "SHA256SUMS.txt").write_text("not read")
    (raw / "index.csv").mkdir()
    assert len(find_tables(raw)) == 10


def test_mimic_4(tmp_path):
    """MIMIC-IV's tables are recognised by their columns."""
    content = tables()
    content["ICUSTAYS"] = [{"subject_id": 1, "hadm_id": 2, "stay_id": 3, "intime": "", "outtime": "", "los": 1}]
    content["PATIENTS"] = [{"subject_id": 1, "gender": "F", "anchor_age": 50, "anchor_year": 2150}]
    raw = write(tmp_path / "raw", content)
    assert message(raw, tmp_path / "data") == (
        f"{raw} holds MIMIC-IV's tables (stay_id, anchor_age): point --raw at MIMIC-III v1.4's"
    )


def test_mimic_4_as_it_is_distributed(tmp_path):
    """MIMIC-IV is also recognised by its folders hosp/ and icu/."""
    (tmp_path / "raw/hosp").mkdir(parents=True)
    (tmp_path / "raw/icu").mkdir()
    assert "holds MIMIC-IV's tables" in message(tmp_path / "raw", tmp_path / "data")


def test_two_files_of_one_table(tmp_path):
    """A packed and an unpacked file of the same table are refused, whatever the case of their names."""
    raw = write(tmp_path / "raw", tables())
    (raw / "chartevents.csv").write_text("x")
    assert message(raw, tmp_path / "data") == f"{raw} holds CHARTEVENTS.csv.gz and chartevents.csv: keep one of them"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "has no header line of column names"),
        (b"\x00\x01\x02,\xff\n1,2\n", "has no header line of column names"),
        (b"10006,2164-10-23,5\n", "has no header line of column names"),
        (b"x" * 200_000, "has no header line of column names"),
        (b"SUBJECT_ID,subject_id\n1,2\n", "names a column twice in its header"),
    ],
)
def test_header(tmp_path, content, cause):
    """A file without a header, or with a repeated column, is named; its first line is not shown."""
    raw = write(tmp_path / "raw", tables(), suffix=".csv")
    (raw / "CHARTEVENTS.csv").write_bytes(content)
    assert message(raw, tmp_path / "data") == f"{raw / 'CHARTEVENTS.csv'} {cause}: fetch it again"


@pytest.mark.parametrize(
    ("separator", "encoding", "cause"),
    [
        (";", "utf-8", "separates its columns by semicolons, not commas: write it again with commas"),
        ("\t", "utf-8-sig", "separates its columns by tabs, not commas: write it again with commas"),
        ("|", "utf-8", "separates its columns by vertical bars, not commas: write it again with commas"),
        (",", "utf-16", "is UTF-16 text: save it as UTF-8"),
    ],
)
def test_a_header_that_is_there_is_not_said_to_be_missing(tmp_path, separator, encoding, cause):
    """Other separators and UTF-16 are named as the cause."""
    raw = write(tmp_path / "raw", tables(), suffix=".csv")
    path = raw / "PATIENTS.csv"
    path.write_bytes(path.read_text().replace(",", separator).encode(encoding))
    assert message(raw, tmp_path / "data") == f"{path} {cause}"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("name", ["", "Unnamed: 0", "row number"])
def test_tables_saved_by_other_programs_give_the_same_cohort(tmp_path, name, suffix):
    """A byte-order mark, a first column without a proper name, CRLF and blank lines at the end change nothing."""
    raw = write(tmp_path / "raw", tables(), suffix)
    expected = extract_mimic3(raw, RULES, tmp_path / "data", 2)
    for path in raw.iterdir():
        content = path.read_bytes()
        header, *lines = (gzip.decompress(content) if suffix == ".csv.gz" else content).decode().splitlines()
        numbered = [f'"{name}",{header}', *(f"{number},{line}" for number, line in enumerate(lines))]
        changed = "\r\n".join([*numbered, "", ""]).encode("utf-8-sig")
        path.write_bytes(gzip.compress(changed) if suffix == ".csv.gz" else changed)
    cohort = extract_mimic3(raw, RULES, tmp_path / "data", 2)
    assert cohort.stay_ids_N.tolist() == expected.stay_ids_N.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(cohort.values_NTD, expected.values_NTD)
    np.testing.assert_array_equal(cohort.outcome_N, expected.outcome_N)


def test_a_needed_column_with_an_odd_name_is_missing(tmp_path):
    """Only columns that are not needed may have any name."""
    raw = write(tmp_path / "raw", tables(), suffix=".csv")
    path = raw / "PATIENTS.csv"
    path.write_text(path.read_text().replace("DOB", "date of birth", 1))
    assert "lacks column DOB in PATIENTS.csv: put" in message(raw, tmp_path / "data")


@pytest.mark.parametrize("name", ["CHARTEVENTS", "PATIENTS"])
@pytest.mark.parametrize("zeros", [1, 512])
def test_zeros_after_the_end_of_a_gz(tmp_path, name, zeros):
    """Zero bytes after the end of a .gz, as tapes add them, are named; other bytes are damage."""
    raw = write(tmp_path / "raw", tables())
    path = raw / f"{name}.csv.gz"
    content = path.read_bytes()
    path.write_bytes(content + bytes(zeros))
    assert message(raw, tmp_path / "data") == (
        f"{path} has zero bytes after the end of the archive: remove them or fetch it again"
    )
    path.write_bytes(content + b"x" * zeros)
    assert message(raw, tmp_path / "data").startswith(f"{path} is truncated or damaged")


@pytest.mark.parametrize("kept", [0.999, 0.9, 0.5, 0.01])
@pytest.mark.parametrize("name", ["CHARTEVENTS", "ICUSTAYS", "D_ITEMS"])
def test_truncated_gz(tmp_path, name, kept):
    """A truncated .gz is refused wherever it was cut, even after its last row."""
    raw = write(tmp_path / "raw", tables())
    path = raw / f"{name}.csv.gz"
    content = path.read_bytes()
    path.write_bytes(content[: min(int(len(content) * kept), len(content) - 4)])
    refusal = message(raw, tmp_path / "data")
    assert re.fullmatch(rf"{path} is truncated or damaged(, or not a gzip file)?: fetch it again.*", refusal)


def test_cut_at_the_end_of_a_line(tmp_path):
    """A .gz that was cut in the middle of the table, at the end of a line, is refused."""
    raw = write(tmp_path / "raw", tables())
    path = raw / "CHARTEVENTS.csv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[:10]))[:-8])
    assert "is truncated or damaged: fetch it again" in message(raw, tmp_path / "data")


def test_damaged_gz(tmp_path):
    """A .gz with a changed byte is refused by its checksum."""
    raw = write(tmp_path / "raw", tables())
    path = raw / "LABEVENTS.csv.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(bytes(content))
    assert message(raw, tmp_path / "data").startswith(f"{path} is truncated or damaged")
    path.write_bytes(b"no gzip at all")
    assert message(raw, tmp_path / "data").startswith(f"{path} is truncated or damaged, or not a gzip file")


def corrupted(name: str, column: str, value: object) -> dict[str, list[Row]]:
    """Return the tables with one value changed, in the fourth line of a table or in its last."""
    content = tables()
    rows = content[name]
    changed = min(2, len(rows) - 1)
    content[name] = [dict(row) | ({column: value} if number == changed else {}) for number, row in enumerate(rows)]
    return content


@pytest.mark.parametrize(
    ("name", "column", "value", "cause"),
    [
        ("CHARTEVENTS", "VALUENUM", f"MARK{MARK}", "line 4: VALUENUM is not a number"),
        ("CHARTEVENTS", "CHARTTIME", f"{MARK}-13-45", "line 4: CHARTTIME is not a date and time"),
        ("CHARTEVENTS", "SUBJECT_ID", f"x{MARK}", "line 4: SUBJECT_ID is not a whole number"),
        ("ICUSTAYS", "INTIME", f"the {MARK}", "line 4: INTIME is not a date and time"),
        ("PATIENTS", "DOB", f"{MARK}", "line 4: DOB is not a date and time"),
        ("INPUTEVENTS_MV", "AMOUNT", f"{MARK} ml", "line 4: AMOUNT is not a number"),
        ("LABEVENTS", "ITEMID", f"{MARK}.5x", "line 4: ITEMID is not a whole number"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_value_of_another_kind_is_located_but_never_shown(tmp_path, name, column, value, cause, suffix):
    """The error names file, line and column of a wrong value, but neither the value nor its row."""
    raw = write(tmp_path / "raw", corrupted(name, column, value), suffix)
    refusal = message(raw, tmp_path / "data")
    assert refusal == f"{raw / name}{suffix}, {cause}; correct the line or fetch the table again"
    assert str(MARK) not in refusal


def test_a_line_with_missing_fields(tmp_path):
    """A line shorter than the header is located, not shown."""
    raw = write(tmp_path / "raw", tables(), ".csv")
    path = raw / "LABEVENTS.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], f"{MARK},1", *lines[3:]]) + "\n")
    assert message(raw, tmp_path / "data") == (
        f"{path}, line 4: not 8 fields as in the header; correct it or fetch the table again"
    )


@pytest.mark.parametrize(
    ("name", "line", "cause"),
    [
        (
            "INPUTEVENTS_CV",
            f'1,1,11,301,2150-03-01 10:00:00,30018,4,"{MARK}\xff",,1'.encode("latin-1"),
            "fetch the tables again",
        ),
        (
            "LABEVENTS",
            f'1,1,11,50971,2150-03-01 10:00:00,"{MARK}"x,4,'.encode(),
            "a quotation mark is not closed, or closed too early",
        ),
    ],
)
def test_a_line_that_is_not_valid_text(tmp_path, name, line, cause):
    """Bytes that are not UTF-8 and stray quotation marks are located; the line is not shown."""
    raw = write(tmp_path / "raw", tables(), ".csv")
    path = raw / f"{name}.csv"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[3:]]) + b"\n")
    refusal = message(raw, tmp_path / "data")
    assert str(path) in refusal
    assert cause in refusal
    assert str(MARK) not in refusal


def test_another_databases_dictionary(tmp_path):
    """Dictionaries without the needed items are refused before any event is read."""
    content = tables()
    content["D_ITEMS"] = content["D_ITEMS"][3:]
    content["D_LABITEMS"] = content["D_LABITEMS"][:-1]
    assert message(write(tmp_path / "raw", content), tmp_path / "data") == (
        "D_ITEMS and D_LABITEMS lack 4 of the 232 items that are read (the first: 51, 211, 51214): "
        "fetch both tables of MIMIC-III v1.4 again"
    )


def test_an_output_folder_that_cannot_be_written(tmp_path):
    """If the output folder is a file, one line says so."""
    raw = write(tmp_path / "raw", tables())
    (tmp_path / "data").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*: .*; free the disk, or change its permissions"):
        extract_mimic3(raw, RULES, tmp_path / "data", 2)
