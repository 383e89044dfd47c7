"""Variants: one imputer, mode, head, input and schedule each; which of them exist, and choosing among them."""

from collections.abc import Sequence
from itertools import product
from typing import Any, Self, cast, get_args

from pydantic import BaseModel, ConfigDict

from imputune.errors import UserError, near_miss
from imputune.protocol.imputers import DEFAULT_IMPUTER, imputer_kind, known_imputer
from imputune.settings.names import (
    BlendHead,
    BlendInput,
    Head,
    ImputerName,
    Input,
    MlpHead,
    MlpInput,
    Mode,
    NeuralSchedule,
    NonNeuralHead,
    NonNeuralInput,
    NonNeuralSchedule,
    RecurrentHead,
    RecurrentInput,
    ScheduleName,
    SeriesInput,
    StateName,
)

FIELDS = ("head", "mode", "input", "schedule")
"""What names a variant of an imputer, in the order of its name."""
PAPER_INPUTS = ("hidden", "imputed", "raw", "summary")
"""The inputs of the paper's protocol, and the plain statistics that stand beside them."""


def base_of(input: str) -> str:
    """Return what an input reads first: a hidden state, imputed, raw or summary."""
    return input.split("+")[0]


def state_of(input: str) -> StateName:
    """Return which hidden state a head with this input reads: the input's first word, or `hidden` beside a series."""
    word = base_of(input)
    return cast(StateName, word) if word in get_args(StateName) else "hidden"


def record_parts(input: str) -> tuple[str, ...]:
    """Return the parts of the record itself that a neural head's input has too: static, summary."""
    return tuple(input.split("+")[1:])


class Variant(BaseModel):
    """A head, the imputer under it and that imputer's mode, what the head reads, and the learning rate's schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Head
    mode: Mode
    input: Input
    schedule: ScheduleName
    imputer: ImputerName = DEFAULT_IMPUTER

    @classmethod
    def of(cls, words: Sequence[str], imputer: ImputerName) -> Self:
        """Return the variant of four words, in the order of FIELDS."""
        return cls(**cast(Any, dict(zip(FIELDS, words, strict=True))), imputer=imputer)

    @property
    def name(self) -> str:
        """Its name among the variants of its imputer, and its folder's: mlp2-frozen-hidden-plateau."""
        return "-".join(getattr(self, field) for field in FIELDS)

    @property
    def label(self) -> str:
        """Its name among all variants: csai/mlp2-frozen-hidden-plateau."""
        return f"{self.imputer}/{self.name}"

    @property
    def is_neural(self) -> bool:
        """Whether the head is a network, trained by gradient descent under a schedule."""
        return self.schedule != "none"

    @property
    def is_registered(self) -> bool:
        """Whether its fold models are registered; those of svm are not, because they hold records of patients."""
        return imputer_kind(self.imputer).is_registered and self.head != "svm"

    @property
    def has_weights(self) -> bool:
        """Whether a fold has weights; those of xgboost are known by its boosters."""
        return self.is_neural or self.is_blend

    @property
    def is_blend(self) -> bool:
        """Whether the head combines other variants."""
        return self.head in BLEND.head

    @property
    def base(self) -> str:
        """What the head reads first: a hidden state, imputed, raw, summary or members."""
        return base_of(self.input)

    @property
    def record_parts(self) -> tuple[str, ...]:
        """The parts of the record itself that the head reads too: static, summary."""
        return record_parts(self.input)

    @property
    def frozen(self) -> "Variant":
        """The variant whose head unfrozen training starts from: the same but for the mode."""
        return self.model_copy(update={"mode": "frozen"})

    def tags(self) -> dict[str, str]:
        """Return head, mode, input, schedule and imputer as text."""
        return {field: getattr(self, field) for field in (*FIELDS, "imputer")}


class Family(BaseModel):
    """Heads with the same modes, inputs and schedules; every combination is a variant. Defaults come first."""

    model_config = ConfigDict(frozen=True)

    head: tuple[str, ...]
    mode: tuple[str, ...]
    input: tuple[str, ...]
    schedule: tuple[str, ...]

    def variants(self, imputer: ImputerName = DEFAULT_IMPUTER) -> list[Variant]:
        """Return every variant of the family on an imputer."""
        combinations = product(self.head, self.mode, self.input, self.schedule)
        return [Variant.of(words, imputer) for words in combinations]

    @property
    def defaults(self) -> dict[str, str]:
        """Mode, input and schedule where none is given: frozen; the first input; plateau, or none."""
        schedule = "plateau" if "plateau" in self.schedule else self.schedule[0]
        return {"mode": self.mode[0], "input": self.input[0], "schedule": schedule}


FAMILIES = (
    Family(head=get_args(MlpHead), mode=get_args(Mode), input=get_args(MlpInput), schedule=get_args(NeuralSchedule)),
    Family(
        head=get_args(RecurrentHead),
        mode=get_args(Mode),
        input=get_args(RecurrentInput),
        schedule=get_args(NeuralSchedule),
    ),
    Family(
        head=get_args(NonNeuralHead),
        mode=("frozen",),
        input=get_args(NonNeuralInput),
        schedule=get_args(NonNeuralSchedule),
    ),
)
BLEND = Family(head=get_args(BlendHead), mode=("frozen",), input=get_args(BlendInput), schedule=("none",))
"""The variants that combine others. They belong to no imputer; they are stored under the default one."""
HEADS: tuple[str, ...] = get_args(Head)
SINGLE_HEADS = tuple(head for head in HEADS if head not in BLEND.head)
"""Every head that reads one imputer's representation."""
PROTOCOL = tuple(variant for family in FAMILIES for variant in family.variants() if variant.input in PAPER_INPUTS)
"""Every variant of the paper's protocol, on CSAI."""
WORDS = {
    field: tuple(dict.fromkeys(word for family in (*FAMILIES, BLEND) for word in getattr(family, field)))
    for field in FIELDS
}
"""The words that each field can have."""


def families_of(imputer: ImputerName) -> tuple[Family, ...]:
    """Return the families of an imputer's variants.

    CSAI and its controls have the paper's protocol. The other imputers are only used frozen. An MLP on an imputer
    without a hidden state reads the imputed series instead. Only CSAI and its controls have further hidden states.
    A blend is stored under the default imputer alone.
    """
    if imputer == DEFAULT_IMPUTER:
        return (*FAMILIES, BLEND)
    if imputer_kind(imputer).family == "csai":
        return FAMILIES
    has_state = imputer_kind(imputer).has_hidden_state
    inputs = (
        tuple(word for word in get_args(MlpInput) if base_of(word) == "hidden") if has_state else get_args(SeriesInput),
        get_args(RecurrentInput) if has_state else get_args(SeriesInput),
        ("imputed", "hidden") if has_state else ("imputed",),
    )
    return tuple(
        family.model_copy(update={"mode": ("frozen",), "input": words})
        for family, words in zip(FAMILIES, inputs, strict=True)
    )


def make_variant(
    head: str,
    mode: str | None = None,
    input: str | None = None,
    schedule: str | None = None,
    imputer: str = DEFAULT_IMPUTER,
) -> Variant:
    """Return a variant; a field that is None or "" takes the head's default.

    The defaults are frozen, the head's first input, and plateau or none.

    Raises UserError for an unknown word (with the near miss) and for a combination that does not exist (with those
    that do).
    """
    known = known_imputer(imputer or DEFAULT_IMPUTER)
    family = family_of(known, known_word("head", head))
    given = {"mode": mode, "input": input, "schedule": schedule}
    chosen = {field: known_word(field, word) if word else family.defaults[field] for field, word in given.items()}
    for field, word in chosen.items():
        if word not in getattr(family, field):
            on = "" if known == DEFAULT_IMPUTER else f" on {known}"
            raise UserError(f"{head}{on} has no {field} {word!r}: {existing(family)}")
    return Variant.of((head, *chosen.values()), known)


def family_of(imputer: ImputerName, head: str) -> Family:
    """Return the family of an imputer's variants with a head; raises UserError for a blend on another imputer."""
    found = next((family for family in families_of(imputer) if head in family.head), None)
    if found is None:
        raise UserError(
            f"{head} belongs to no imputer, because its members have their own: leave out imputer {imputer}"
        )
    return found


def known_word(field: str, word: str) -> str:
    """Return a word of a field; raises UserError, with the near miss, for an unknown one."""
    if word not in WORDS[field]:
        choices = ", ".join(WORDS[field])
        raise UserError(f"unknown {field} {word!r}{near_miss(word, WORDS[field])}: choose from {choices}")
    return word


def existing(family: Family) -> str:
    """Say which variants a family has."""
    bases = tuple(word for word in family.input if word == base_of(word))
    words = {"mode": family.mode, "input": bases, "schedule": family.schedule}
    fields = ", ".join(f"{field} {'|'.join(words[field])}" for field in FIELDS[1:])
    further = [word for word in family.input if word not in bases]
    more = f" (inputs with features of the record: {', '.join(further)})" if further else ""
    return f"{' and '.join(family.head)} exist{'s' * (len(family.head) == 1)} with {fields}{more}"


def variant_of_label(label: str) -> Variant:
    """Return the variant of a label, such as csai/mlp2-frozen-hidden-plateau.

    Raises UserError for a text of another form, and as `make_variant` does.
    """
    imputer, slash, name = label.partition("/")
    words = name.split("-")
    if not slash or len(words) != len(FIELDS) or not all((imputer, *words)):
        raise UserError(f"{label!r} names no variant: write it as csai/mlp2-frozen-hidden-plateau")
    head, mode, input, schedule = words
    return make_variant(head, mode, input, schedule, imputer)
