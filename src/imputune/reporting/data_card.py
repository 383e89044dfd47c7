"""A data card in Markdown: where a cohort comes from, who is in it, what was measured. The numbers are handed in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imputune.artifacts.model_card import CardCohort
from imputune.data.cohort import Variable
from imputune.data.cohort_facts import OutcomeFacts
from imputune.data.raw.synthetic import is_generated
from imputune.data.static import StaticVariable
from imputune.data.window import Window
from imputune.protocol.division import Division
from imputune.protocol.outcome_words import OutcomeWords, outcome_words
from imputune.reporting.card_scores import HIDDEN_TOO, small
from imputune.reporting.card_texts import cohort_lines
from imputune.reporting.tables import markdown_table
from imputune.runtime.console import counted


@dataclass(frozen=True, kw_only=True)
class MeasuredVariable:
    """A variable: the fraction of bins in which it was observed, and of stays in which it was observed at all."""

    variable: Variable
    bins: float
    stays: float


@dataclass(frozen=True, kw_only=True)
class KnownFact:
    """A static fact, and the fraction of stays for which it is known."""

    fact: StaticVariable
    stays: float


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """A subgroup that may be shown; stays and events are None where they would give a small group's away."""

    name: str
    stays: int | None
    events: int | None


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """What a data card tells.

    dataset: its name. observed: the fraction of cells that were observed. read: what the extraction counted, by name.
    splits: for each fold the number of training, validation and test stays; empty where no folds were drawn, or where
    they cannot be read: why_no_splits says why, as a sentence without its stop. division: the protocol of the folds.
    some_left_out: whether a subgroup is too small to be shown. further_outcomes: beside the card's own, by name.
    has_subjects: whether it is known which stays are of one subject.
    """

    dataset: str
    cohort: CardCohort
    observed: float
    read: Mapping[str, int]
    variables: Sequence[MeasuredVariable]
    facts: Sequence[KnownFact]
    splits: Sequence[tuple[int, int, int]]
    groups: Sequence[GroupSize]
    some_left_out: bool
    why_no_splits: str = ""
    division: Division | None = None
    further_outcomes: Mapping[str, OutcomeFacts] = field(default_factory=dict)
    has_subjects: bool = False
    window: Window = field(default_factory=Window)

    @property
    def _words(self) -> OutcomeWords:
        return outcome_words(self.cohort.outcome)

    def to_markdown(self) -> str:
        """Return the card."""
        parts = [
            f"# Data card of {self.cohort.name}",
            f"Stays in intensive care, in {self.window.bin_words} of their first {self.window.hours} hours, "
            f"with the outcome {self._words.label}.",
        ]
        for title, text in (
            ("Source and size", self._source()),
            ("Variables", self._variables()),
            ("Static facts", self._facts()),
            ("Splits", self._splits()),
            ("Subgroups", self._groups()),
            ("Limits", self._limits()),
        ):
            parts += [f"## {title}", text]
        return "\n\n".join(parts) + "\n"

    def _source(self) -> str:
        read = [f"{name.replace('_', ' ')}: {count:,}" for name, count in self.read.items()]
        further = [
            f"further outcome, {outcome_words(name).label}: {counted(each.events, 'stay')} ({each.event_share:.1%} of "
            f"{each.labelled:,} with a label)"
            for name, each in self.further_outcomes.items()
        ]
        lines = [*further, *read, f"observed cells: {self.observed:.1%}", f"hash: {self.cohort.cohort_hash}"]
        return "\n".join((cohort_lines(self.cohort, {}, with_rules=True), *(f"- {line}" for line in lines)))

    def _variables(self) -> str:
        rows = [
            (each.variable.name, each.variable.unit, f"{each.bins:.1%}", f"{each.stays:.0%}") for each in self.variables
        ]
        noun = self.window.bin_noun
        remark = f"Stays: those in which the variable was observed in one {noun} or more."
        return f"{markdown_table(('variable', 'unit', f'{noun}s observed', 'stays'), rows)}\n\n{remark}"

    def _facts(self) -> str:
        if not self.facts:
            return "The cohort has none."
        rows = [
            (each.fact.parameter, each.fact.unit or ", ".join(map(str, each.fact.categories)), f"{each.stays:.0%}")
            for each in self.facts
        ]
        return markdown_table(("fact", "unit or values", "stays for which it is known"), rows)

    def _splits(self) -> str:
        if self.why_no_splits:
            return f"The folds cannot be read: {self.why_no_splits}."
        if not self.splits:
            return "No folds are drawn for this cohort: `imputune folds` draws them for the dataset in params.yaml."
        rows = [(str(fold), *(f"{count:,}" for count in counts)) for fold, counts in enumerate(self.splits)]
        table = markdown_table(("fold", "training", "validation", "test"), rows)
        protocol = "" if self.division is None else f"Protocol: {self.division.label}. {self.division.sentences} "
        return f"{table}\n\n{protocol}Folds are stratified by the outcome."

    def _groups(self) -> str:
        rows = [
            (
                each.name,
                "" if each.stays is None else f"{each.stays:,}",
                "" if each.events is None else f"{each.events:,}",
            )
            for each in self.groups
        ]
        rule = (
            f"Groups with {small(self._words)} are not shown. {HIDDEN_TOO}"
            if self.some_left_out
            else f"A group with {small(self._words)} would not be shown; there is none."
        )
        if not rows and not self.some_left_out:
            return "ICU type, sex and age are not known."
        return "\n\n".join(([markdown_table(("group", "stays", self._words.events), rows)] if rows else []) + [rule])

    def _limits(self) -> str:
        lines = [
            "Values are missing because nobody measured them, which depends on how ill a patient was.",
            f"{'An hour' if self.window.bin_hours == 1 else 'A bin'} has one value of a variable: the mean of its "
            "measurements, or for some variables their sum, the lowest, the highest or the last one. Nothing after "
            f"hour {self.window.hours} is known.",
            "All stays of a subject are in one split of a fold."
            if self.has_subjects
            else "Every stay counts as another patient.",
            "It is of one place and time: elsewhere patients, measurements and outcomes differ.",
        ]
        if is_generated(self.dataset):
            lines.insert(0, "The stays are generated by a program: no number here says anything about patients.")
        return "\n".join(f"- {line}" for line in lines)
