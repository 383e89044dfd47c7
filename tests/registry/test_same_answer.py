"""`imputune predict` and a served model read the same table in the same way, and refuse it with the same sentence."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.fuzz_server import rows_of, sentence, small_server
from imputune.data.raw.physionet2012_parameters import VARIABLES
from imputune.data.raw.unlabelled import read_raw
from imputune.errors import UserError
from imputune.registry.bundle import Bundle
from imputune.registry.bundle_file import read_bundle

COLUMNS = ["RecordID", "Time", "Parameter", "Value"]
HEAD = ",".join(COLUMNS) + "\n"
ROW = "1,00:10,HR,80\n"
WHOLE = [1, "00:10", "HR", 80.0]


class Ways:
    """A served model, and what predict does with the same bundle."""

    def __init__(self, server, bundle: Bundle, folder: Path) -> None:
        self.server, self.bundle, self.folder = server, bundle, folder

    def predict(self, name: str) -> list[dict] | str:
        """Return the rows of predict, or its sentence."""
        try:
            return self.bundle.predict(read_raw(self.folder / name, VARIABLES)).to_dict("records")
        except UserError as error:
            return str(error).removeprefix(f"{self.folder / name}: ")

    def ask(self, body: str | bytes, kind: str) -> list[dict] | str:
        """Return the rows of the server, or its sentence; no other status than 200 and 400 is allowed."""
        status, answer = self.server.post(body if isinstance(body, bytes) else body.encode(), kind)
        assert status in (200, 400), answer
        return list(rows_of(answer)) if status == 200 else sentence(answer)

    def csv(self, text: str) -> list[dict] | str:
        """Return the common answer to a CSV."""
        (self.folder / "table.csv").write_text(text)
        return same(self.ask(text, "text/csv"), self.predict("table.csv"))

    def parquet(self, table: pd.DataFrame) -> list[dict] | str:
        """Return the common answer to a Parquet file."""
        table.to_parquet(self.folder / "table.parquet")
        asked = self.ask((self.folder / "table.parquet").read_bytes(), "application/vnd.apache.parquet")
        return same(asked, self.predict("table.parquet"))

    def json(self, **form: object) -> list[dict] | str:
        """Return the server's answer to a JSON request."""
        return self.ask(json.dumps(form), "application/json")


def same(asked: list[dict] | str, predicted: list[dict] | str) -> list[dict] | str:
    """Check that two answers are the same, risks to 1e-6, and return it."""
    if isinstance(predicted, str) or isinstance(asked, str):
        assert asked == predicted
        return predicted
    pd.testing.assert_frame_equal(pd.DataFrame(asked), pd.DataFrame(predicted), atol=1e-6, rtol=0)
    return predicted


@pytest.fixture(scope="module")
def ways(tmp_path_factory) -> Iterator[Ways]:
    """A served model of random weights, and its bundle."""
    folder = tmp_path_factory.mktemp("served")
    with small_server(folder) as served:
        yield Ways(served.server, read_bundle(folder / "bundle"), folder)


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            "1,00:20,NA,140\n",
            "row 2 of the table has no Parameter: its cell is empty, or a word for a missing value such as NA (sodium "
            "is 'Na'); correct or remove the row",
        ),
        ("1,00:20,,140\n", "row 2 of the table has no Parameter"),
        ("1,,HR,81\n", "row 2 of the table has no Time"),
        ("1,00:20,HR,\n", "row 2 of the table has no Value"),
        ("1,00:20,HR\n", "row 2 of the table has no Value"),
        (",00:20,HR,81\n", "row 2 of the table has no RecordID"),
        (",,,\n", "row 2 of the table is empty; remove such rows"),
        (",,,\n,,,\n,,,\n", "row 2 of the table is empty, and 2 more; remove such rows"),
        ("1,00:20,HR,inf\n", "row 2 of the table: value 'inf' is not a number"),
        ("1,00:20,HR,1e300\n", "row 2 of the table: value '1e+300' is not a number"),
        ("1,00:20,HR,fast\n", "row 2 of the table: value 'fast' is not a number"),
        ("1,0:20,HR,81\n", "row 2 of the table: time '0:20' is not HH:MM"),
        ("1.5,00:20,HR,81\n", "row 2 of the table: RecordID '1.5' is not a whole number"),
        (
            "9007199254740993,00:20,HR,81\n",
            "row 2 of the table: RecordID '9007199254740993' is not a whole number below 2**53; correct it",
        ),
        ("1,00:20,SysPAP,30\n", "row 2 of the table: unknown parameter 'SysPAP': it may be another quantity"),
        ("1,00:10,HR,80\n", "row 2 of the table repeats row 1 of the table; remove one of the two"),
        ("1, 00:10 ,HR ,80.0\n", "row 2 of the table repeats row 1 of the table; remove one of the two"),
    ],
)
def test_a_faulty_row_of_a_csv_gets_one_sentence(ways, lines, cause):
    """The server answers 400 with the row and the cause, in the words of predict."""
    answer = ways.csv(HEAD + ROW + lines)
    assert isinstance(answer, str)
    assert answer.startswith(cause)
    assert len(answer.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (HEAD, "the table has no rows; give at least one measurement"),
        (HEAD + "1,00:10,HR,80,9\n", "the table's rows have more fields than its header; write it again"),
        (
            HEAD.replace(",", ";") + "1;00:10;HR;80\n",
            "the table's columns are separated by semicolons; write it with commas",
        ),
        ("RecordID,Time,Value\n1,00:10,80\n", "the table has no column Parameter; it needs RecordID, Time"),
        ("RecordID,Time,parameter,Value\n" + ROW, "the table has no column Parameter (it has 'parameter': rename it)"),
        ("RecordID,Time,Parameter,Value,Value\n1,00:10,HR,80,81\n", "the table has 2 columns Value; keep one of them"),
        (HEAD + "1,00:10,HR,True\n", "row 1 of the table: value 'True' is not a number"),
    ],
)
def test_a_faulty_csv_gets_one_sentence(ways, text, cause):
    """Columns, separators and rows of another length are named alike."""
    answer = ways.csv(text)
    assert isinstance(answer, str)
    assert answer.startswith(cause)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + ROW,
        "\ufeff" + HEAD + ROW,
        (HEAD + ROW).replace("\n", "\r\n") + "\r\n\r\n",
        '"RecordID","Time","Parameter","Value"\n"1","00:10","HR","80"\n',
        "RecordID, Time, Parameter, Value\n1, 00:10 , HR, 80\n",
        "Value,Parameter,ward,Time,RecordID\n80,HR,5,00:10,1\n",
        HEAD + "7,1,00:10,HR,80\n",  # as R writes the number of a row
    ],
)
def test_what_other_programs_write_changes_nothing(ways, text):
    """A mark, quotes, line ends, blanks and other columns leave the risk as it is."""
    [row], [plain] = ways.csv(text), ways.csv(HEAD + ROW)
    assert row == plain
    assert (row["RecordID"], row["observed_cells"], row["rows_ignored"]) == (1, 1, 0)


def test_rows_that_do_not_count_are_counted(ways):
    """The answer has for each stay the rows after hour 48, negative values, and parameters that are no variables."""
    ignored = "1,48:00,HR,70\n1,00:10,HR,-1\n1,00:00,Age,54\n2,60:00,HR,81\n"
    first, second = ways.csv(HEAD + ROW + ignored)
    [alone] = ways.csv(HEAD + ROW)
    assert (first["observed_cells"], first["rows_ignored"]) == (1, 3)
    assert (second["observed_cells"], second["rows_ignored"]) == (0, 1)
    assert first["risk"] == pytest.approx(alone["risk"], abs=1e-6)


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "inputs", "by column", "instances"])
def test_every_form_of_a_request_gets_the_answer(ways, form):
    """The forms of mlflow give the risk that predict gives."""
    record = dict(zip(COLUMNS, WHOLE, strict=True))
    bodies = {
        "dataframe_split": {"dataframe_split": {"columns": COLUMNS, "data": [WHOLE]}},
        "by column": {"inputs": {name: [cell] for name, cell in record.items()}},
    }
    [row] = ways.json(**bodies.get(form, {form: [record]}))
    [plain] = ways.csv(HEAD + ROW)
    assert row == pytest.approx(plain)


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ([None] * 4, "row 2 of the table is empty; remove such rows"),
        ([1, "00:20", None, 70], "row 2 of the table has no Parameter"),
        ([1, "00:20", "", 70], "row 2 of the table has no Parameter"),
        ([1, "00:20", "NA", 70], "row 2 of the table: unknown parameter 'NA' (did you mean 'Na'?)"),
        ([1, "00:20", "HR", None], "row 2 of the table has no Value"),
        ([1, "00:20", "HR", True], "row 2 of the table: value 'True' is not a number"),
        ([1, "00:20", "HR", [70]], "row 2 of the table: value '[70]' is not a number"),
        ([1, "00:20", "HR", 10**400], "row 2 of the table: value '10000"),
        ([1, "00:20", "HR", float("inf")], "row 2 of the table: value 'inf' is not a number"),
        ([1.5, "00:20", "HR", 70], "row 2 of the table: RecordID '1.5' is not a whole number"),
        ([True, "00:20", "HR", 70], "row 2 of the table: RecordID 'True' is not a whole number"),
        ([1, 20, "HR", 70], "row 2 of the table: time '20.0' is not HH:MM"),
        ([1, "00:20", ["HR"], 70], "the column Parameter holds values that are not text"),
    ],
)
def test_a_faulty_row_of_a_request_is_named(ways, row, cause):
    """Nulls, truth values, lists and huge numbers are a bad request, never a failure of the server."""
    for form in (
        {"dataframe_split": {"columns": COLUMNS, "data": [WHOLE, row]}},
        {"dataframe_records": [dict(zip(COLUMNS, each, strict=True)) for each in (WHOLE, row)]},
    ):
        answer = ways.json(**form)
        assert isinstance(answer, str)
        assert answer.startswith(cause)


@pytest.mark.parametrize("body", [{"inputs": [1, 2]}, {"inputs": "x"}, {"messages": []}, {"inputs": {"HR": 80}}])
def test_a_request_without_a_table_is_refused(ways, body):
    """What is no table gets a sentence that names the columns."""
    assert "RecordID, Time, Parameter, Value" in ways.json(**body)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (
            None,
            "the table has no column RecordID (the table's index has no name; if it holds this column, name it "
            "RecordID); it needs RecordID, Time, Parameter, Value",
        ),
        (
            "stay",
            "the table has no column RecordID (the table's index is named 'stay'; if it holds this column, name it "
            "RecordID); it needs RecordID, Time, Parameter, Value",
        ),
    ],
)
def test_the_index_of_a_parquet_is_named(ways, name, cause):
    """An index without a name, or with another one, is the named cause."""
    table = pd.DataFrame([WHOLE, [2, "00:20", "HR", 70]], columns=COLUMNS)
    answer = ways.parquet(table.set_index("RecordID").rename_axis(name))
    assert isinstance(answer, str)
    assert answer.startswith(cause)


@pytest.mark.parametrize("index", ["RecordID", ["RecordID", "Time"], None])
def test_an_index_with_the_columns_names_is_read(ways, index):
    """Columns in the index count; the numbers that a filtered table keeps as its index do not."""
    table = pd.DataFrame([WHOLE, [2, "00:20", "HR", 70]], columns=COLUMNS)
    table = table.set_index(index) if index else table.set_axis([40, 7])
    assert [row["RecordID"] for row in ways.parquet(table)] == [1, 2]


def test_other_types_of_a_parquet_are_read(ways):
    """Categories, nullable numbers and text that is a number give the same risks; a missing cell is named."""
    plain = pd.DataFrame([WHOLE, [2, "00:20", "HR", 70]], columns=COLUMNS)
    expected = ways.parquet(plain)
    for types in ({"Value": "category"}, {"Value": "Int64", "RecordID": "Int64"}, {"Value": "str"}):
        assert ways.parquet(plain.astype(types)) == expected
    lost = plain.astype({"Value": "Float64"})
    lost.loc[1, "Value"] = pd.NA
    assert str(ways.parquet(lost)).startswith("row 2 of the table has no Value")
    assert np.isfinite(expected[0]["risk"])
