"""What the card of a registered version tells, typed: the content of model_card.json, without any stay's record."""

from typing import Literal

from pydantic import ValidationError

from imputune.data.cohort import Variable
from imputune.data.window import Window
from imputune.evaluation.calibration import CalibrationLine
from imputune.evaluation.card_scores import FoldLine, StaysScores
from imputune.evaluation.stored import Stored
from imputune.protocol.division import Division
from imputune.protocol.outcome_words import OutcomeWords, outcome_words
from imputune.protocol.outcomes import DEFAULT_OUTCOME

FORMAT: Literal[1] = 1


class CardCohort(Stored):
    """A cohort: its size, the day on which its files were written, where it came from, and who was left out.

    outcomes: the number of stays with the outcome. labelled: of stays with a label, None if all have one. extracted:
    YYYY-MM-DD. hours, bin_hours: of the window. rules: of the extraction. exclusions: the number of stays left out, by
    reason.
    """

    name: str
    cohort_hash: str
    stays: int
    outcomes: int
    outcome: str = DEFAULT_OUTCOME
    labelled: int | None = None
    hours: int
    bin_hours: int = 1
    extracted: str
    command: str
    rules: dict[str, str]
    exclusions: dict[str, int]

    @property
    def outcome_rate(self) -> float:
        """The fraction of labelled stays with the outcome."""
        return self.outcomes / (self.labelled or self.stays)


class CardFact(Stored):
    """A static fact that a head reads."""

    parameter: str
    unit: str
    categories: tuple[int, ...]


class CardRecalibration(Stored):
    """What a version was recalibrated on: its source, the cohort, the line, and the calibration before and after.

    scores: of the corrected risks on that cohort, to which the line was fitted.
    """

    source: int
    cohort: CardCohort
    line: CalibrationLine
    before: dict[str, float]
    after: dict[str, float]
    scores: StaysScores


class ModelCard(Stored):
    """A registered version.

    imputer: its name; "" for a head that reads none. head, input, variant: "" for an imputer. cohort: on which it was
    trained; None if only its hash is known, as for versions that older versions of imputune registered. division: the
    protocol; None where it is not recorded, which is cross-validation. folds: test scores by fold; of an imputer, its
    errors. test: over the test stays of all folds, each by its own fold's model; None for an imputer, for a
    recalibrated version, and where it is not known. threshold: None for an imputer. lineage: what the version's tags
    say of where it comes from.
    """

    format: Literal[1] = FORMAT
    model: str
    version: int
    dataset: str
    outcome: str = DEFAULT_OUTCOME
    imputer: str
    head: str = ""
    input: str = ""
    variant: str = ""
    members: tuple[str, ...] = ()
    variables: tuple[Variable, ...]
    static: tuple[CardFact, ...] = ()
    cohort: CardCohort | None = None
    division: Division | None = None
    folds: tuple[FoldLine, ...] = ()
    test: StaysScores | None = None
    threshold: float | None = None
    threshold_rule: str = ""
    lineage: dict[str, str]
    recalibration: CardRecalibration | None = None

    @property
    def window(self) -> Window:
        """The window of its stays, the usual one if its cohort is not known."""
        return Window(hours=self.cohort.hours, bin_hours=self.cohort.bin_hours) if self.cohort else Window()

    @property
    def words(self) -> OutcomeWords:
        """The words for its outcome."""
        return outcome_words(self.outcome)


def parsed_card(text: str) -> ModelCard | None:
    """Return the card that model_card.json holds, None for a text of another form."""
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError:
        return None
