"""What heads read of an imputer, kept in a process for the next head that reads the same.

A grid trains many heads on one pretrained imputer. Representing the stays takes longer than training a small head.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np
import torch

from imputune.data.batches import batches_in_order
from imputune.data.splits import Split

BYTES = 256 * 2**20  # of all that is kept in a process; beyond it, what was used longest ago goes first

Inputs = tuple[torch.Tensor, ...]
_kept: OrderedDict[str, Inputs] = OrderedDict()


def kept_inputs(key: str, make: Callable[[], Inputs]) -> Inputs:
    """Return the tensors that were kept under a key, or make and keep them; nobody may change them.

    Tensors larger than the limit are not kept.
    """
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    made = make()
    if _size(made) <= BYTES:
        _kept[key] = made
        while sum(map(_size, _kept.values())) > BYTES:
            _kept.popitem(last=False)
    return made


def key_of(parts: Iterable[object], arrays: dict[str, torch.Tensor], split: Split) -> str:
    """Return a key that differs if any part, named array, value of the split's stays or number of its scaling does."""
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
