"""Cells of the comparison: which head is fine-tuned on which imputer, and how; which combinations exist."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast, get_args

from imputune.errors import UserError, near_miss
from imputune.protocol.imputers import IMPUTERS, PRETRAINED, known_imputer
from imputune.settings.names import (
    Head,
    ImputerName,
    Input,
    MlpHead,
    MlpInput,
    Mode,
    NeuralSchedule,
    RecurrentHead,
    RecurrentInput,
    ScheduleName,
    ShallowHead,
    ShallowInput,
    ShallowSchedule,
)
from imputune.settings.schema import Grid

PARTS = ("head", "mode", "input", "schedule")


@dataclass(frozen=True)
class Cell:
    """One cell of the comparison: a head, its imputer and that one's mode, what the head reads, the rates' schedule."""

    head: Head
    mode: Mode
    input: Input
    schedule: ScheduleName
    imputer: ImputerName = PRETRAINED

    @classmethod
    def of(cls, parts: Sequence[str], imputer: ImputerName) -> "Cell":
        """Return the cell of four words, in the order of PARTS."""
        head, mode, input, schedule = cast(Any, parts)
        return cls(head, mode, input, schedule, imputer)

    @property
    def name(self) -> str:
        """The cell's name in artifacts, tables and run names; that of an imputer other than CSAI stands before it."""
        own = [getattr(self, part) for part in PARTS]
        return "-".join(own if self.imputer == PRETRAINED else [self.imputer, *own])

    @property
    def is_neural(self) -> bool:
        """Whether the head is a network, trained by gradient descent under a schedule."""
        return self.schedule != "none"

    @property
    def frozen(self) -> "Cell":
        """The cell whose head unfrozen training starts from: the same but for the mode."""
        return replace(self, mode="frozen")

    def tags(self) -> dict[str, str]:
        """Return head, mode, input, schedule and imputer as text."""
        return {part: getattr(self, part) for part in (*PARTS, "imputer")}


@dataclass(frozen=True)
class Family:
    """Heads that share modes, inputs and schedules; every combination of the four is a cell. Defaults come first."""

    head: tuple[str, ...]
    mode: tuple[str, ...]
    input: tuple[str, ...]
    schedule: tuple[str, ...]

    def cells(self, imputer: ImputerName = PRETRAINED) -> list[Cell]:
        """Return every cell of the family."""
        parts = product(self.head, self.mode, self.input, self.schedule)
        return [Cell.of(each, imputer) for each in parts]

    @property
    def usual(self) -> dict[str, str]:
        """What a cell of the family has where nothing is said: frozen; its first input; plateau, or none."""
        schedule = "plateau" if "plateau" in self.schedule else self.schedule[0]
        return {"mode": self.mode[0], "input": self.input[0], "schedule": schedule}


FAMILIES = (
    Family(get_args(MlpHead), get_args(Mode), get_args(MlpInput), get_args(NeuralSchedule)),
    Family(get_args(RecurrentHead), get_args(Mode), get_args(RecurrentInput), get_args(NeuralSchedule)),
    Family(get_args(ShallowHead), ("frozen",), get_args(ShallowInput), get_args(ShallowSchedule)),
)
HEADS = tuple(head for family in FAMILIES for head in family.head)
PROTOCOL = tuple(cell for family in FAMILIES for cell in family.cells())
WORDS = {part: tuple(dict.fromkeys(word for family in FAMILIES for word in getattr(family, part))) for part in PARTS}


def families_of(imputer: ImputerName) -> tuple[Family, ...]:
    """Return the families of an imputer's cells.

    CSAI and its controls have the paper's protocol. The others are read frozen; from one without a hidden state a
    perceptron reads the imputed series instead.
    """
    if IMPUTERS[imputer].family == "csai":
        return FAMILIES
    hidden = IMPUTERS[imputer].hidden
    inputs = (
        get_args(MlpInput) if hidden else ("imputed",),
        get_args(RecurrentInput) if hidden else ("imputed",),
        ("imputed", "hidden") if hidden else ("imputed",),
    )
    return tuple(
        Family(family.head, ("frozen",), reads, family.schedule) for family, reads in zip(FAMILIES, inputs, strict=True)
    )


def make_cell(
    head: str,
    mode: str | None = None,
    input: str | None = None,
    schedule: str | None = None,
    imputer: str = PRETRAINED,
) -> Cell:
    """Return a cell; what is None or "" takes the head's usual (frozen; its first input; plateau, or none).

    Raises UserError for an unknown word (with the near miss) and for a combination that does not exist (with those
    that do).
    """
    known = known_imputer(imputer or PRETRAINED)
    family = _family(known, _known("head", head))
    given = {"mode": mode, "input": input, "schedule": schedule}
    chosen = {part: _known(part, word) if word else family.usual[part] for part, word in given.items()}
    for part, word in chosen.items():
        if word not in getattr(family, part):
            on = "" if known == PRETRAINED else f" on {known}"
            raise UserError(f"{head}{on} has no {part} {word!r}: {_existing(family)}")
    return Cell.of((head, *chosen.values()), known)


def choose_cells(
    wanted: Mapping[str, Sequence[str]], imputers: Sequence[str] = (), heads: Sequence[str] = HEADS
) -> list[Cell]:
    """Return the protocol's cells whose parts are among the wanted words, each once; a part without words takes any.

    With `imputers`, the cells of those instead; there mode, input and schedule without words take each head's usual, so
    that one cell stands for an imputer and a head, and `heads` are those taken where no head is wanted. Raises
    UserError for an unknown word, for one that no cell has together with the words of the other parts, and for an
    imputer without a cell.
    """
    for part, words in wanted.items():
        for word in words:
            _known(part, word)
    names = list(dict.fromkeys(map(known_imputer, imputers or (PRETRAINED,))))
    families = [(name, family) for name in names for family in families_of(name)]
    asked = {part: tuple(wanted.get(part) or ()) for part in PARTS}
    cells = [
        cell
        for name, family in families
        for cell in family.cells(name)
        if all(getattr(cell, part) in words for part, words in asked.items() if words)
        and (not imputers or _is_usual(cell, family, heads, asked))
    ]
    unmatched = [
        word for part, words in asked.items() for word in words if word not in {getattr(cell, part) for cell in cells}
    ]
    unmatched += [f"imputer {name}" for name in names if name not in {cell.imputer for cell in cells}]
    if unmatched:
        said = ", ".join(f"{part} {' or '.join(words)}" for part, words in asked.items() if words)
        chosen = {*(asked["head"] or heads)}
        told = dict.fromkeys(_existing(family) for _, family in families if {*family.head} & chosen)
        what = f"no cell with {said} has {' or '.join(unmatched)}" if cells else f"no cell has {said}"
        raise UserError(f"{what}: {'; '.join(told)}")
    return cells


def _is_usual(cell: Cell, family: Family, heads: Sequence[str], asked: Mapping[str, Sequence[str]]) -> bool:
    """Say whether a cell has, in every part that nothing was asked of, what is usual."""
    usual = {part: (word,) for part, word in family.usual.items()} | {"head": tuple(heads)}
    return all(getattr(cell, part) in usual[part] for part in PARTS if not asked[part])


def grid_cells(grid: Grid) -> list[Cell]:
    """Return the cells that params.yaml names under grid, each once, in the protocol's order."""
    families = (
        Family(grid.mlp.head, grid.mlp.mode, grid.mlp.input, grid.mlp.schedule),
        Family(grid.recurrent.head, grid.recurrent.mode, grid.recurrent.input, grid.recurrent.schedule),
        Family(grid.shallow.head, ("frozen",), grid.shallow.input, ("none",)),
    )
    return in_order(cell for family in families for cell in family.cells())


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells in the protocol's order, each once."""
    wanted = set(cells)
    return [cell for cell in PROTOCOL if cell in wanted]


def _family(imputer: ImputerName, head: str) -> Family:
    return next(family for family in families_of(imputer) if head in family.head)


def _known(part: str, word: str) -> str:
    if word not in WORDS[part]:
        raise UserError(f"unknown {part} {word!r}{near_miss(word, WORDS[part])}: choose from {', '.join(WORDS[part])}")
    return word


def _existing(family: Family) -> str:
    parts = ", ".join(f"{part} {'|'.join(getattr(family, part))}" for part in PARTS[1:])
    return f"{' and '.join(family.head)} exist with {parts}"
