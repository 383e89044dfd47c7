"""The rows of a variable file: what each cell may hold, and how rows of one name go together."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast, get_args

from imputune.errors import near_miss

Combined = Literal["mean", "sum", "last", "lowest", "highest"]
Mark = Literal["start", "end", "birth", "death", "admission", "discharge", "died"]
Kind = Literal["variable", "static", "age", "start", "end", "birth", "death", "admission", "discharge", "died"]
MARKS: tuple[Mark, ...] = get_args(Mark)
NUMBERS = ("factor", "offset", "lowest", "highest", "raw_lowest", "raw_highest", "value")
COLUMNS = ("name", "kind", "unit", "codes", "combined", *NUMBERS, "raw_unit", "words")
_BETWEEN, _ANY_TEXT = re.compile(r"(?<!\\);"), re.compile(r"(?<!\\)\*")
_SIGNS, _ESCAPED = re.compile(r"[*;]"), re.compile(r"\\([*;])")
TAKEN = ("stay_id", "subject_id", "source_id", "died", "outcome", "age_years")
"""Names that columns of a cohort's stays.csv have already."""


@dataclass(frozen=True, kw_only=True)
class CodeRow:
    """One row: codes or patterns, and how an event of theirs becomes a number.

    A number in the limits raw_lowest to raw_highest, and of raw_unit if given, is multiplied by `factor`; then `offset`
    is added. `value` is the number that an event of these codes stands for. words: numbers of text values.
    """

    line: int
    patterns: tuple[str, ...]
    factor: float = 1.0
    offset: float = 0.0
    raw_lowest: float = -math.inf
    raw_highest: float = math.inf
    raw_unit: str = ""
    value: float | None = None
    words: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NamedRows:
    """A variable or a static fact: its unit, how values of a bin are combined, the accepted range, and its rows."""

    name: str
    unit: str = ""
    combined: Combined = "mean"
    lowest: float = -math.inf
    highest: float = math.inf
    rows: tuple[CodeRow, ...] = ()


def split_patterns(cell: str) -> tuple[str, ...]:
    """Return the codes and patterns of a cell, which semicolons separate; a backslash makes one a part of a code."""
    return tuple(filter(None, (each.strip() for each in _BETWEEN.split(cell))))


def pattern_of(code: str) -> str:
    """Return the pattern that means this code alone: its asterisks and semicolons have a backslash."""
    return _SIGNS.sub(r"\\\g<0>", code)


def matched_by(pattern: str) -> Callable[[str], bool]:
    """Return what says whether a pattern means a code; in a pattern, * stands for any text."""
    literals = [_ESCAPED.sub(r"\g<1>", each) for each in _ANY_TEXT.split(pattern)]
    expression = re.compile(".*".join(map(re.escape, literals)), re.DOTALL)
    return lambda code: expression.fullmatch(code) is not None


def code_row(line: int, cells: Mapping[str, str]) -> CodeRow:
    """Read what a row's cells say of its codes; raises ValueError for a cell that cannot be read."""
    numbers = {name: _number(cells, name) for name in NUMBERS}
    patterns = split_patterns(cells["codes"])
    if not patterns:
        raise ValueError(f"{cells['name'] or cells['kind']} has no codes; give one, or remove the line")
    if numbers["factor"] == 0:
        raise ValueError("factor is 0; every value would be the same")
    row = CodeRow(
        line=line,
        patterns=patterns,
        raw_unit=cells["raw_unit"].lower(),
        value=numbers["value"],
        words=_words(cells["words"]),
        **{name: number for name, number in numbers.items() if number is not None and name in _OF_ROW},
    )
    if row.raw_lowest > row.raw_highest:
        raise ValueError(f"raw_lowest {row.raw_lowest:g} is above raw_highest {row.raw_highest:g}; exchange them")
    return row


_OF_ROW = ("factor", "offset", "raw_lowest", "raw_highest")


def named_rows(cells: Mapping[str, str], name: str) -> NamedRows:
    """Read what a row's cells say of its name, without codes; raises ValueError for a cell that cannot be read."""
    if not name or not name.isprintable():
        raise ValueError("name is empty; name the variable")
    lowest, highest = _number(cells, "lowest"), _number(cells, "highest")
    named = NamedRows(
        name=name,
        unit=cells["unit"],
        combined=cast(Combined, one_of(cells, "combined", get_args(Combined)) if cells["combined"] else "mean"),
        lowest=-math.inf if lowest is None else lowest,
        highest=math.inf if highest is None else highest,
    )
    if named.lowest > named.highest:
        raise ValueError(f"lowest {named.lowest:g} is above highest {named.highest:g}; exchange them")
    return named


def refuse_without_effect(kind: str, cells: Mapping[str, str]) -> None:
    """Raise ValueError for a cell that a row of this kind does not use, and for a static fact's name that is taken."""
    used = {
        "variable": COLUMNS,
        "static": [name for name in COLUMNS if name not in ("combined", "raw_unit")],
        "age": ("kind", "unit", "codes", "lowest", "highest", "raw_highest", "value"),
    }.get(kind, ("name", "kind", "codes"))
    if idle := [name for name in COLUMNS if cells[name] and name not in used]:
        raise ValueError(f"a row of kind {kind} does not use {idle[0]}; leave the cell empty")
    if kind == "static" and cells["name"] in TAKEN:
        raise ValueError(f"a static fact cannot be called {cells['name']}, as another column of stays.csv; rename it")
    if cells["value"] and (idle := [name for name in ("factor", "offset") if cells[name]]):
        raise ValueError(f"{idle[0]} has no effect beside value, which is taken as it stands; leave one of them empty")
    if kind == "age" and bool(cells["raw_highest"]) != bool(cells["value"]):
        raise ValueError("a row of kind age needs both raw_highest and value, or neither; fill in the other one")


def joined(earlier: NamedRows | None, named: NamedRows, cells: Mapping[str, str], row: CodeRow) -> NamedRows:
    """Return a name with one more row; a later row may leave out what the first one said of the name."""
    if earlier is None:
        return replace(named, rows=(row,))
    for column in ("unit", "combined", "lowest", "highest"):
        if cells[column] and getattr(named, column) != getattr(earlier, column):
            told = f"line {earlier.rows[0].line} has another one; make them equal, or leave this one empty"
            raise ValueError(f"{column} {cells[column]!r} of {named.name}: {told}")
    return replace(earlier, rows=(*earlier.rows, row))


def one_of(cells: Mapping[str, str], column: str, known: tuple[str, ...]) -> str:
    """Return a cell that must be one of the known words; raises ValueError with a near miss if it is not."""
    if cells[column] not in known:
        hint = near_miss(cells[column], known) or f" (known: {', '.join(known)})"
        raise ValueError(f"unknown {column} {cells[column]!r}{hint}; correct it")
    return cells[column]


def _number(cells: Mapping[str, str], column: str) -> float | None:
    if not cells[column]:
        return None
    try:
        number = float(cells[column])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{column} {cells[column]!r} is not a number; correct it")
    return number


def _words(cell: str) -> dict[str, float]:
    """Return the numbers of text values, from "Spontaneously=4; To Speech=3"; letter case does not count."""
    numbers: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in cell.split(";"))):
        word, equals, number = part.rpartition("=")
        if not equals or not word.strip():
            raise ValueError(f"words {part!r} must be WORD=NUMBER, several separated by semicolons; correct it")
        numbers[word.strip().lower()] = cast(float, _number({"words": number.strip() or "?"}, "words"))
    return numbers
