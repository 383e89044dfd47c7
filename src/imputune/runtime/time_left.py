"""The time that a command still needs, estimated from the folds that are finished."""

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import fmean

from imputune.protocol.variants import Variant


def shown_duration(seconds: float) -> str:
    """Return a duration such as "1 h 20 min", "2 min" or, below 90 seconds, "75 s"."""
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


class TimeLeft:
    """Counts finished and waiting folds and estimates the time left.

    A waiting fold is expected to take as long as finished folds of its variant did on average, or else of the most
    similar variant; less what it has run already.
    """

    def __init__(self, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.workers, self.clock = workers, clock
        self._started: dict[tuple[Variant, int], float] = {}
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self._waiting: set[tuple[Variant, int]] = set()
        self._done = 0

    def took(self, variant: Variant, seconds: float) -> None:
        """Learn how long a fold took that was finished before this command."""
        for group in _similar_groups(variant):
            self._seconds[group].append(seconds)

    def add(self, variant: Variant, fold: int) -> None:
        """Add a fold that waits."""
        self._waiting.add((variant, fold))

    def start(self, variant: Variant, fold: int) -> None:
        """Note that a waiting fold begins now."""
        self._started[variant, fold] = self.clock()

    def done(self, variant: Variant, fold: int, seconds: float) -> None:
        """Count a waiting fold as done, and learn how long it took."""
        self._waiting.remove((variant, fold))
        self._done += 1
        self.took(variant, seconds)

    @property
    def seconds(self) -> float:
        """Estimated seconds for the waiting folds, without those for which nothing similar is finished."""
        known = [seconds for seconds in self._expected() if seconds is not None]
        return sum(known) / min(self.workers, len(known)) if known else 0.0

    def __str__(self) -> str:
        """Return a line such as "12 of 90 folds done, about 1 h 20 min left".

        Folds to which nothing finished is similar are counted apart, as folds of unknown duration.
        """
        expected = self._expected()
        counted = f"{self._done} of {self._done + len(self._waiting)} folds done"
        unknown = expected.count(None)
        if expected and unknown == len(expected):
            return f"{counted}, time left not known yet"
        left = shown_duration(self.seconds)
        further = f", and {unknown} fold{'s' * (unknown > 1)} of unknown duration" if unknown else ""
        return f"{counted}, about {left} left{further}"

    def _expected(self) -> list[float | None]:
        """Return the expected seconds of each waiting fold, None where nothing similar is finished."""
        return [self._expected_of(*waiting) for waiting in self._waiting]

    def _expected_of(self, variant: Variant, fold: int) -> float | None:
        for group in _similar_groups(variant):
            if self._seconds[group]:
                now = self.clock()
                return max(fmean(self._seconds[group]) - (now - self._started.get((variant, fold), now)), 0.0)
        return None


def _similar_groups(variant: Variant) -> list[tuple[str, ...]]:
    """Return the groups of variants that a variant belongs to, the most similar first."""
    return [
        tuple(variant.tags().values()),
        (variant.head, variant.mode, variant.schedule),
        (variant.head, variant.mode),
        (variant.mode, variant.schedule),
    ]
