"""What follows the attention in an encoder layer, by compiled code, up to a weighted sum over its tokens.

Letters: B stays, S tokens of a stay, D variables, C channels, F the width between the two linear maps.
"""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from imputune.models.compiled.library import Library, filled, library_for

EPSILON = 1e-5  # of both layer norms in source/layer.hpp


class LayerInputs(NamedTuple):
    """tokens (B, S, D), what the attention gave (B, C, S), and what each place adds to the sum of both (S, C)."""

    tokens: torch.Tensor
    attended: torch.Tensor
    places: torch.Tensor


def compiled_layer(
    inputs: LayerInputs, project: torch.Tensor, layer: nn.TransformerEncoderLayer, contract: torch.Tensor
) -> torch.Tensor | None:
    """Return the weighted sum over tokens (B, C) of an encoder layer's output; None if there is no code for it.

    The layer has GELU and no dropout, and normalises after each residual sum. With A the attended values of a stay,
    tokens first, and X its tokens,

        M = X project' + A out_proj' + places;  N = norm1(M);  output = norm2(N + linear2(gelu(linear1(N))))

    Shapes: project (C, D), contract (S,).
    """
    weights = (
        *(project, layer.self_attn.out_proj.weight, layer.norm1.weight, layer.norm1.bias),
        *(layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias),
        *(layer.norm2.weight, layer.norm2.bias, contract),
    )
    library = library_for(*inputs, *weights)
    if library is None or {layer.norm1.eps, layer.norm2.eps} != {EPSILON} or not _fit(inputs, project, contract):
        return None
    return _CompiledLayer.apply(library, *inputs, *weights)


def _fit(inputs: LayerInputs, project: torch.Tensor, contract: torch.Tensor) -> bool:
    (B, S, D), C = inputs.tokens.shape, len(project)
    given = [tuple(each.shape) for each in (inputs.attended, inputs.places, project, contract)]
    return given == [(B, C, S), (S, C), (C, D), (S,)]


class _CompiledLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, *given: torch.Tensor) -> torch.Tensor:
        given = tuple(each.contiguous() for each in given)
        inputs, weights = LayerInputs(*given[:3]), given[3:]
        (B, S, D), C, F = inputs.tokens.shape, inputs.attended.shape[1], len(weights[5])
        ctx.library, ctx.sizes = library, (B, S, D, C, F)
        tokens = inputs.tokens
        # The first sum standardised, and by what; between the linear maps; the second sum standardised, and by what.
        kept = [tokens.new_empty(B, S, width) for width in (filled(C), 1, filled(F), filled(C), 1)]
        contracted_BC = tokens.new_empty(B, C)
        library.call("imputune_layer_forward", ctx.sizes, *inputs, weights, kept, contracted_BC)
        ctx.save_for_backward(*given, *kept)
        return contracted_BC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, G_BC: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        given, kept = ctx.saved_tensors[:14], ctx.saved_tensors[14:]
        inputs, weights = LayerInputs(*given[:3]), given[3:]
        of_inputs, of_weights = ([torch.empty_like(each) for each in some] for some in (inputs, weights))
        arguments = (inputs.tokens, inputs.attended, weights, kept, G_BC.contiguous(), *of_inputs, of_weights)
        ctx.library.call("imputune_layer_backward", ctx.sizes, *arguments)
        return (None, *of_inputs, *of_weights)
