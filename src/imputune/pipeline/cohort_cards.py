"""What cards tell of a cohort: size, source, rules, and the day on which it was extracted."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

from imputune.artifacts.model_card import CardCohort
from imputune.data.cohort import Cohort
from imputune.pipeline.further_cohorts import cohort_name

_COUNTS = TypeAdapter(dict[str, int])


def card_cohort(cohort: Cohort, folder: Path, digest: str) -> CardCohort:
    """Return what a card tells of the cohort in a folder, whose hash is `digest`."""
    stays, hours, _ = cohort.values_NTD.shape
    return CardCohort(
        name=f"{cohort.dataset} ({name})" if (name := cohort_name(cohort, folder)) != cohort.dataset else name,
        cohort_hash=digest,
        stays=stays,
        outcomes=cohort.events,
        outcome=cohort.outcome,
        labelled=labelled if (labelled := int(cohort.labelled_N.sum())) < stays else None,
        hours=hours * cohort.bin_hours,
        bin_hours=cohort.bin_hours,
        extracted=extraction_day(folder),
        command=str(cohort.source.get("command", "")),
        rules=_rules(cohort.source),
        exclusions=_COUNTS.validate_python(cohort.source["exclusions"]),
    )


def extraction_day(folder: Path) -> str:
    """Return the day, YYYY-MM-DD in UTC, on which a cohort's files were written.

    source.json itself has no date, so that the same records give the same bytes on every day. A copy that does not keep
    the times of files has the day of the copy.
    """
    return datetime.fromtimestamp((folder / "source.json").stat().st_mtime, UTC).strftime("%Y-%m-%d")


def _rules(source: Mapping[str, JsonValue]) -> dict[str, str]:
    rules = source.get("rules")
    found = {name.replace("_", " "): _text(rule) for name, rule in rules.items()} if isinstance(rules, dict) else {}
    return ({"sets": _text(source["sets"])} if "sets" in source else {}) | found


def _text(value: JsonValue) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
