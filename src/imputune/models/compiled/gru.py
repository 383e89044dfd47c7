"""The last state of a GRU by compiled code. PyTorch's LSTM is as fast as such code would be.

Letters: B stays, T hours, D variables, H hidden size.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from imputune.models.compiled.library import Library, library_for


def compiled_last_state(
    recurrence: nn.LSTM | nn.GRU, hidden_BH: torch.Tensor, series_BTD: torch.Tensor
) -> torch.Tensor | None:
    """Return the state after the last hour, (B, H); None if there is no compiled code for this.

    Only a GRU with one layer, one direction, biases and batch_first=True has compiled code. If shapes do not fit,
    PyTorch raises the error.
    """
    if not isinstance(recurrence, nn.GRU) or recurrence.num_layers > 1 or recurrence.bidirectional:
        return None
    if not (recurrence.bias and recurrence.batch_first):
        return None
    weights = list(recurrence.parameters())  # of the input, of the state; their biases
    library = library_for(series_BTD, hidden_BH, *weights)
    fits = series_BTD.ndim == 3 and hidden_BH.shape == (len(series_BTD), recurrence.hidden_size)
    if library is None or not fits or series_BTD.shape[2] != recurrence.input_size:
        return None
    return _CompiledGru.apply(library, series_BTD, hidden_BH, *weights)


class _CompiledGru(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, *given: torch.Tensor) -> torch.Tensor:
        series, first, *weights = (each.contiguous() for each in given)
        (B, T, D), H = series.shape, first.shape[1]
        ctx.library, ctx.sizes = library, (B, T, D, H)
        kept = [first.new_empty(shape) for shape in ((T + 1, B, H), (T, B, H), (T, B, 3 * H))]
        library.call("imputune_gru_forward", ctx.sizes, series, first, weights, kept)
        ctx.save_for_backward(series, *weights, *kept)
        return kept[0][-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, G_BH: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        series, *others = ctx.saved_tensors
        weights, kept = others[:4], others[4:]
        of_series = torch.empty_like(series) if ctx.needs_input_grad[1] else None
        of_first, of_weights = G_BH.new_empty(G_BH.shape), [torch.empty_like(each) for each in weights]
        arguments = (series, weights, kept, G_BH.contiguous(), of_series, of_first, of_weights)
        ctx.library.call("imputune_gru_backward", ctx.sizes, *arguments)
        return (None, of_series, of_first, *of_weights)
