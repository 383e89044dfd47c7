"""A registered version: its number, and what its tags say of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from pydantic import TypeAdapter

from imputune.protocol.imputers import is_own
from imputune.protocol.variants import FIELDS
from imputune.registry.names import FOLD_SCORES_TAG

RECALIBRATED_FROM = "recalibrated_from"
RECALIBRATED_ON = "recalibrated_on"
RECALIBRATED_COHORTS = "recalibrated_cohorts"
EVALUATED = "evaluated_"  # begins the tag of a cohort on which a version was evaluated
UNCHANGED_SCORES = ("validation_auc", "validation_auprc", "test_auc", "test_auprc")
"""The fold scores that recalibration leaves as they are, because it keeps the order of the stays."""
ScoresByFold = dict[int, dict[str, float]]
_SCORES_BY_FOLD = TypeAdapter(ScoresByFold)


@dataclass(frozen=True, eq=False, kw_only=True)
class Version:
    """A registered version."""

    name: str
    number: int
    run_id: str
    tags: Mapping[str, str]
    description: str = ""

    @cached_property
    def fold_scores(self) -> ScoresByFold:
        """Each fold's final scores by name; empty if an early version of imputune registered the version."""
        return _SCORES_BY_FOLD.validate_json(self.tags.get(FOLD_SCORES_TAG, "{}"))

    def mean(self, score: str) -> float:
        """Return the mean of a score over folds."""
        return fmean(scores[score] for scores in self.fold_scores.values())

    def tag(self, name: str) -> str:
        """Return one of imputune's tags by its short name, "" if it is missing."""
        return self.tags.get(f"imputune.{name}", "")

    @property
    def is_recalibrated(self) -> bool:
        """Whether `imputune recalibrate` made it from another version."""
        return bool(self.tag(RECALIBRATED_FROM))

    @property
    def recalibrated_cohorts(self) -> list[str]:
        """The hashes of the cohorts that it was recalibrated on, one after the other."""
        return [digest for digest in self.tag(RECALIBRATED_COHORTS).split(",") if digest]

    @property
    def variant(self) -> str:
        """The name of the variant that was fine-tuned, mlp2-frozen-hidden-plateau; before it an imputer's own name."""
        name, imputer = "-".join(self.tag(field) for field in FIELDS), self.tag("imputer")
        return f"{imputer}/{name}" if imputer and is_own(imputer) else name
