"""The outcomes file of a set: outcomes by record id, also as other programs save it again."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from imputune.data.outcome_file import NO_LABEL
from imputune.data.raw.records import RecordSet
from imputune.data.raw.text import is_utf16
from imputune.errors import UserError
from imputune.runtime.console import counted

_ID, _OUTCOME = "RecordID", "In-hospital_death"
_STAY, _SURVIVAL = "Length_of_stay", "Survival"
_SEPARATORS = (",", ";", "\t")
_DAYS = re.compile(r"-1|\d{1,6}", re.ASCII)
WINDOW_DAYS = 2
"""Days of the window: what happened earlier is known before it ends."""
YEAR_DAYS = 365
_NO_DAYS = -2


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


def further_outcomes(record_set: RecordSet, stay_ids_N: np.ndarray, note: Callable[[str], None]) -> pd.DataFrame:
    """Return further outcomes of the set's stays among these, by id: 0, 1 or NO_LABEL; none for a column that it lacks.

    los_over_3_days, los_over_7_days: Length_of_stay, the days from ICU admission to the end of the hospital stay, which
    death ends too. one_year_survival: Survival, the days from ICU admission to death, is over 365 or -1 (no death
    recorded). A stay has no label if the days are not recorded, are no whole number, contradict in-hospital death, or
    end before hour 48, so that the outcome is known before the window ends; `note` is told how many.

    Source: Silva et al. 2012, https://physionet.org/content/challenge-2012/.
    """
    name = record_set.outcomes_name
    (_, header), *lines = _lines(name, record_set.outcomes)
    table = pd.DataFrame([fields for _, fields in lines], columns=header, dtype=str)
    table.index = pd.Index(table[_ID].astype(np.int64))
    table = table[table.index.isin(stay_ids_N)]
    found: dict[str, pd.Series] = {}
    if _STAY in table:
        days = _days(table[_STAY])
        for limit in (3, 7):
            found[f"los_over_{limit}_days"] = (days > limit).astype(np.int8).where(days >= WINDOW_DAYS, NO_LABEL)
        _tell(name, _STAY, {"not recorded": days == -1, **_unfit(days)}, note)
    if _SURVIVAL in table:
        days = _days(table[_SURVIVAL])
        contradicted = (table[_OUTCOME] == "1") & (days == -1)
        known = ((days >= WINDOW_DAYS) | (days == -1)) & ~contradicted
        survived = ((days == -1) | (days > YEAR_DAYS)).astype(np.int8)
        found["one_year_survival"] = survived.where(known, NO_LABEL)
        _tell(name, _SURVIVAL, {"-1 for a death in hospital": contradicted, **_unfit(days)}, note)
    return pd.DataFrame(found, index=table.index, dtype=np.int8)


def _days(text: pd.Series) -> pd.Series:
    """Return days, -1 as it stands, and _NO_DAYS for other text than whole numbers from -1 on."""
    fits = text.map(lambda each: _DAYS.fullmatch(each) is not None).astype(bool)
    return text.where(fits, str(_NO_DAYS)).astype(np.int64)


def _unfit(days: pd.Series) -> dict[str, pd.Series]:
    return {"under 2 days, so known before hour 48": days.between(0, 1), "no whole number": days == _NO_DAYS}


def _tell(name: str, column: str, reasons: dict[str, pd.Series], note: Callable[[str], None]) -> None:
    """Note how many stays have no label, by reason."""
    counts = {reason: int(without.sum()) for reason, without in reasons.items()}
    if any(counts.values()):
        words = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count)
        stays = counted(len(next(iter(reasons.values()))), "stay")
        note(f"{sum(counts.values()):,} of {stays} have no label from {column} in {name}: {words}")


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
