"""A module's weights: as named arrays, as one vector, and as a running average."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn


def module_weights(prefix: str, module: nn.Module) -> dict[str, np.ndarray]:
    """Return a module's weights and buffers as arrays, each name after the prefix and a point."""
    return {f"{prefix}.{name}": tensor.cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load_module(prefix: str, module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load the weights whose names start with the prefix and a point into a module."""
    start = f"{prefix}."
    module.load_state_dict({n.removeprefix(start): t for n, t in weights.items() if n.startswith(start)})


class FlatWeights:
    """A module's trainable weights in one vector and their gradients in another.

    The module's own weights and gradients become views of these vectors. An optimizer's step on one vector takes a few
    operations, however many weights there are; for a small head, separate steps would take most of an epoch. Gradients
    accumulate until `clear_gradient`.
    """

    def __init__(self, module: nn.Module) -> None:
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.vector = nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
        self.gradient = self.vector.grad = torch.zeros_like(self.vector)
        sizes = [weight.numel() for weight in weights]
        views = zip(weights, self.vector.detach().split(sizes), self.gradient.split(sizes), strict=True)
        for weight, values, gradient in views:
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

    The first `update` copies the weights. Update number s + 1 keeps min(decay, (1 + s) / (3 + s)) of the average and
    takes the rest from the module's weights. Buffers and weights that are not trainable stay as they were copied.

    torch.optim.swa_utils.AveragedModel gives the same bits, but a training step of mlp2 takes 1.25 times as long.
    """

    def __init__(self, module: nn.Module, weights: FlatWeights, decay: float) -> None:
        self.module = copy.deepcopy(module)
        self.decay = decay
        self.updates = 0
        self._average = FlatWeights(self.module).vector.detach()
        self._present = weights.vector.detach()

    def update(self) -> None:
        """Move the average towards the module's present weights."""
        kept = min(self.decay, (1 + self.updates) / (3 + self.updates)) if self.updates else 0.0
        self._average.lerp_(self._present, 1 - kept)
        self.updates += 1
