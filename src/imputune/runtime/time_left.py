"""How long a command will still take, from what its parts took so far."""

from collections import defaultdict
from statistics import fmean

from imputune.protocol.variants import Cell


class TimeLeft:
    """Folds done and to do, and the time for the rest, judged by finished folds of the most similar cells."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self._waiting: set[tuple[Cell, int]] = set()
        self._done = 0

    def took(self, cell: Cell, seconds: float) -> None:
        """Learn from a fold that was finished earlier."""
        for kind in _kinds(cell):
            self._seconds[kind].append(seconds)

    def add(self, cell: Cell, fold: int) -> None:
        """Take note of a fold to do."""
        self._waiting.add((cell, fold))

    def done(self, cell: Cell, fold: int, seconds: float) -> None:
        """Take note that a fold is done, and how long it took."""
        self._waiting.remove((cell, fold))
        self._done += 1
        self.took(cell, seconds)

    @property
    def seconds(self) -> float:
        """Seconds that those of the rest will take of which something similar is done."""
        known = [seconds for seconds in self._expected() if seconds is not None]
        return sum(known) / min(self.workers, len(known)) if known else 0.0

    def __str__(self) -> str:
        """Say it in words: 12 of 90 folds done, about 1 h 20 min left; "at least" where something is new."""
        expected = self._expected()
        counted = f"{self._done} of {self._done + len(self._waiting)} folds done"
        if expected and not any(expected):
            return f"{counted}, no saying yet how long is left"
        minutes = round(self.seconds / 60)
        hours, rest = divmod(minutes, 60)
        left = f"{hours} h {rest} min" if hours else f"{rest} min" if minutes else f"{self.seconds:.0f} s"
        return f"{counted}, {'at least' if None in expected else 'about'} {left} left"

    def _expected(self) -> list[float | None]:
        return [
            next((fmean(self._seconds[kind]) for kind in _kinds(cell) if self._seconds[kind]), None)
            for cell, _ in self._waiting
        ]


def _kinds(cell: Cell) -> list[tuple[str, ...]]:
    """Return what a cell is, from itself to any cell of its head or schedule in the same mode."""
    own, kin = tuple(cell.tags().values()), (cell.head, cell.mode, cell.schedule)
    return [own, kin, (cell.head, cell.mode), (cell.mode, cell.schedule)]
