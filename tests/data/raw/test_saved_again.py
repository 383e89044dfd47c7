"""Sets of the challenge whose text files another program has saved again."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from imputune.cli.commands import app
from imputune.data.raw.physionet2012 import extract_physionet2012
from imputune.errors import UserError

HEADER = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"
OUTCOMES = f"{HEADER}\n11,6,1,5,-1,0\n12,16,8,8,7,1\n"
RECORD = "Time,Parameter,Value\n00:00,RecordID,{id}\n00:00,Age,54\n00:07,HR,{value}\n"
MARK = "\ufeff"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with set a: two stays with one heart rate each; the second patient died."""
    (tmp_path / "set-a").mkdir()
    (tmp_path / "set-a/11.txt").write_text(RECORD.format(id=11, value=73))
    (tmp_path / "set-a/12.txt").write_text(RECORD.format(id=12, value=90))
    (tmp_path / "Outcomes-a.txt").write_text(OUTCOMES)
    return tmp_path


def check(raw: Path) -> None:
    """Check that the set gives the stays, outcomes and cells of the fixture."""
    cohort = extract_physionet2012(raw, ("a",))
    assert cohort.stay_ids_N.tolist() == [11, 12]
    assert cohort.outcome_N.tolist() == [0, 1]
    assert cohort.values_NTD[cohort.observed_NTD].tolist() == [73, 90]
    assert cohort.static["age_years"].tolist() == [54, 54]
    np.testing.assert_array_equal(cohort.observed_NTD[:, 0, cohort.variable_names.index("HR")], [True, True])


def message(raw: Path) -> str:
    """Return the one-line error for the set."""
    with pytest.raises(UserError) as caught:
        extract_physionet2012(raw, ("a",))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def quoted(text: str) -> str:
    """Return comma-separated lines with each field in quotation marks, as R's write.csv writes text."""
    return "".join(",".join(f'"{field}"' for field in line.split(",")) + "\n" for line in text.splitlines())


@pytest.mark.parametrize(
    "outcomes",
    [
        MARK + OUTCOMES,
        MARK + quoted(OUTCOMES),
        quoted(OUTCOMES),
        quoted(OUTCOMES).replace("\n", "\r\n"),
        OUTCOMES.replace(",", ", "),
        quoted(OUTCOMES).replace(",", ", "),
        OUTCOMES + "\n",
        OUTCOMES.replace("\n", "\r\n") + "\r\n \r\n\r\n",
        OUTCOMES + ",,,,,\n",
        OUTCOMES.replace(",", ";"),
        MARK + quoted(OUTCOMES).replace(",", ";"),
        OUTCOMES.replace(",", "\t") + "\t\t\t\t\t\n",
        f'"",{quoted(OUTCOMES)}'.replace('\n"1', '\n"1","1').removesuffix("\n"),
    ],
)
def test_outcomes_saved_by_other_programs_are_read(raw, outcomes):
    """Marks, quotation marks, blank lines at the end, semicolons and tabs do not change the outcomes."""
    (raw / "Outcomes-a.txt").write_bytes(outcomes.encode())
    check(raw)


@pytest.mark.parametrize(
    ("outcomes", "cause"),
    [
        (OUTCOMES.encode("utf-16"), "line 1: the file is UTF-16 text; save it as UTF-8"),
        (OUTCOMES.replace(",", "|").encode(), "line 1: no commas, semicolons or tabs between the columns; separate"),
        (OUTCOMES.replace("\n12", "\n\n12").encode(), "line 3: 0 fields, not 6; correct or remove it"),
        (OUTCOMES.replace("8,8", '"8,8').encode(), "line 3: a quotation mark is not closed, or closed too early;"),
        (OUTCOMES.replace("8,8", '"8"8,8').encode(), "line 3: a quotation mark is not closed, or closed too early;"),
        (OUTCOMES.replace("11,6", '11,"6\n6"').encode() + b"13,1\n", "line 5: 2 fields, not 6; correct or remove it"),
        (MARK.encode() + b"\n\n", "line 1: no column RecordID; the challenge's outcomes file is needed"),
    ],
)
def test_the_true_cause_in_outcomes_is_named(raw, outcomes, cause):
    """What cannot be read is named by its line in the file and its cause."""
    (raw / "Outcomes-a.txt").write_bytes(outcomes)
    assert message(raw).startswith(f"Outcomes-a.txt {cause}")


@pytest.mark.parametrize("change", [str, quoted], ids=["plain", "quoted"])
def test_records_saved_by_other_programs_are_read(raw, change):
    """A mark, quotation marks and blank lines at the end do not change a record."""
    path = raw / "set-a/11.txt"
    path.write_bytes((MARK + change(path.read_text()).replace("\n", "\r\n") + "\r\n\r\n").encode())
    check(raw)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (RECORD.encode("utf-16"), "the file is UTF-16 text, not UTF-8"),
        (RECORD.replace(",", ";").encode(), "semicolons separate the fields, not commas"),
        (quoted(RECORD).replace(",", "\t").encode(), "tabs separate the fields, not commas"),
        (MARK.encode(), "the file is empty"),
    ],
)
def test_the_true_cause_in_a_record_is_named(raw, content, cause):
    """A record in another encoding, or with other separators, is not said to lack its header."""
    (raw / "set-a/11.txt").write_bytes(content)
    assert message(raw) == f"set-a/11.txt line 1: {cause}; restore or remove the file"


def test_outcomes_without_a_record_are_counted_and_said(raw):
    """Ids in the outcomes without a record are told and counted; nothing is told of a complete set.

    Both stays are over 3 days long, so that this is no outcome.
    """
    notes = list[str]()
    complete = extract_physionet2012(raw, ("a",), notes.append)
    assert notes == ["los_over_3_days is no outcome of this cohort: its labels have one value only"]
    notes.clear()
    assert complete.source["exclusions"] == {"no measurements": 0}
    (raw / "Outcomes-a.txt").write_text(OUTCOMES + "13,1,1,1,1,0\n14,1,1,1,1,1\n")
    cohort = extract_physionet2012(raw, ("a",), notes.append)
    assert notes[:-1] == ["2 of the 4 ids in Outcomes-a.txt have no record in set-a"]
    assert cohort.source["exclusions"] == {"no measurements": 0, "no record in set-a": 2}
    check(raw)


def test_the_command_says_which_outcomes_have_no_record(raw, tmp_path):
    """The command's output has the count, as a note and among the stays left out."""
    (raw / "Outcomes-a.txt").write_text(OUTCOMES + "13,1,1,1,1,0\n")
    result = CliRunner().invoke(app, ["extract", "physionet2012", "--raw", str(raw), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert "note: 1 of the 3 ids in Outcomes-a.txt have no record in set-a" in result.output
    assert "2 stays, 1 death, 2 observed cells (1 stay left out: 1 no record in set-a)" in result.output


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_names_in_another_letter_case_are_read(raw, packed):
    """Upper and lower case do not matter in the names of records, sets and outcomes."""
    (raw / "set-a/11.txt").rename(raw / "set-a/11.TXT")
    (raw / "Outcomes-a.txt").rename(raw / "OUTCOMES-A.TXT")
    (raw / "set-a").rename(raw / "SET-A")
    if packed:
        with tarfile.open(raw / "SET-A.TAR.GZ", "w:gz") as archive:
            archive.add(raw / "SET-A", "SET-A")
        shutil.rmtree(raw / "SET-A")
    check(raw)


def test_one_record_in_two_letter_cases_is_named(raw):
    """Two files of one record are an error, not one of them."""
    shutil.copy(raw / "set-a/11.txt", raw / "set-a/11.TXT")
    assert message(raw).startswith("set-a/11.txt line 2: duplicate id 11, already at set-a/11.TXT line 2")
