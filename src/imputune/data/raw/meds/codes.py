"""Which of a dataset's codes each row of the variable file selects; codes that give the outcome away are refused."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from imputune.data.raw.database import create_table, reported
from imputune.data.raw.meds.dataset_files import MedsFiles
from imputune.data.raw.meds.variable_file import READY, VariableFile
from imputune.data.raw.meds.variable_rows import MARKS, CodeRow, Mark, NamedRows, matched_by
from imputune.errors import UserError, near_miss
from imputune.files import FileProgress

LEAKING = re.compile(
    r"discharge|mortality|deceased"
    r"|_(death[a-z]*|died|dead(?!_space)|dod|survival|survived|outcome|disch(time|date)?|los|length_of_stay)_"
    r"|^(?!.*_(volume|tidal|minute|gas|air|flow|o2|co2|oxygen|carbon)_).*_expired?_"
    r"|_(diagnos[ei]s|drg|hcpcs|bill(s|ed|ing)?)_|^_(cpt[0-9]?|claims?|icd)_"
    r"|_(diagnos[ei]s|procedures?)_icd|_icd_?(9|10|11)[a-z]*_"
)
"""Words of discharge, death, diagnoses and later billing, in lower case and with _ around each."""
WITH_OUTCOME: tuple[Mark, ...] = ("discharge", "died", "death")
SHOWN = 5
"""So many absent variables are shown, and looked for among a dataset's codes, of which there may be 100,000."""
LIKENESS, HARDLY_DIFFERENT = 0.7, 0.9
SEPARATOR = "//"
ANY_WORDS = f"{SEPARATOR}*"
_PURPOSE = {"start": "start a stay", "end": "end a stay", "birth": "give the time of birth"}


@dataclass(frozen=True, kw_only=True)
class CodeCounts:
    """How many events each code of a dataset has, and the events that have no subject or no code."""

    events: Mapping[str, int]
    unusable: int

    @property
    def total(self) -> int:
        """The number of all events."""
        return sum(self.events.values()) + self.unusable


@dataclass(frozen=True, kw_only=True)
class MeantCode:
    """One code of the dataset that a row means. item: the place of the variable, or of the static fact."""

    code: str
    item: int
    row: CodeRow


@dataclass(frozen=True, kw_only=True)
class MeantCodes:
    """What the variable file means in a dataset.

    marks: the codes of each mark that the dataset has. absent: each variable that no event has; for the first five with
    the near miss of its first code, or else with "".
    """

    variables: tuple[MeantCode, ...]
    statics: tuple[MeantCode, ...]
    marks: Mapping[Mark, tuple[str, ...]]
    absent: Mapping[str, str]


def count_codes(database: duckdb.DuckDBPyConnection, files: MedsFiles, progress: FileProgress) -> CodeCounts:
    """Count the events of each code; raises duckdb.Error for damaged files."""
    with reported(database, "codes", files.size, progress):
        rows = database.execute(
            f"SELECT code, count(*), count(*) - count(subject_id) FROM {files.scan()} GROUP BY code"
        ).fetchall()
    progress("codes", files.size, files.size)
    lost = sum(without if code is not None else events for code, events, without in rows)
    return CodeCounts(
        events={code: events - without for code, events, without in rows if code is not None}, unusable=lost
    )


def find_codes(file: VariableFile, known: Collection[str], with_age: bool) -> MeantCodes:
    """Find the codes that each row of the variable file selects among a dataset's codes.

    Raises UserError for a variable or static fact that selects a code of discharge, death or billing (by its words, or
    because the file has it as such a mark), a code that two variables claim, a dataset without any variable's
    codes, and one without those of a start or an end, or if `with_age`, of a birth.
    """
    marks = {mark: _matching(file.codes_of(mark), known) for mark in MARKS}
    needed: tuple[Mark, ...] = ("start", "end", "birth") if with_age else ("start", "end")
    for mark in needed:
        if not marks[mark]:
            wanted = file.codes_of(mark)
            option = f" or with --{mark}" if mark in ("start", "end") else ""
            raise UserError(
                f"no event has the code {' or '.join(wanted)}, which should {_PURPOSE[mark]}{_near(wanted, known)}: "
                f"name the code that this dataset has, in a row of kind {mark} of the variable file{option}"
            )
    refused = {code for mark in WITH_OUTCOME for code in marks[mark]}
    variables = tuple(_meant(file.variables, known, refused))
    statics = tuple(_meant(file.statics, known, refused))
    _refuse_two_claims(file.variables, variables)
    _refuse_two_claims(file.statics, statics)
    found = {each.item for each in variables}
    missing = [each for place, each in enumerate(file.variables) if place not in found]
    # A ready file names codes of several extractors: what is absent there is no slip of the pen.
    hinted = [] if file.name in READY else missing[:SHOWN]
    absent = {each.name: _near(_codes(each), known) if each in hinted else "" for each in missing}
    if not found:
        first = ", ".join(f"{name}{hint}" for name, hint in list(absent.items())[:SHOWN])
        raise UserError(
            f"no event has a code of the {len(absent)} variables ({first}{', ...' if len(absent) > SHOWN else ''}): "
            "choose another variable file, or correct the codes; --suggest-variables lists what the dataset has"
        )
    return MeantCodes(variables=variables, statics=statics, marks=marks, absent=absent)


def insert_codes(database: duckdb.DuckDBPyConnection, meant: MeantCodes, named: Sequence[NamedRows]) -> None:
    """Create the tables `codes`, `rules` and `words` of the variables, and `marks_of` of the marks."""
    ids = {code: number for number, code in enumerate(sorted({each.code for each in meant.variables}))}
    item_of = {each.code: each.item for each in meant.variables}
    first_row = {each.code: each.row.line for each in reversed(meant.variables)}
    places = [item_of[code] for code in ids]
    create_table(database, "codes", pa.table({"code": list(ids), "code_id": list(ids.values()), "variable": places}))
    rows = [(ids[each.code], each.row, named[each.item]) for each in meant.variables]
    rules = pa.table(
        {
            "code_id": [number for number, _, _ in rows],
            "is_first": [first_row[each.code] == each.row.line for each in meant.variables],
            "raw_unit": [row.raw_unit for _, row, _ in rows],
            "raw_lowest": [row.raw_lowest for _, row, _ in rows],
            "raw_highest": [row.raw_highest for _, row, _ in rows],
            "factor": [row.factor for _, row, _ in rows],
            "shift": [row.offset for _, row, _ in rows],
            "fixed": pa.array([row.value for _, row, _ in rows], pa.float64()),
            "lowest": [each.lowest for _, _, each in rows],
            "highest": [each.highest for _, _, each in rows],
        }
    )
    create_table(database, "rules", rules)
    numbers = {(number, word): value for number, row, _ in rows for word, value in row.words.items()}
    words = pa.table(
        {
            "code_id": pa.array([number for number, _ in numbers], pa.int64()),
            "word": pa.array([word for _, word in numbers], pa.string()),
            "number": pa.array(list(numbers.values()), pa.float64()),
        }
    )
    create_table(database, "words", words)
    marked = [(code, mark) for mark, codes in meant.marks.items() for code in codes]
    marks = pa.table({"code": [code for code, _ in marked], "mark": [mark for _, mark in marked]})
    create_table(database, "marks_of", marks)


def gives_outcome_away(code: str) -> bool:
    """Say whether a code is one of discharge, death, diagnosis or billing: recorded when the outcome is known."""
    words = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).lower())
    return LEAKING.search(f"_{words.strip('_')}_") is not None


def _meant(named: Sequence[NamedRows], known: Collection[str], refused: Collection[str]) -> Iterator[MeantCode]:
    for item, each in enumerate(named):
        for row in each.rows:
            for code in _matching(row.patterns, known):
                if code in refused or gives_outcome_away(code):
                    raise UserError(
                        f"{each.name} selects the code {code!r} of discharge, death, diagnosis or billing, recorded "
                        f"when the outcome is known: remove it from line {row.line} of the variable file"
                    )
                yield MeantCode(code=code, item=item, row=row)


def _refuse_two_claims(named: Sequence[NamedRows], meant: Iterable[MeantCode]) -> None:
    claims: dict[str, list[MeantCode]] = {}
    for each in meant:
        for other in claims.setdefault(each.code, []):
            if other.item != each.item:
                both = f"{named[other.item].name} (line {other.row.line}) and {named[each.item].name}"
                raise UserError(f"{both} (line {each.row.line}) both claim the code {each.code!r}: leave it to one")
            if _overlap(other.row, each.row):
                raise UserError(
                    f"lines {other.row.line} and {each.row.line} of the variable file both convert {each.code!r} of "
                    f"{named[each.item].name}: give them limits raw_lowest and raw_highest, or units, that differ"
                )
        claims[each.code].append(each)


def _overlap(one: CodeRow, other: CodeRow) -> bool:
    if one.raw_unit and other.raw_unit and one.raw_unit != other.raw_unit:
        return False
    return max(one.raw_lowest, other.raw_lowest) <= min(one.raw_highest, other.raw_highest)


def _codes(named: NamedRows) -> tuple[str, ...]:
    return tuple(pattern for row in named.rows for pattern in row.patterns)


def _matching(patterns: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """Return the known codes that a code or pattern means; see `matched_by`."""
    found: list[str] = []
    for pattern in patterns:
        if "*" in pattern or "\\" in pattern:
            found += sorted(filter(matched_by(pattern), known))
        elif pattern in known:
            found.append(pattern)
    return tuple(dict.fromkeys(found))


def _near(patterns: Sequence[str], known: Collection[str]) -> str:
    """Return the near miss of the first code for which there is one, as words, or "".

    It is a pattern of all known codes that begin with as many words as the code has, if they are hardly different, or
    else a known code.
    """
    return next(filter(None, (_near_code(pattern.rstrip("*/"), known) for pattern in patterns)), "")


def _near_code(code: str, known: Collection[str]) -> str:
    words = code.count(SEPARATOR) + 1
    beginnings = {
        f"{SEPARATOR.join(each.split(SEPARATOR)[:words])}{ANY_WORDS}"
        for each in known
        if each.count(SEPARATOR) >= words
    }
    return near_miss(f"{code}{ANY_WORDS}", beginnings, HARDLY_DIFFERENT) or near_miss(code, known, LIKENESS)
