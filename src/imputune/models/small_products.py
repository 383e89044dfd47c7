"""Products of many small matrices, by NumPy where that is faster.

NumPy's library, OpenBLAS, multiplies small matrices in half the time of PyTorch's, MKL, on AMD processors, and in about
the same time on others. It computes a product of up to 2**18 multiplications on one thread, whatever the process has
set; larger ones are left to PyTorch.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

OF_ONE_THREAD = 2**18  # multiplications


def product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    """Return a function that puts the products of the present matrices in `left` and `right` into `out`.

    Shapes: (N, I, J), (N, J, O) and (N, I, O), float32 on the processor; out is contiguous. None may need a gradient.
    """
    if left.shape[1] * left.shape[2] * right.shape[2] <= OF_ONE_THREAD:
        return partial(np.matmul, left.numpy(), right.numpy(), out=out.numpy())
    return partial(torch.bmm, left, right, out=out)
