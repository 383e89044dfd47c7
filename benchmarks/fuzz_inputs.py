"""Random measurements, what other programs and accidents do to their text, and a second reading that judges the first.

The second reading shares no code with the package: Python's csv and json modules, one cell at a time.
"""

import codecs
import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from imputune.data.raw.binning import BinnedStays
from imputune.data.raw.physionet2012_parameters import VARIABLES

Row = tuple[str, str, str, str]
HEADER: Row = ("RecordID", "Time", "Parameter", "Value")
IDS = (132539, 7, 2**40)
NAMES = tuple(variable.name for variable in VARIABLES)
OTHERS = ("RecordID", "Age", "Gender", "Height", "ICUType", "Weight", "MechVent")
JUNK = (
    *(
        "",
        " ",
        "NA",
        "nan",
        "null",
        "None",
        "inf",
        "-inf",
        "1e400",
        "1e39",
        "-1",
        "-0",
        "0x10",
        "1_0",
        "1,5",
        "٣",
        "１",
    ),
    *(
        "true",
        "True",
        "HR",
        "hr",
        "Hr ",
        "SysPAP",
        "TempF",
        "Na",
        "70 ",
        "+70",
        ".5",
        "5.",
        "1e2",
        "99999999999999999999",
    ),
    *(
        "00:10",
        "0:10",
        "24:00",
        "48:00",
        "99:59",
        "12:60",
        "10:00:00",
        "2012-01-01",
        '"',
        "'",
        "a\tb",
        "\x00",
        "é",
        "💉",
    ),
)


class FuzzError(Exception):
    """What the package did that it must not do."""


@dataclass(frozen=True)
class Reading:
    """The mean of each (stay, hour, variable), and the number of ignored rows of each stay that has any."""

    cells: dict[tuple[int, int, str], float]
    ignored: Counter[int]


def measurements(random: Random, ids: Sequence[int]) -> list[Row]:
    """Return some rows of each stay, no two of the same stay, time and parameter; a few do not count."""
    rows = {}
    for stay in ids:
        hours, lowest, measured = random.choice(((48, 0, 1.0), (48, 0, 1.0), (50, -5, 0.9)))
        for _ in range(random.randrange(1, 9)):
            time = f"{random.randrange(hours):02d}:{random.randrange(60):02d}"
            name = random.choice(NAMES if random.random() < measured else OTHERS[1:])
            value = random.choice((str(random.randrange(lowest, 200)), f"{random.uniform(lowest, 200):.3f}"))
            rows[stay, time, name] = (str(stay), time, name, value)
    return list(rows.values())


def second_reading(rows: Iterable[Sequence[str]], unnamed_count: bool = False) -> Reading | None:
    """Read rows of text one at a time; None if one of them cannot be read, or repeats another.

    `unnamed_count`: whether a row without a parameter's name is ignored, as in text records, or unreadable.
    """
    values, ignored, seen = defaultdict[tuple[int, int, str], list[float]](list), Counter[int](), set[object]()
    for row in rows:
        stay_text, time, name, text = (cell.strip() for cell in row)
        stay, value, clock = number(stay_text), number(text), re.fullmatch(r"([0-9]{2}):([0-5][0-9])", time)
        if stay is None or stay % 1 or abs(stay) >= 2**53 or clock is None:
            return None
        if not name and unnamed_count:
            ignored[int(stay)] += 1
            continue
        if name not in NAMES + OTHERS or value is None or (key := (stay, time, name, value)) in seen:
            return None
        seen.add(key)
        if name not in NAMES or int(clock[1]) >= 48 or value < 0:
            ignored[int(stay)] += 1
        else:
            values[int(stay), int(clock[1]), name].append(value)
    return Reading({key: sum(many) / len(many) for key, many in values.items()}, ignored)


def number(text: str) -> float | None:
    """Return the number that a text in ASCII digits stands for, if it fits a cell."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return None
    value = float(text)
    return value if abs(value) <= float(np.finfo(np.float32).max) else None


def check_stays(stays: BinnedStays, expected: Reading | None, what: str) -> str:
    """Return "kept", or "counted" if rows were ignored; raise FuzzError if the stays are not those of the reading."""
    if expected is None:
        raise FuzzError(f"{what}: kept what the second reading cannot read")
    found = {}
    for n, hour, d in zip(*np.nonzero(~np.isnan(stays.values_NTD)), strict=True):
        found[int(stays.stay_ids_N[n]), int(hour), NAMES[d]] = float(stays.values_NTD[n, hour, d])
    if found.keys() != expected.cells.keys():
        raise FuzzError(f"{what}: other cells than in the text ({sorted(found.keys() ^ expected.cells.keys())[:2]})")
    for key, value in expected.cells.items():
        if not np.isclose(found[key], value, rtol=1e-6, atol=1e-30):
            raise FuzzError(f"{what}: {key} is {found[key]!r}, in the text {value!r}")
    ignored = {int(stay): int(count) for stay, count in zip(stays.stay_ids_N, stays.ignored_N, strict=True) if count}
    if ignored != dict(expected.ignored):
        raise FuzzError(f"{what}: counts {ignored} ignored rows, not {dict(expected.ignored)}")
    return "counted" if ignored else "kept"


def to_csv(rows: Iterable[Sequence[str]], quoting: int = csv.QUOTE_MINIMAL, end: str = "\n", mark: str = ",") -> str:
    """Return rows as text."""
    text = io.StringIO()
    # mypy knows the constants of csv only one by one
    csv.writer(text, quoting=quoting, lineterminator=end, delimiter=mark).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def from_csv(content: bytes) -> list[list[str]] | None:
    """Return the rows of a CSV text without blank lines; None if it is none."""
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row and row != [""]]
    except (UnicodeDecodeError, csv.Error):
        return None


def harmless(random: Random, header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Write a table as another program may, in a way that changes no value; return the content."""
    table = [list(header), *map(list, random.sample(list(rows), len(rows)))]
    ways: tuple[Callable[[], str], ...] = (
        lambda: to_csv(table),
        lambda: "\ufeff" + to_csv(table),
        lambda: to_csv(table, csv.QUOTE_ALL),
        lambda: "\ufeff" + to_csv(table, csv.QUOTE_ALL),
        lambda: to_csv(table, end="\r\n"),
        lambda: to_csv(table) + "\n" * random.randrange(1, 4),
        lambda: to_csv(table).removesuffix("\n"),
    )
    return random.choice(ways)().encode()


def broken(random: Random, header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Damage a table in one to three places: cells, rows, columns or bytes."""
    table = [list(header), *map(list, rows)]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _break_table(random, table)
    content = to_csv(table, mark=random.choice(",,,,,,;\t")).encode()
    return damaged(random, content) if random.random() < 0.25 else content


def _break_table(random: Random, table: list[list[str]]) -> None:
    at = random.randrange(len(table))
    row = table[at]
    column = random.randrange(max(1, len(row)))
    match random.randrange(9):
        case 0 | 1 | 2 if row:
            row[column] = random.choice(JUNK)
        case 3:
            table.insert(random.randrange(len(table) + 1), random.choice([list(row), [""] * len(row), ["x"], row * 2]))
        case 4:
            del table[at]
            table.extend([[]] * (not table))
        case 5:
            table[at] = random.choice([row[:-1], [*row, ""], [*row, "9"], ["7", *row]])
        case 6:
            for each in table:
                each.insert(min(column, len(each)), random.choice(JUNK))
        case 7 if row:
            row[column] = random.choice((f" {row[column]}", f"{row[column]} ", row[column].lower(), row[column] * 2))
        case _:
            table.append([""] * len(row))


def damaged(random: Random, content: bytes) -> bytes:
    """Change, remove or add bytes, or write the text in another encoding."""
    at = random.randrange(len(content) + 1)
    match random.randrange(6):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + content[at + 1 :]
        case 2:
            return content[:at] + bytes([random.randrange(256)]) + content[at:]
        case 3:
            return content[:at] + bytes([random.randrange(256)]) + content[at + 1 :]
        case 4:
            return content.decode(errors="replace").encode("utf-16")
        case _:
            return content[:at] + content[at // 2 :]
