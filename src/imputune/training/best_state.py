"""What every training loop here needs: batches, the best state, and seeds."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from imputune.errors import UserError


def check_converging(numbers: Iterable[float], fold: int, epoch: int, remedy: str) -> None:
    """Raise UserError when an epoch's losses or risks are not all finite numbers."""
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"training of fold {fold} diverged in epoch {epoch}: {remedy}")


@dataclass
class BestState:
    """The weights of the epoch with the highest score so far.

    `update` is called once an epoch; `stale` counts the epochs since the best one; `restore` puts its weights back.
    """

    model: nn.Module
    score: float = float("-inf")
    epoch: int = -1
    stale: int = 0
    _state: dict[str, torch.Tensor] = field(default_factory=dict)

    def update(self, score: float, epoch: int) -> None:
        """Keep the model's present weights if `score` is better than any before."""
        if score > self.score:
            self.score, self.epoch, self.stale = score, epoch, 0
            self._state = copy.deepcopy(self.model.state_dict())
        else:
            self.stale += 1

    def restore(self) -> None:
        """Load the best epoch's weights into the model; RuntimeError where no epoch was ever kept."""
        if not self._state:
            raise RuntimeError("no epoch was kept: update was never called with a score that is a number")
        self.model.load_state_dict(self._state)
