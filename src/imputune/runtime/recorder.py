"""What training tells whoever listens: the curves of each fold while it trains, its scores at the end.

Training reports through this protocol and knows no tracker; `tracking.runs.TrackedRun` is the one that
writes to MLflow. Events of all folds of a command go to one recorder, from one process and one thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Curve = list[dict[str, float]]
"""One row of metrics per epoch."""


@dataclass(frozen=True)
class Trial:
    """One trial of a search: the learning rate it tried, how it ended, its lowest validation loss, its curve.

    The rate is the schedule's; unfrozen training takes a share of it, as of every schedule's.
    """

    number: int
    learning_rate: float
    state: Literal["complete", "pruned"]
    validation_loss: float
    curve: Curve


class Recorder(Protocol):
    """Receives what the folds of one command report; folds may report interleaved."""

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take one point of each of a fold's curves (train_loss, validation_auc), `epoch` counting from 0.

        NaN means that the metric is undefined for this epoch, for instance an AUC over a single class.
        """

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Take a trial of a fold's search, once it has ended."""

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Take the final scores of a fold, once, after its last epoch; NaN means undefined."""


class Unheard:
    """A recorder that passes over everything."""

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Pass over an epoch."""

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Pass over a trial."""

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Pass over the end of a fold."""
