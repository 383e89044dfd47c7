"""What frozen heads read of an imputer, kept in a process for the next head with the same input.

A grid trains many heads on one pretrained imputer. Representing the stays takes longer than training a small head.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from imputune.data.batches import batches_in_order
from imputune.data.splits import Split

BYTES = 256 * 2**20  # of all that a process keeps; beyond it, the least recently used goes first

Inputs = tuple[torch.Tensor, ...]


class Kept(NamedTuple):
    """What heads read, and how many seconds it took to make."""

    inputs: Inputs
    seconds: float


_kept: OrderedDict[str, Kept] = OrderedDict()


def kept_inputs(key: str, make: Callable[[], Inputs]) -> tuple[Inputs, float]:
    """Return the tensors that were kept under a key, or make and keep them; nobody may change them.

    Also returns the seconds that keeping them has saved, 0 if they were made now. Tensors larger than the limit are not
    kept.
    """
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    started = time.perf_counter()
    made = make()
    if _size(made) <= BYTES:
        _kept[key] = Kept(made, time.perf_counter() - started)
        while sum(_size(each.inputs) for each in _kept.values()) > BYTES:
            _kept.popitem(last=False)
    return made, 0.0


def key_of(parts: Iterable[object], arrays: dict[str, torch.Tensor], split: Split) -> str:
    """Return a key that differs if any part, named array, value of the split's stays or number of its scaling does.

    parts: compared by their `repr`. It reads all values of the split: 0.05 s for 4,000 stays of 48 x 35.
    """
    digest = hashlib.blake2b(repr(tuple(parts)).encode())
    numbers = {name: array.numpy() for name, array in arrays.items()} | split.scaler.to_arrays()
    for name, array in sorted(numbers.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(repr(split.shape).encode())
    for stays in batches_in_order(len(split)):
        digest.update(np.ascontiguousarray(split.recorded_CTD[split.rows_N[stays.numpy()]]).data)
    return digest.hexdigest()


def _size(tensors: Inputs) -> int:
    return sum(tensor.nbytes for tensor in tensors)
