import gzip
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.data.cohort import Variable
from imputune.data.raw.synthetic import extract_synthetic, write_synthetic_records
from imputune.data.raw.unlabelled import read_raw
from imputune.errors import UserError

HR = (Variable("HR", "beats/min"),)
STAYS = 12


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """A folder with generated records."""
    folder = tmp_path_factory.mktemp("records")
    write_synthetic_records(folder, STAYS, 3)
    return folder / "set-s"


def long_table(records: Path) -> pd.DataFrame:
    """Return the records as one table."""
    tables = [pd.read_csv(path).assign(RecordID=int(path.stem)) for path in sorted(records.glob("*.txt"))]
    return pd.concat(tables, ignore_index=True)[["RecordID", "Time", "Parameter", "Value"]]


@pytest.mark.parametrize(
    "form", ["folder", "archive", "csv", "csv.gz", "parquet", "CSV", "Csv.GZ", "PARQUET", "TAR.GZ"]
)
def test_every_form_gives_the_bins_of_the_extraction(records, tmp_path, form):
    """A folder, its archive, and one table in three formats all give the values of the extraction."""
    path = tmp_path / f"records.{form}"
    if form == "folder":
        path = records
    elif form in ("archive", "TAR.GZ"):
        path = tmp_path / ("records.tar.gz" if form == "archive" else "records.TAR.GZ")
        with tarfile.open(path, "w:gz") as archive:
            archive.add(records, "set-s")
    elif form.lower() == "parquet":
        long_table(records).to_parquet(path)
    else:
        long_table(records).to_csv(path, index=False)
    cohort = extract_synthetic(STAYS, 3)
    stays = read_raw(path, cohort.variables)
    assert stays.stay_ids_N.tolist() == cohort.stay_ids_N.tolist()
    np.testing.assert_array_equal(stays.values_NTD, cohort.values_NTD)


def test_one_record_alone_is_enough(records):
    """A single .txt file gives its stay."""
    stays = read_raw(records / "900003.txt", extract_synthetic(STAYS, 3).variables)
    assert stays.stay_ids_N.tolist() == [900003]


def test_records_in_capital_letters_are_read(records, tmp_path):
    """A .TXT alone and in a folder gives its stay, and OUTCOMES-A.TXT is no record."""
    (tmp_path / "900003.TXT").write_bytes((records / "900003.txt").read_bytes())
    write(tmp_path, "RecordID,In-hospital_death\n", "OUTCOMES-A.TXT")
    variables = extract_synthetic(STAYS, 3).variables
    for path in (tmp_path, tmp_path / "900003.TXT"):
        assert read_raw(path, variables).stay_ids_N.tolist() == [900003]


def write(folder: Path, text: str, name: str = "table.csv") -> Path:
    """Write a file and return its path."""
    (folder / name).write_text(text)
    return folder / name


HEAD = "RecordID,Time,Parameter,Value\n"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "the file is empty; give at least one measurement"),
        (HEAD, "the table has no rows; give at least one measurement"),
        (HEAD + "1,00:10,HR,70,9\n", "the table's rows have more fields than its header; write it again"),
        ("RecordID,Time,Value\n1,00:00,3\n", "the table has no column Parameter"),
        (
            HEAD + "1,00:10,HR,70\n1,00:20,Pulse,70\n",
            "row 2 of the table: unknown parameter 'Pulse'; remove its rows, or",
        ),
        (HEAD + "1,00:10,HRR,70\n", "row 1 of the table: unknown parameter 'HRR' (did you mean 'HR'?); rename it"),
        (HEAD + "1,24:61,HR,70\n", "row 1 of the table: time '24:61' is not HH:MM"),
        (HEAD + "1,-1:00,HR,70\n", "row 1 of the table: time '-1:00' is not HH:MM"),
        (HEAD + "1,00:10,HR,fast\n", "row 1 of the table: value 'fast' is not a number"),
        (HEAD + "1,00:10,HR,inf\n", "row 1 of the table: value 'inf' is not a number"),
        (HEAD + "1,00:10,HR,1e300\n", "row 1 of the table: value '1e+300' is not a number"),
        (HEAD + "x,00:10,HR,70\n", "row 1 of the table: RecordID 'x' is not a whole number"),
        (HEAD + "1e300,00:10,HR,70\n", "row 1 of the table: RecordID '1e+300' is not a whole number"),
        (HEAD + "1,00:10,HR,70\n2,00:10,HR,70\n1,00:10,HR,70\n", "row 3 of the table repeats row 1 of the table"),
        (
            HEAD + "1,00:10,HR,70\n2,00:10,HR,70\n2,00:10,HR,70\n1,00:10,HR,70\n",
            "row 3 of the table repeats row 2 of the table",
        ),
        (HEAD + "1,00:10,HR,70\n" * 3, "row 2 of the table repeats row 1 of the table"),
        (HEAD + "1,00:10,HR,0\n1,00:10,HR,-0.0\n", "row 2 of the table repeats row 1 of the table"),
    ],
)
def test_a_fault_of_a_table_is_named_with_its_row(tmp_path, text, cause):
    """Each fault of a table is one error that names the file, the row and the remedy."""
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_raw(path, HR)
    assert str(caught.value).startswith(f"{path}: {cause}")


def test_two_values_at_one_time_are_averaged(tmp_path):
    """Only an identical row is a fault; another value at the same time is a measurement."""
    stays = read_raw(write(tmp_path, HEAD + "1,00:10,HR,70\n1,00:10,HR,80\n"), HR)
    assert stays.values_NTD[0, 0, 0] == 75


@pytest.mark.parametrize("index", [["RecordID"], ["RecordID", "Time"], ["ward", "RecordID"]])
def test_columns_in_the_index_of_a_parquet_are_read(tmp_path, index):
    """A table whose index holds RecordID, alone or with other levels, gives the stays of the plain table."""
    table = pd.DataFrame(
        {
            "ward": 5,
            "RecordID": [1, 1, 2],
            "Time": ["00:10", "13:40", "00:20"],
            "Parameter": "HR",
            "Value": [70, 80, 90],
        }
    )
    table.set_index(index).to_parquet(tmp_path / "indexed.parquet")
    stays = read_raw(tmp_path / "indexed.parquet", HR)
    assert stays.stay_ids_N.tolist() == [1, 2]
    assert stays.values_NTD[[0, 0, 1], [0, 13, 0], 0].tolist() == [70, 80, 90]
    assert (~np.isnan(stays.values_NTD)).sum() == 3


def test_a_table_with_the_index_and_the_column_keeps_the_column(tmp_path):
    """If RecordID is both a column and the index, the column counts."""
    table = pd.DataFrame({"RecordID": [3], "Time": ["00:10"], "Parameter": ["HR"], "Value": [70.0]})
    table.set_index(pd.Index([9], name="RecordID")).to_parquet(tmp_path / "both.parquet")
    assert read_raw(tmp_path / "both.parquet", HR).stay_ids_N.tolist() == [3]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_table_saved_by_another_program_is_read(tmp_path, suffix):
    """A byte-order mark, quoted fields, CRLF, blank lines at the end and zeros after a .gz change nothing."""
    lines = (
        '"","RecordID","Time","Parameter","Value"',
        '"1","7","00:10","HR","70"',
        '"2","8","01:10","HR","80"',
        "",
        "",
    )
    text = "\ufeff" + "\r\n".join(lines)
    content = gzip.compress(text.encode()) + bytes(512) if suffix == ".csv.gz" else text.encode()
    (tmp_path / f"table{suffix}").write_bytes(content)
    stays = read_raw(tmp_path / f"table{suffix}", HR)
    assert stays.stay_ids_N.tolist() == [7, 8]
    assert stays.values_NTD[[0, 1], [0, 1], 0].tolist() == [70, 80]


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_other_separators_of_a_table_are_named(tmp_path, separator, word):
    """A table without commas is not said to lack its columns; a decimal comma does not hide the cause."""
    for head, row in ((HEAD, "1,00:10,HR,70"), ("\ufeff," + HEAD, "1,1,00:10,HR,70")):
        path = write(tmp_path, (head + row).replace(",", separator) + ",5\n")
        with pytest.raises(UserError, match=f"the table's columns are separated by {word}; write it with commas"):
            read_raw(path, HR)


def test_a_million_rows_for_one_stay_are_refused(tmp_path):
    """More rows than one a minute for each variable can only be an error in producing the table."""
    table = pd.DataFrame({"RecordID": 7, "Time": "00:00", "Parameter": "HR", "Value": np.arange(1_000_000.0)})
    table.to_parquet(tmp_path / "many.parquet")
    with pytest.raises(UserError, match=r"stay 7 has 1,000,000 rows in 48 hours, more than one a minute .* \(2,880\)"):
        read_raw(tmp_path / "many.parquet", HR)


@pytest.mark.parametrize(
    ("column", "content", "cause"),
    [
        ("Parameter", ["HR"], "the column Parameter holds values that are not text"),
        ("Value", pd.Timestamp("2012-01-01"), "the column Value holds datetime64"),
    ],
)
def test_columns_of_another_kind_are_named(tmp_path, column, content, cause):
    """A parquet file may have lists instead of text, and dates instead of numbers."""
    row = {"RecordID": 1, "Time": "00:10", "Parameter": "HR", "Value": 70.0} | {column: content}
    pd.DataFrame([row]).to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(UserError, match=cause):
        read_raw(tmp_path / "odd.parquet", HR)


def test_a_damaged_archive_of_a_table_is_named(tmp_path):
    """A .csv.gz with a changed byte is an error, or read correctly if only its header was changed."""
    content = gzip.compress((HEAD + "".join(f"{n},00:10,HR,{n % 90}\n" for n in range(500))).encode())
    stays, lines = list[int](), list[str]()
    for position in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[position] ^= 255
        (tmp_path / "bad.csv.gz").write_bytes(damaged)
        try:
            stays.append(len(read_raw(tmp_path / "bad.csv.gz", HR).stay_ids_N))
        except UserError as error:
            lines.append(str(error))
    assert set(stays) <= {500}
    assert lines
    assert not [line for line in lines if "\n" in line]


def test_other_files_are_named(tmp_path):
    """A missing path, an unknown kind of file, a broken parquet, and a folder without records are errors."""
    with pytest.raises(UserError, match="does not exist; name a folder of records, or a file"):
        read_raw(tmp_path / "none", HR)
    with pytest.raises(UserError, match="is of an unknown kind"):
        read_raw(write(tmp_path, "x", "records.xlsx"), HR)
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_raw(write(tmp_path, "x", "broken.parquet"), HR)
    with pytest.raises(UserError, match=r"is truncated or not a tar\.gz archive"):
        read_raw(write(tmp_path, "x", "broken.tar.gz"), HR)
    write(tmp_path, "RecordID,In-hospital_death\n", "Outcomes-a.txt")
    with pytest.raises(UserError, match=r"holds no \.txt record"):
        read_raw(tmp_path, HR)


def test_a_repeated_line_of_a_record_is_named(tmp_path):
    """In text records, the error names file and line."""
    write(tmp_path, "Time,Parameter,Value\n00:00,RecordID,1\n00:10,HR,70\n00:10,HR,70\n", "1.txt")
    with pytest.raises(UserError, match=r"1\.txt line 4 repeats 1\.txt line 3; remove one of the two"):
        read_raw(tmp_path, HR)
