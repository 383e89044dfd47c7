"""Fuzzed measurements: text records, CSV and Parquet tables, through predict, extract and the server.

Each function returns what became of one mutated input: "kept", "refused" or "counted" (kept, with some rows ignored and
counted). Everything else is a FuzzError: an exception that is no UserError, an error of several lines, a value that the
second reading does not give, an answer of the server other than 200 and 400, or one that differs from what
`imputune predict` does.
"""

import gzip
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd

from benchmarks.fuzz_bench import Bench, attempt
from benchmarks.fuzz_inputs import (
    HEADER,
    IDS,
    FuzzError,
    Reading,
    broken,
    check_stays,
    damaged,
    from_csv,
    harmless,
    measurements,
    number,
    second_reading,
)
from benchmarks.fuzz_server import rows_of, sentence
from imputune.data.raw.binning import BinnedStays
from imputune.data.raw.physionet2012 import extract_physionet2012
from imputune.data.raw.physionet2012_parameters import VARIABLES
from imputune.data.raw.unlabelled import read_raw

CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
MLFLOWS_OWN = ("Failed to parse input", "Invalid input", "The input must be", "Ensure that input")
"""How a refusal begins that mlflow gives before the model is asked."""
NO_TEXT = "ArrowException: Unknown error: Wrapping"
"""How mlflow fails when it shows the refused table of a damaged Parquet file, whose text is no UTF-8."""


def fuzz_records(random: Random, bench: Bench) -> str:
    """A set of text records, for predict and extract; the second reading splits lines at commas."""
    folder = bench.case / "set-a"
    folder.mkdir()
    ids = IDS[: random.randrange(1, 4)]
    rows = measurements(random, ids)
    chosen, is_harmless = random.choice(ids), random.random() < 0.4
    read: list[Sequence[str]] | None = []
    for stay in ids:
        lines = [("00:00", "RecordID", str(stay)), *(row[1:] for row in rows if row[0] == str(stay))]
        content = harmless(random, HEADER[1:], lines)
        if stay == chosen and not is_harmless:
            content = broken(random, HEADER[1:], lines)
        (folder / f"{stay}{random.choice(('.txt', '.TXT'))}").write_bytes(content)
        read = _second_record(content, read) if read is not None else None
    stays = attempt(lambda: read_raw(folder, VARIABLES))
    outcomes = "RecordID,In-hospital_death\n" + "".join(f"{stay},{stay % 2}\n" for stay in ids)
    (bench.case / "Outcomes-a.txt").write_text(outcomes)
    cohort = attempt(lambda: extract_physionet2012(bench.case, ("a",)))
    if isinstance(stays, str):
        if is_harmless:
            raise FuzzError(f"refused a harmless change: {stays}")
        if not isinstance(cohort, str):
            raise FuzzError(f"extract keeps what predict refuses: {stays}")
        return "refused"
    outcome = check_stays(stays, second_reading(read, unnamed_count=True) if read is not None else None, "records")
    if not isinstance(cohort, str):
        measured_N = ~np.isnan(stays.values_NTD).all(axis=(1, 2))
        if not np.array_equal(cohort.values_NTD, stays.values_NTD[measured_N], equal_nan=True):
            raise FuzzError("extract and predict read other values")
    return outcome


def _second_record(content: bytes, rows: list[Sequence[str]]) -> list[Sequence[str]] | None:
    table = from_csv(content)
    if not table or [name.strip() for name in table[0]] != list(HEADER[1:]) or any(len(row) != 3 for row in table):
        return None
    stay = [row[2] for row in table[1:] if row[1].strip() == "RecordID"]
    return [*rows, *((stay[0], *row) for row in table[1:])] if len(stay) == 1 else None


def fuzz_csv(random: Random, bench: Bench) -> str:
    """A CSV table, for predict and the server; the second reading is Python's csv module."""
    rows = measurements(random, IDS[: random.randrange(1, 4)])
    is_harmless = random.random() < 0.4
    content = harmless(random, HEADER, rows) if is_harmless else broken(random, HEADER, rows)
    suffix = random.choice((".csv", ".CSV", ".csv.gz"))
    path = bench.case / f"table{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    stays = attempt(lambda: read_raw(path, VARIABLES))
    if isinstance(stays, str) and is_harmless:
        raise FuzzError(f"refused a harmless change: {stays}")
    _check_server(random, bench, path, stays, CSV)
    if isinstance(stays, str):
        return "refused"
    return check_stays(stays, _second_table(from_csv(content)), "CSV")


def _second_table(table: Sequence[Sequence[str]] | None) -> Reading | None:
    if not table or len(table) < 2:
        return None
    header = [name.strip() for name in table[0]]
    before = max(0, len(table[1]) - len(header))  # fields that the header does not name, such as the row's number
    if any(header.count(name) != 1 for name in HEADER) or max(map(len, table[1:])) > len(header) + before:
        return None
    places = [before + header.index(name) for name in HEADER]
    rows = [[row[place] if place < len(row) else "" for place in places] for row in table[1:]]
    return None if any(not cell.strip() for row in rows for cell in row) else second_reading(rows)


def fuzz_parquet(random: Random, bench: Bench) -> str:
    """A Parquet table with columns of other types, missing cells and other indexes, for predict and the server."""
    table = pd.DataFrame(measurements(random, IDS[: random.randrange(1, 4)]), columns=list(HEADER))
    table["RecordID"] = table["RecordID"].astype(random.choice(("int64", "str", "float64", "uint64", "Int64")))
    table["Value"] = table["Value"].astype(random.choice(("float64", "str", "float64", "Float64", "category")))
    table["Parameter"] = table["Parameter"].astype(random.choice(("str", "object", "category")))
    lost = random.random() < 0.3
    if lost:
        column = random.choice(HEADER)
        table[column] = table[column].astype(object)
        table.loc[random.randrange(len(table)), column] = random.choice((None, "", "NA", "x", "-5", "TempF"))
        if column in ("RecordID", "Value"):
            table[column] = table[column].map(lambda cell: None if cell is None else str(cell))
    rows = [["" if pd.isna(cell) else str(cell) for cell in row] for row in table.itertuples(index=False)]
    index = random.choice(("range", "numbers", "unnamed", "other", "column", "two"))
    readable = index not in ("unnamed", "other")
    if index == "numbers":
        table.index = pd.Index(random.sample(range(1000), len(table)))
    elif index == "two":
        table = table.set_index(["RecordID", "Time"])
    elif index != "range":
        table = table.set_index("RecordID").rename_axis({"unnamed": None, "other": "stay"}.get(index, "RecordID"))
    path = bench.case / random.choice(("table.parquet", "TABLE.PARQUET"))
    table.to_parquet(path)
    is_damaged = random.random() < 0.1
    if is_damaged:
        path.write_bytes(damaged(random, path.read_bytes()))
        lost = True
    stays = attempt(lambda: read_raw(path, VARIABLES))
    if isinstance(stays, str) and readable and not lost:
        raise FuzzError(f"refused a harmless table with the index {index!r}: {stays}")
    if isinstance(stays, str) and not readable and not lost and "index" not in stays:
        raise FuzzError(f"does not name the index: {stays}")
    _check_server(random, bench, path, stays, PARQUET)
    if isinstance(stays, str):
        return "refused"
    if is_damaged:  # a changed byte may be another value: Parquet files have no checksums of their values
        return "kept"
    if any(not cell.strip() for row in rows for cell in row):
        raise FuzzError("kept a row with an empty cell")
    return check_stays(stays, second_reading([[_whole(row[0]), *row[1:]] for row in rows]), "Parquet")


def _whole(text: str) -> str:
    value = number(text)
    return text if value is None or value % 1 else str(int(value))


def _check_server(random: Random, bench: Bench, path: Path, stays: BinnedStays | str, kind: str) -> None:
    """Raise FuzzError if the server does not answer to a table as `imputune predict` does.

    Risks are computed for every fourth table, and the counts of rows are compared for all.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    status, answer = bench.server.post(content, kind)
    if status == 500 and isinstance(stays, str) and str(answer).startswith(NO_TEXT):
        return
    if status not in (200, 400):
        raise FuzzError(f"status {status}: {answer}")
    if isinstance(stays, str):
        told = sentence(answer)
        if status != 400:
            raise FuzzError(f"the server answers what predict refuses: {stays}")
        if not told.startswith(MLFLOWS_OWN) and told != stays.removeprefix(f"{path}: "):
            raise FuzzError(f"the server says {told!r}, predict {stays!r}")
        return
    if status != 200:
        raise FuzzError(f"the server refuses what predict reads: {sentence(answer)}")
    rows, cells_N = rows_of(answer), (~np.isnan(stays.values_NTD)).sum(axis=(1, 2))
    counts = [(row["RecordID"], row["observed_cells"], row["rows_ignored"]) for row in rows]
    if counts != list(zip(stays.stay_ids_N, cells_N, stays.ignored_N, strict=True)):
        raise FuzzError(f"the server counts {counts}, predict other rows or cells")
    if random.randrange(4):
        return
    for row, expected in zip(rows, bench.bundle.predict(stays).to_dict("records"), strict=True):
        if row.keys() != expected.keys() or not math.isclose(row["risk"], expected["risk"], abs_tol=1e-6):
            raise FuzzError(f"the server says {row}, predict {expected}")
