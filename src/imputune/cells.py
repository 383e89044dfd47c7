"""Cells of the comparison: which head is fine-tuned on what, and how; which combinations exist."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast, get_args

from imputune.config import (
    Grid,
    Head,
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
from imputune.errors import UserError, near_miss

PARTS = ("head", "mode", "input", "schedule")


@dataclass(frozen=True)
class Cell:
    """One cell of the comparison: a head, the imputer's mode, what the head reads, the learning-rate schedule."""

    head: Head
    mode: Mode
    input: Input
    schedule: ScheduleName

    @property
    def name(self) -> str:
        """The cell's name in artifacts, tables and run names."""
        return "-".join(self.tags().values())

    @property
    def is_neural(self) -> bool:
        """Whether the head is a network, trained by gradient descent under a schedule."""
        return self.schedule != "none"

    @property
    def frozen(self) -> "Cell":
        """The cell whose head unfrozen training starts from: the same but for the mode."""
        return Cell(self.head, "frozen", self.input, self.schedule)

    def tags(self) -> dict[str, str]:
        """Return head, mode, input and schedule as text."""
        return {part: getattr(self, part) for part in PARTS}


@dataclass(frozen=True)
class Family:
    """Heads that share modes, inputs and schedules; every combination of the four is a cell. Defaults come first."""

    head: tuple[str, ...]
    mode: tuple[str, ...]
    input: tuple[str, ...]
    schedule: tuple[str, ...]

    def cells(self) -> list[Cell]:
        """Return every cell of the family."""
        return [Cell(*cast(Any, parts)) for parts in product(self.head, self.mode, self.input, self.schedule)]


FAMILIES = (
    Family(get_args(MlpHead), get_args(Mode), get_args(MlpInput), get_args(NeuralSchedule)),
    Family(get_args(RecurrentHead), get_args(Mode), get_args(RecurrentInput), get_args(NeuralSchedule)),
    Family(get_args(ShallowHead), ("frozen",), get_args(ShallowInput), get_args(ShallowSchedule)),
)
FAMILY_OF = {head: family for family in FAMILIES for head in family.head}
PROTOCOL = tuple(cell for family in FAMILIES for cell in family.cells())
WORDS = {part: tuple(dict.fromkeys(word for family in FAMILIES for word in getattr(family, part))) for part in PARTS}


def make_cell(head: str, mode: str | None = None, input: str | None = None, schedule: str | None = None) -> Cell:
    """Return a cell; what is None or "" takes the head's default (frozen; its first input; plateau, or none).

    Raises UserError for an unknown word (with the near miss) and for a combination that does not exist (with those
    that do).
    """
    family = FAMILY_OF[_known("head", head)]
    schedules = family.schedule
    default = {"mode": "frozen", "input": family.input[0], "schedule": "plateau" if len(schedules) > 1 else "none"}
    given = {"mode": mode, "input": input, "schedule": schedule}
    chosen = {part: _known(part, word) if word else default[part] for part, word in given.items()}
    for part, word in chosen.items():
        if word not in getattr(family, part):
            raise UserError(f"{head} has no {part} {word!r}: {_existing(family)}")
    return Cell(*cast(Any, (head, *chosen.values())))


def choose_cells(wanted: Mapping[str, Sequence[str]]) -> list[Cell]:
    """Return the protocol's cells whose parts are among the wanted words; a part without words takes any.

    Raises UserError for an unknown word, and for one that no cell has together with the words of the other parts.
    """
    for part, words in wanted.items():
        for word in words:
            _known(part, word)
    cells = [
        cell for cell in PROTOCOL if all(not words or getattr(cell, part) in words for part, words in wanted.items())
    ]
    unmatched = [
        word for part, words in wanted.items() for word in words if word not in {getattr(cell, part) for cell in cells}
    ]
    if unmatched:
        asked = ", ".join(f"{part} {' or '.join(words)}" for part, words in wanted.items() if words)
        heads = wanted.get("head") or FAMILY_OF
        families = dict.fromkeys(FAMILY_OF[head] for head in heads)
        what = f"no cell with {asked} has {' or '.join(unmatched)}" if cells else f"no cell has {asked}"
        raise UserError(f"{what}: {'; '.join(map(_existing, families))}")
    return cells


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


def _known(part: str, word: str) -> str:
    if word not in WORDS[part]:
        raise UserError(f"unknown {part} {word!r}{near_miss(word, WORDS[part])}: choose from {', '.join(WORDS[part])}")
    return word


def _existing(family: Family) -> str:
    parts = ", ".join(f"{part} {'|'.join(getattr(family, part))}" for part in PARTS[1:])
    return f"{' and '.join(family.head)} exist with {parts}"
