"""The codes of a dataset as a variable file to edit: most common first, with units and quantiles of their numbers."""

import csv
import io
import re
from collections.abc import Collection
from pathlib import Path

from imputune.data.raw.database import open_database, reported, scratch_folder
from imputune.data.raw.meds.codes import gives_outcome_away
from imputune.data.raw.meds.dataset_files import MedsFiles, find_meds, listed
from imputune.data.raw.meds.extraction import Resources, explained
from imputune.data.raw.meds.variable_file import TOLD
from imputune.data.raw.meds.variable_rows import pattern_of
from imputune.errors import UserError

FEWEST_SUBJECTS = 10
"""Codes of fewer subjects are left out: their quantiles could be values of single patients."""
HEADER = ("name", "unit", "codes", "combined", *TOLD)
_NO_UNIT = ("", "UNK", "N/A", "None", "null")


def suggest_variables(raw: Path, resources: Resources) -> tuple[str, int]:
    """Return a variable file of all codes with numbers, as CSV, and how many codes have too few subjects.

    Each code has a row: a name made of its description or of itself, the unit that stands in its last part, and for the
    reader its description, events, subjects, and the 1st, 50th and 99th percentile of its numbers, estimated and with
    three digits. Codes that give an outcome away are not listed.

    Raises UserError as `find_meds` does, and if no code has numbers of ten subjects or more.
    """
    with scratch_folder(resources.home, "meds") as scratch:
        files = find_meds(raw)
        with (
            # Estimated quantiles depend on the order of the numbers, and so on the number of threads.
            open_database(scratch, resources.memory_gib, 1, explained) as database,
            reported(database, "codes", files.size, resources.progress),
        ):
            found = database.execute(_sql(files)).fetchall()
    resources.progress("codes", files.size, files.size)
    rows = [row for row in found if row[3] >= FEWEST_SUBJECTS and not gives_outcome_away(row[0])]
    if not rows:
        raise UserError(f"no code has numbers of {FEWEST_SUBJECTS} or more subjects: write a variable file by hand")
    text, names = io.StringIO(newline=""), set[str]()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for code, description, events, subjects, quantiles in rows:
        name = _name(code, description or "", names)
        names.add(name)
        numbers = [f"{number:.3g}" for number in quantiles]
        writer.writerow((name, _unit(code), pattern_of(code), "mean", description or "", events, subjects, *numbers))
    return text.getvalue(), sum(row[3] < FEWEST_SUBJECTS for row in found)


def _sql(files: MedsFiles) -> str:
    path = files.descriptions()
    described = "SELECT NULL::VARCHAR AS code, NULL::VARCHAR AS description WHERE false"
    if path is not None:
        described = f"SELECT code, description FROM read_parquet({listed([path])})"
    return f"""
        WITH counted AS (
            SELECT code, count(*) AS events, count(DISTINCT subject_id) AS subjects,
                approx_quantile(number::FLOAT, [0.01, 0.5, 0.99]) AS quantiles
            FROM ({files.select()}) WHERE isfinite(number) AND code IS NOT NULL GROUP BY code
        )
        SELECT code, any_value(description), any_value(events), any_value(subjects), any_value(quantiles)
        FROM counted LEFT JOIN ({described}) USING (code) GROUP BY code
        ORDER BY any_value(subjects) DESC, any_value(events) DESC, code
    """


def _name(code: str, description: str, taken: Collection[str]) -> str:
    """Return a name in lower case and underscores that no other code has."""
    name = _slug(description) or _slug(code) or "code"
    if name in taken:
        name = _slug(f"{description} {code}")
    return name if name not in taken else f"{name}_{len(taken)}"


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower()).strip("_")


def _unit(code: str) -> str:
    """Return the last part of a code of three or more parts, where extractors put the unit."""
    parts = code.split("//")
    return parts[-1] if len(parts) > 2 and parts[-1] not in _NO_UNIT else ""
