"""How the stays of a result were divided into training, validation and test stays, in numbers and words."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from imputune.settings.names import ProtocolName


class Division(BaseModel):
    """The protocol by which stays were divided.

    count: folds of cross_validation. fractions: of single_split, by split; of external the validation's alone. seeds:
    one for each split, none of cross_validation. cohorts: of external, name and number of stays of the cohort that
    trains, then of the one that tests; none where they are not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: ProtocolName = "cross_validation"
    count: int = 0
    fractions: dict[str, float] = Field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    cohorts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, JsonValue]) -> Self:
        """Return the division that the section folds of a result's settings tells of; see `Folds.in_effect`."""
        found = dict(settings)
        if "validation" in found:
            found["fractions"] = {"validation": found.pop("validation")}
        return cls.model_validate(found)

    @property
    def splits(self) -> int:
        """The number of folds, or of splits that count as folds."""
        return len(self.seeds) or self.count

    @property
    def percentages(self) -> str:
        """The percentages of training, validation and test stays, such as 64/16/20; of single_split."""
        return "/".join(f"{100 * self.fractions[split]:.4g}" for split in ("train", "validation", "test"))

    @property
    def label(self) -> str:
        """The protocol in a few words."""
        seeds = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        match self.protocol:
            case "cross_validation":
                return f"cross-validation, {self.count} folds"
            case "single_split":
                return f"single split {self.percentages}, {seeds}"
            case "external":
                return f"external, trained on {self._trained_on}, tested on {self.tested_on}, {seeds}"

    @property
    def tags(self) -> dict[str, str]:
        """The protocol as a tag; none of cross_validation, of which runs of earlier versions have no tag either."""
        return {} if self.protocol == "cross_validation" else {"protocol": self.label}

    @property
    def folder(self) -> str:
        """The folder for results in results/<dataset>; "" for cross_validation, whose results are not in a folder."""
        match self.protocol:
            case "cross_validation":
                return ""
            case "single_split":
                return f"single_split-{self.percentages.replace('/', '-')}"
            case "external":
                return "external"

    @property
    def sentences(self) -> str:
        """What the protocol is, and what it means for the numbers."""
        match self.protocol:
            case "cross_validation":
                return (
                    f"Each of {self.count} folds tests on one subset of the stays, validates on the next and trains on "
                    "the others. Every stay is a test stay once."
                )
            case "single_split":
                what = (
                    f"For each seed, the stays are divided at random into {self.percentages} % training, validation "
                    f"and test stays. Each split counts as a fold (seeds: {self._seeds})."
                )
                return f"{what} {OVERLAP if self.splits > 1 else ONE_SPLIT}"
            case "external":
                what = (
                    f"Models are trained on {self._trained_on}: for each seed, {100 * self.fractions['validation']:.4g}"
                    f" % of its stays, drawn at random, validate and the others train. All stays of {self.tested_on} "
                    f"are test stays. Each split counts as a fold (seeds: {self._seeds})."
                )
                return f"{what} {SAME_TEST if self.splits > 1 else ONE_SPLIT}"

    @property
    def tests_stays_once(self) -> bool:
        """Whether no stay can be a test stay of two splits."""
        return self.protocol == "cross_validation" or self.splits == 1

    @property
    def test_to_train(self) -> float:
        """The number of test stays over the number of training stays of a split, for `corrected_t_test`."""
        match self.protocol:
            case "cross_validation":
                return 1 / (self.count - 2)
            case "single_split":
                return self.fractions["test"] / self.fractions["train"]
            case "external":
                (_, train), (_, test) = self.cohorts
                return test / (train * (1 - self.fractions["validation"]))

    @property
    def _seeds(self) -> str:
        return ", ".join(map(str, self.seeds))

    @property
    def _trained_on(self) -> str:
        return self.cohorts[0][0] if self.cohorts else "one cohort"

    @property
    def tested_on(self) -> str:
        """The cohort of the test stays; of external."""
        return self.cohorts[-1][0] if self.cohorts else "another"


OVERLAP = (
    "Test sets of different seeds overlap: a stay can be a test stay of several splits, or of none. So the deviation "
    "over splits is no standard error; p-values take the overlap into account (Nadeau and Bengio 2003)."
)
SAME_TEST = (
    "All splits have the same test stays, so the deviation over splits says nothing of other test stays, and p-values "
    "are approximate."
)
ONE_SPLIT = "There is one split, so scores have no deviation and differences have no p-value."
