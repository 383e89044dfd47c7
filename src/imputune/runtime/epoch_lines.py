"""Lines on how training goes, for logs: fold, epoch, loss, score, time left."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from imputune.runtime.recorder import Recorder, Trial
from imputune.runtime.time_left import shown_duration

SECONDS_BETWEEN = 10.0
Say = Callable[[str], None]
Clock = Callable[[], float]
SHOWN_SCORES = {"validation_auc": "validation AUC", "validation_mae": "validation MAE"}


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a recorder will hear of: `folds` folds, `workers` of them at a time, each of `epochs` epochs.

    label: what is trained. may_stop_early: whether a fold may have fewer epochs. has_folds: False where nothing was
    divided into folds, and lines name none.
    """

    label: str
    epochs: int
    folds: int = 1
    workers: int = 1
    may_stop_early: bool = False
    has_folds: bool = True


class EpochLines:
    """Says lines of a command's folds, one every `seconds` at most, the first after `seconds` too.

    Each line is the newest of its fold, and the folds take turns. With `seconds` 0 every line is said.
    """

    def __init__(self, say: Say, seconds: float = SECONDS_BETWEEN, clock: Clock = time.monotonic) -> None:
        self.say, self.seconds, self.clock = say, seconds, clock
        self._last = clock()
        self._waiting: dict[str, str] = {}

    def offer(self, fold: str, line: str) -> None:
        """Say this line, or that of the fold which has waited longest; or keep it until a line may be said again."""
        self._waiting[fold] = line
        if self.clock() - self._last >= self.seconds:
            self.say(self._waiting.pop(next(iter(self._waiting))))
            self._last = self.clock()

    def forget(self, fold: str) -> None:
        """Say no line of a fold that has ended."""
        self._waiting.pop(fold, None)


class LineRecorder:
    """A recorder that offers a line for each epoch and each trial of a search, and passes every report on.

    `beyond` says how much of the command is left beyond this plan, if it knows.
    """

    def __init__(
        self, inner: Recorder, lines: EpochLines, plan: TrainingPlan, *, beyond: Callable[[], str] | None = None
    ) -> None:
        self.inner, self.lines, self.plan, self.beyond = inner, lines, plan, beyond
        self._first: dict[int, tuple[float, int]] = {}
        self._done: dict[int, int] = {}
        self._pace: dict[int, float] = {}
        self._finished: set[int] = set()

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Pass an epoch on, and offer its line."""
        self.inner.epoch(fold, epoch, metrics)
        self._note(fold, epoch + 1)
        numbers = [f"training loss {metrics['train_loss']:.4f}"] if "train_loss" in metrics else []
        numbers += [f"{shown} {metrics[name]:.4f}" for name, shown in SHOWN_SCORES.items() if name in metrics]
        at_most = "at most " if self.plan.may_stop_early else ""
        self._offer(fold, ", ".join([f"epoch {epoch + 1} of {at_most}{self.plan.epochs}", *numbers, self._left()]))

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Pass a trial on, and offer its line."""
        self.inner.trial_finished(fold, trial)
        loss = f"validation loss {trial.validation_loss:.4f}"
        self._offer(fold, f"trial {trial.number + 1}, learning rate {trial.learning_rate:.2g}, {loss}, {trial.state}")

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Pass a fold's scores on; nothing more is said of its epochs."""
        self.inner.fold_finished(fold, metrics)
        self._done[fold] = self.plan.epochs
        self._finished.add(fold)
        self.lines.forget(self._name(fold))

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds for the epochs of the plan that are not trained yet; None before a fold's second epoch."""
        if not self._pace:
            return None
        epochs = self.plan.epochs * self.plan.folds - sum(self._done.values())
        at_once = max(1, min(self.plan.workers, self.plan.folds - len(self._finished)))
        return epochs * fmean(self._pace.values()) / at_once

    def _note(self, fold: int, epochs: int) -> None:
        """Learn how many seconds an epoch of the fold takes; its first also took what a worker needs to start."""
        now = self.lines.clock()
        first, count = self._first.setdefault(fold, (now, epochs))
        if epochs > count:
            self._pace[fold] = (now - first) / (epochs - count)
        self._done[fold] = epochs

    def _left(self) -> str:
        seconds = self.seconds_left
        if seconds is None:
            return "time left not known yet"
        about = "at most" if self.plan.may_stop_early else "about"
        return f"{about} {shown_duration(seconds)} left{' of this fold' if self.beyond else ''}"

    def _offer(self, fold: int, text: str) -> None:
        beyond = f" | {self.beyond()}" if self.beyond else ""
        self.lines.offer(self._name(fold), f"{self._name(fold)}: {text}{beyond}")

    def _name(self, fold: int) -> str:
        return f"{self.plan.label} fold {fold}" if self.plan.has_folds else self.plan.label
