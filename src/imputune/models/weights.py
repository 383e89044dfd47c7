"""A module's weights: as one vector, as a running average, as named arrays."""

import copy

import numpy as np
import torch
from torch import nn


def module_weights(prefix: str, module: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return a module's weights and buffers as arrays, names prefixed."""
    return {f"{prefix}.{name}": tensor.cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load_module(prefix: str, module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load the weights under a prefix into a module."""
    start = f"{prefix}."
    module.load_state_dict({n.removeprefix(start): t for n, t in weights.items() if n.startswith(start)})


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
