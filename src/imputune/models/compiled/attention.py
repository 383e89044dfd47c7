"""Attention by compiled code; letters and equations are those of `imputune.models.attention`, C = A * d."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from imputune.models.compiled.library import Library, filled, library_for

HEAD_CHANNELS = (2, 4, 8, 16)
"""Channels of a head, d, for which there is compiled code."""


def compiled_attention(tokens: torch.Tensor, maps: torch.Tensor, places: torch.Tensor) -> torch.Tensor | None:
    """Return what `imputune.models.attention.attend` returns; None if there is no compiled code for this.

    If shapes do not fit, PyTorch raises the error.
    """
    library = library_for(tokens, maps, places)
    if library is None or maps.shape[2] not in HEAD_CHANNELS:
        return None
    if (maps.shape[0], maps.shape[3]) != (3, tokens.shape[2]) or places.shape != (*maps.shape[:3], tokens.shape[1]):
        return None
    return _CompiledAttention.apply(library, tokens, maps, places)


class _CompiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, *given: torch.Tensor) -> torch.Tensor:
        (B, S, D), (_, A, d, _) = given[0].shape, given[1].shape
        inputs = [each.contiguous() for each in given]
        ctx.library, ctx.sizes, ctx.channels = library, (B, A, S, D, filled(S)), d
        # queries, keys and values; highest scores and inverse sums; attended
        sizes = (3, B, A * d, filled(S)), (2, B, A, filled(S)), (B, A * d, S)
        results = [given[0].new_empty(size) for size in sizes]
        library.call("imputune_attention_forward", ctx.sizes, d, *inputs, *results)
        ctx.save_for_backward(*inputs, *results)
        return results[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, G_BCS: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tokens, maps, places, *results = ctx.saved_tensors
        gradients = [torch.empty_like(each) for each in (tokens, maps, places)]
        arguments = (ctx.channels, tokens, maps, *results, G_BCS.contiguous(), *gradients)
        ctx.library.call("imputune_attention_backward", ctx.sizes, *arguments)
        return (None, *gradients)
