"""The outcomes file of a set: in-hospital death by record id, also as other programs save it again."""

import csv
import io
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from imputune.data.raw.records import RecordSet
from imputune.data.raw.text import is_utf16
from imputune.errors import UserError

_ID, _OUTCOME = "RecordID", "In-hospital_death"
_SEPARATORS = (",", ";", "\t")


def parse_outcomes(record_set: RecordSet) -> pd.Series:
    """Return in-hospital death, 0 or 1, by record id; raises UserError that names the faulty line.

    Fields may be quoted, the separator may be a comma, a semicolon or a tab, and blank lines may stand at the end.
    """
    name = record_set.outcomes_name
    (_, header), *lines = _lines(name, record_set.outcomes)
    if missing := [column for column in (_ID, _OUTCOME) if column not in header]:
        if len(header) == 1 and _ID in header[0] and _OUTCOME in header[0]:
            raise UserError(
                f"{name} line 1: no commas, semicolons or tabs between the columns; separate them by commas"
            )
        raise UserError(f"{name} line 1: no column {missing[0]}; the challenge's outcomes file is needed")
    outcome_of: dict[int, int] = {}
    for number, fields in lines:
        if len(fields) != len(header):
            raise UserError(f"{name} line {number}: {len(fields)} fields, not {len(header)}; correct or remove it")
        record_id, outcome = fields[header.index(_ID)], fields[header.index(_OUTCOME)]
        if not record_id.isdecimal() or outcome not in ("0", "1"):
            raise UserError(
                f"{name} line {number}: {_ID} {record_id!r} and {_OUTCOME} {outcome!r} must be a whole "
                "number and 0 or 1; correct or remove the line"
            )
        if int(record_id) in outcome_of:
            raise UserError(f"{name} line {number}: duplicate id {record_id}; keep one of its lines")
        outcome_of[int(record_id)] = int(outcome)
    return pd.Series(outcome_of, dtype=np.int8)


def _lines(name: str, content: bytes) -> list[tuple[int, list[str]]]:
    """Return the number and the fields of each line, the header first (empty if there is none), up to the last filled.

    The separator is the first one that gives the header both columns, or the comma.
    """
    if is_utf16(content):
        raise UserError(f"{name} line 1: the file is UTF-16 text; save it as UTF-8")
    text = content.decode("utf-8-sig", errors="replace")
    first = "".join(text.splitlines()[:1]).replace('"', "")
    headers = {separator: [field.strip() for field in first.split(separator)] for separator in _SEPARATORS}
    fit = (separator for separator, header in headers.items() if _ID in header and _OUTCOME in header)
    lines = list(_split(name, io.StringIO(text, newline=""), next(fit, ",")))
    while lines and not any(lines[-1][1]):
        lines.pop()
    return lines or [(1, [])]


def _split(name: str, text: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(text, delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        number = reader.line_num + 1  # a quoted field may go over several lines
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise UserError(
                f"{name} line {number}: a quotation mark is not closed, or closed too early; correct the line"
            ) from None
        yield number, [field.strip() for field in fields]
