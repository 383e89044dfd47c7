"""What recurrences with a hand-written backward pass share.

Letters: K directions, T hours, B stays, I and J numbers of an hour. All hours of a direction lie together in memory.
"""

from typing import NamedTuple, TypeVar

import torch

sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input

Named = TypeVar("Named", bound=NamedTuple)


def by_hour(tensors: Named) -> list[Named]:
    """Split named tensors (K, T, ...) into named views (K, ...) of each hour."""
    views = zip(*(tensor.unbind(dim=1) for tensor in tensors), strict=True)
    return [type(tensors)._make(hour) for hour in views]


def product_over_hours(left_KTBI: torch.Tensor, right_KTBJ: torch.Tensor) -> torch.Tensor:
    """Sum left' @ right over hours and stays, one product per direction; (K, I, J) out."""
    return torch.bmm(left_KTBI.flatten(1, 2).transpose(1, 2), right_KTBJ.flatten(1, 2))
