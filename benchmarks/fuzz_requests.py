"""Fuzzed JSON requests to the server of a model; see `fuzz_tables`."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from benchmarks.fuzz_bench import Bench
from benchmarks.fuzz_inputs import HEADER, IDS, JUNK, FuzzError, Reading, damaged, measurements, second_reading
from benchmarks.fuzz_server import rows_of, sentence

JSON = "application/json"


def fuzz_requests(random: Random, bench: Bench) -> str:
    """A JSON request in mlflow's forms: 200 with what the cells say, or 400 with a sentence."""
    rows: list[list[Any]] = [
        [int(row[0]), row[1], row[2], float(row[3])] for row in measurements(random, IDS[: random.randrange(1, 3)])
    ]
    columns, is_harmless = list(HEADER), random.random() < 0.3
    for _ in range(0 if is_harmless else random.choice((1, 1, 2))):
        _break_request(random, columns, rows)
    form = random.choice(("dataframe_split", "dataframe_records", "inputs", "inputs by column", "instances"))
    if form in ("inputs by column", "instances"):  # there mlflow itself makes true 1 among numbers
        rows = [["true" if cell is True else cell for cell in row] for row in rows]
    records = [dict(zip(columns, row, strict=False)) for row in rows]
    body: Any = {form: records}
    if form == "dataframe_split":
        body = {form: {"columns": columns, "data": rows}}
    elif form == "inputs by column":
        body = {"inputs": {name: [record.get(name) for record in records] for name in columns}}
    text = json.dumps(body)
    if not is_harmless and random.random() < 0.2:
        text = damaged(random, text.encode()).decode(errors="ignore")
    status, answer = bench.server.post(text.encode(), JSON)
    if status == 400:
        if is_harmless:
            raise FuzzError(f"{form}: refused a harmless request: {sentence(answer)}")
        if not sentence(answer).strip():
            raise FuzzError(f"{form}: 400 without a sentence")
        return "refused"
    if status != 200:
        raise FuzzError(f"{form}: status {status}: {answer}")
    return _check_answer(rows_of(answer), _second_request(text.encode()))


def _break_request(random: Random, columns: list[str], rows: list[list[Any]]) -> None:
    row = random.choice([row for row in rows if row] or [[None]])
    junk: tuple[Any, ...] = (
        None,
        True,
        [],
        [1],
        {"a": 1},
        10**400,
        -(2**63),
        2**53,
        1e308,
        1e39,
        float("nan"),
        float("inf"),
        1.5,
        "\ud800",
    )
    match random.randrange(8):
        case 0 | 1 | 2:
            row[random.randrange(len(row))] = random.choice(junk)
        case 3:
            row[random.randrange(len(row))] = random.choice(JUNK)
        case 4:
            rows.append(list(random.choice([row, [None] * len(row), [], [*row, 1]])))
        case 5:
            columns[random.randrange(len(columns))] = random.choice((*HEADER, "Value ", "value", "", "Value.1", "ward"))
        case 6:
            del rows[:]
            rows.append([None] * len(columns))
        case _:
            row[-1] = str(row[-1])


def _second_request(body: bytes) -> Reading | None:
    """Read the rows of a request that was answered; None if a cell is not what it must be."""
    [(form, table)] = [(name, part) for name, part in json.loads(body).items() if name != "params"]
    if form == "dataframe_split":
        names = [str(name).strip() for name in table["columns"]]
        records = [dict(zip(names, row, strict=False)) for row in table["data"]]
    elif isinstance(table, dict):
        names = [name.strip() for name in table]
        records = [dict(zip(names, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    else:
        records = [{str(name).strip(): cell for name, cell in record.items()} for record in table]
    if form == "instances":
        records = [record for record in records if record]  # mlflow passes over {}, which holds nothing
    return second_reading([[_text(record.get(name)) for name in HEADER] for record in records])


def _text(cell: object) -> str:
    if isinstance(cell, float) and math.isfinite(cell) and cell % 1 == 0 and abs(cell) < 2**53:
        return str(int(cell))
    return cell if isinstance(cell, str) else repr(cell)


def _check_answer(answer: Sequence[dict[str, Any]], expected: Reading | None) -> str:
    if expected is None:
        raise FuzzError("answered what the second reading cannot read")
    counts = Counter(stay for stay, _, _ in expected.cells)
    stays = counts.keys() | expected.ignored.keys()
    told = {row["RecordID"]: (row["observed_cells"], row["rows_ignored"]) for row in answer}
    if told != {stay: (counts[stay], expected.ignored[stay]) for stay in stays}:
        raise FuzzError(f"answered other counts {told} than {dict(counts)}, ignored {dict(expected.ignored)}")
    return "counted" if expected.ignored else "kept"
