"""What every training loop here needs: batches, the best state, and seeds."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from imputune.errors import UserError


def shuffled(stays: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield int64 positions of all stays in random order, `batch_size` at a time."""
    yield from torch.randperm(stays, generator=generator).split(batch_size)


def in_order(stays: int, batch_size: int = 256) -> Iterator[torch.Tensor]:
    """Yield int64 positions of all stays as they stand, `batch_size` at a time."""
    yield from torch.arange(stays).split(batch_size)


def generator_for(seed: int, *purpose: int) -> torch.Generator:
    """Return a generator of its own for a fold and purpose, so that no draw depends on another's count."""
    mixed = seed
    for number in purpose:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63)
    return torch.Generator().manual_seed(mixed)


def check_converging(numbers: Iterable[float], fold: int, epoch: int, remedy: str) -> None:
    """Raise UserError when an epoch's losses or risks are not all finite numbers."""
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"training of fold {fold} diverged in epoch {epoch}: {remedy}")


class FlatWeights:
    """A module's trainable weights as views of one vector, their gradients of another.

    A step on the vector takes a few operations, however many weights there are; in training a small head, most of an
    epoch would go to operations on a few numbers each. Gradients are added up until `clear_gradient`.
    """

    def __init__(self, module: nn.Module) -> None:
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.vector = nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
        self.gradient = self.vector.grad = torch.zeros_like(self.vector)
        sizes = [weight.numel() for weight in weights]
        parts = zip(weights, self.vector.detach().split(sizes), self.gradient.split(sizes), strict=True)
        for weight, values, gradient in parts:
            weight.data, weight.grad = values.view_as(weight), gradient.view_as(weight)

    def clear_gradient(self) -> None:
        """Set every gradient to 0."""
        self.gradient.zero_()

    def clip_gradient(self, norm: float) -> None:
        """Scale the gradients down to a joint norm of at most `norm`; see torch.nn.utils.clip_grad_norm_."""
        length = torch.linalg.vector_norm(self.gradient).item()
        if length > norm:
            self.gradient.mul_(norm / (length + 1e-6))


class RunningAverage:
    """A copy of a module whose trainable weights are a running average of the module's.

    The first `update` takes the weights as they are; the one after s others keeps min(decay, (1 + s) / (3 + s)) of
    the average. All else stays as it was copied.
    """

    def __init__(self, module: nn.Module, weights: FlatWeights, decay: float) -> None:
        self.module = copy.deepcopy(module)
        self.decay = decay
        self.updates = 0
        self._average = FlatWeights(self.module).vector.detach()
        self._present = weights.vector.detach()

    def update(self) -> None:
        """Take in the module's present weights."""
        kept = min(self.decay, (1 + self.updates) / (3 + self.updates)) if self.updates else 0.0
        self._average.lerp_(self._present, 1 - kept)
        self.updates += 1


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
