"""The words in which texts speak of outcomes; no other place knows them."""

from dataclasses import dataclass

from imputune.protocol.outcomes import DEFAULT_OUTCOME

LABELS = {
    DEFAULT_OUTCOME: "in-hospital death",
    "los_over_3_days": "length of stay over 3 days",
    "los_over_7_days": "length of stay over 7 days",
    "one_year_survival": "survival to one year",
    "readmission_within_30_days": "readmission within 30 days",
}


@dataclass(frozen=True, kw_only=True)
class OutcomeWords:
    """How texts speak of an outcome.

    label: the outcome itself. event, events: one stay and several with label 1; non_event, non_events: with label 0.
    happened, happen: what stays with label 1 did, or do. with_it, without_it: these stays, as the object of a sentence.
    """

    label: str
    event: str = "event"
    events: str = "events"
    non_event: str = "non-event"
    non_events: str = "non-events"
    happened: str = "had the outcome"
    happen: str = "have the outcome"
    with_it: str = "stays with the outcome"
    without_it: str = "stays without it"

    @property
    def share(self) -> str:
        """The share of stays with label 1, as the label of an axis."""
        return f"share that {self.happened}"

    @property
    def both(self) -> str:
        """Events and non-events, as in a sentence."""
        return f"{self.events} and {self.non_events}"

    def sentence(self, events: int) -> str:
        """Say of how many stays label 1 is."""
        if self == DEATH:
            return f"{events:,} {'patient' if events == 1 else 'patients'} died in hospital."
        return f"{events:,} {'stay has' if events == 1 else 'stays have'} the outcome, {self.label}."

    def counted(self, events: int) -> str:
        """Return a number of events in words."""
        return f"{events:,} {self.event if events == 1 else self.events}"

    def counted_without(self, non_events: int) -> str:
        """Return a number of non-events in words."""
        return f"{non_events:,} {self.non_event if non_events == 1 else self.non_events}"


DEATH = OutcomeWords(
    label=LABELS[DEFAULT_OUTCOME],
    event="death",
    events="deaths",
    non_event="survivor",
    non_events="survivors",
    happened="died",
    happen="die",
    with_it="those who died",
    without_it="the survivors",
)


def outcome_words(name: str) -> OutcomeWords:
    """Return the words for an outcome; one without words of its own is called by its name."""
    if name == DEFAULT_OUTCOME:
        return DEATH
    return OutcomeWords(label=LABELS.get(name, name.replace("_", " ")))
