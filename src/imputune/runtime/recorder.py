"""What training reports while it runs: the curves of each fold, the trials of a search, the scores at the end.

Training reports through this protocol and knows no tracker; `tracking.runs.TrackedRun` writes to MLflow. The events of
all folds of a command go to one recorder, from one process and one thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Curve = list[dict[str, float]]
"""One row of metrics per epoch."""
EpochReport = Callable[[int, Mapping[str, float]], None]
"""Receives an epoch's number and metrics."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of a search: the learning rate it tried, how it ended, its lowest validation loss, its curve.

    The rate is the schedule's; unfrozen training multiplies it, as every schedule's, by `unfrozen_rate_factor`. A trial
    that diverged counts as pruned; its loss is infinite, and its curve ends before that epoch.
    """

    number: int
    learning_rate: float
    state: Literal["complete", "pruned"]
    validation_loss: float
    curve: Curve


class Recorder(Protocol):
    """Receives what the folds of one command report; reports of several folds may alternate."""

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record one point of each of a fold's curves (train_loss, validation_auc); `epoch` counts from 0.

        NaN means that the metric is undefined in this epoch, for instance an AUC over a single class.
        """

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Record a trial of a fold's search that has ended."""

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Record the final scores of a fold, once, after its last epoch; NaN means undefined."""


class SilentRecorder:
    """A recorder that records nothing."""

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Ignore an epoch."""

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Ignore a trial."""

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Ignore the end of a fold."""
