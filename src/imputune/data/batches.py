"""Positions of stays, one batch after another."""

from collections.abc import Iterator

import torch


def shuffled_batches(stays: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield int64 positions of all stays in random order, `batch_size` at a time."""
    yield from torch.randperm(stays, generator=generator).split(batch_size)


def batches_in_order(stays: int, batch_size: int = 256) -> Iterator[torch.Tensor]:
    """Yield int64 positions of all stays in the order of the split, `batch_size` at a time."""
    yield from torch.arange(stays).split(batch_size)
