"""Positions of stays, one batch after another, and what is computed of each batch put together again."""

from collections.abc import Iterable, Iterator

import torch


def shuffled_batches(stays: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield int64 positions of all stays in random order, `batch_size` at a time."""
    yield from torch.randperm(stays, generator=generator).split(batch_size)


def batches_in_order(stays: int, batch_size: int = 256) -> Iterator[torch.Tensor]:
    """Yield int64 positions of all stays in the order of the split, `batch_size` at a time."""
    if stays:
        yield from torch.arange(stays).split(batch_size)


def joined(batches: Iterable[tuple[torch.Tensor, ...]], stays: int) -> tuple[torch.Tensor, ...]:
    """Return the tensors (B, ...) of successive batches as tensors (N, ...) of all `stays`, without holding them twice.

    No tensors if there is no batch.
    """
    whole: tuple[torch.Tensor, ...] = ()
    start = 0
    for batch in batches:
        whole = whole or tuple(each.new_empty((stays, *each.shape[1:])) for each in batch)
        for target, each in zip(whole, batch, strict=True):
            target[start : start + len(each)] = each
        start += len(batch[0])
    return whole
