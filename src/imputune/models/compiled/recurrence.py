"""CSAI's recurrence by compiled code; letters and equations are those of `imputune.models.fast_recurrence`."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from imputune.models.compiled.library import Library, library_for
from imputune.models.recurrence import Steps, Trace, Weights


def compiled_recurrence(steps: Steps, weights: Weights, first_KBH: torch.Tensor) -> Trace | None:
    """Return what `imputune.models.fast_recurrence.recur` returns; None if there is no compiled code for this.

    If shapes do not fit, PyTorch raises the error.
    """
    library = library_for(*steps, *weights, first_KBH)
    if library is None or not _fit(steps, weights, first_KBH):
        return None
    return Trace(*_CompiledRecurrence.apply(library, *steps, *weights, first_KBH))


def _fit(steps: Steps, weights: Weights, first_KBH: torch.Tensor) -> bool:
    (K, T, B, D), H = steps.values.shape, first_KBH.shape[-1]
    of_steps = [(K, T, B, D), (K, T, B, D), (K, T, B, H), (K, T, B, D)]
    of_weights = [(K, H, D + 3 * H), (K, D), (K, H), (K, D, D), (K, D), (K, 2 * D + 1, 3 * H)]
    given = [tuple(each.shape) for each in (*steps, *weights, first_KBH)]
    return given == [*of_steps, *of_weights, (K, B, H)]


class _CompiledRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = [each.contiguous() for each in given]
        steps, weights, first_KBH = inputs[:4], inputs[4:10], inputs[10]
        (K, T, B, D), H = steps[0].shape, first_KBH.shape[-1]
        ctx.library, ctx.sizes = library, (K, T, B, D, H)
        # history, combined, hidden; decayed, its part in the new gate, feature regression, reset and update, new
        widths = D, D, H, H, H, D, 2 * H, H
        results = [first_KBH.new_empty(K, T, B, width) for width in widths]
        trace, kept = results[:3], results[3:]
        library.call("imputune_recurrence_forward", ctx.sizes, steps, weights, first_KBH, trace, kept)
        ctx.save_for_backward(*inputs, *results)
        ctx.set_materialize_grads(False)
        return tuple(trace)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        inputs, results = ctx.saved_tensors[:11], ctx.saved_tensors[11:]
        values, observed, rate, weight, *weights, first_KBH = inputs
        D = values.shape[-1]
        transposed: list[torch.Tensor | None] = [None] * len(weights)
        for number, matrix in ((0, weights[0]), (3, weights[3]), (5, weights[5][:, :D])):
            transposed[number] = matrix.transpose(1, 2).contiguous()
        of_steps = [torch.empty_like(each) for each in (values, rate, weight)]
        of_weights = [torch.empty_like(each) for each in weights]
        of_first = torch.empty_like(first_KBH)
        ctx.library.call(
            "imputune_recurrence_backward",
            ctx.sizes,
            (values, observed, rate, weight),
            transposed,
            results[:3],
            results[3:],
            [None if each is None else each.contiguous() for each in given],
            [*of_steps, of_first, *of_weights],
        )
        return (None, of_steps[0], None, *of_steps[1:], *of_weights, of_first)
