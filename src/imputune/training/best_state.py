"""The best epoch's weights, and the check that training converges."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from imputune.errors import UserError


class DivergedError(UserError):
    """Training has diverged: an epoch's losses or risks are not all finite numbers."""


def check_converging(numbers: Iterable[float], fold: int, epoch: int, remedy: str) -> None:
    """Raise DivergedError with the remedy if an epoch's losses or risks are not all finite numbers."""
    if not all(map(math.isfinite, numbers)):
        raise DivergedError(f"training of fold {fold} diverged in epoch {epoch}: {remedy}")


@dataclass
class BestState:
    """The weights of the epoch with the highest score so far; of equal scores, the one with the lowest loss.

    A validation AUC is 1 from the first epoch on if the outcome is easy to tell; only the loss then tells a head that
    has learned its risks from one that has hardly begun.

    Call `update` once an epoch. `stale` counts the epochs since the best one. `restore` loads its weights again.
    """

    model: nn.Module
    score: float = field(default=float("-inf"), init=False)
    loss: float = field(default=float("inf"), init=False)
    epoch: int = field(default=-1, init=False)
    stale: int = field(default=0, init=False)
    _state: dict[str, torch.Tensor] = field(default_factory=dict, init=False)

    def update(self, score: float, epoch: int, loss: float = 0.0) -> None:
        """Keep the model's present weights if `score` is the highest so far, or as high and `loss` lower."""
        if score > self.score or (score == self.score and loss < self.loss):
            self.score, self.loss, self.epoch, self.stale = score, loss, epoch, 0
            self._state = copy.deepcopy(self.model.state_dict())
        else:
            self.stale += 1

    def restore(self) -> None:
        """Load the best epoch's weights into the model; RuntimeError if no epoch was kept."""
        if not self._state:
            raise RuntimeError("no epoch was kept: update was never called with a score that is a number")
        self.model.load_state_dict(self._state)
