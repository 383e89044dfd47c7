"""Softmax attention within many short records at once, with a hand-written backward pass.

Letters: B stays, S tokens of a stay, D variables, A heads, d channels of a head, C = A * d. Each token has three maps:
to its query, its key and its value.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from imputune.models.compiled.attention import compiled_attention

MATRICES_AT_ONCE = 16  # attention matrices (S, S) that fit into the cache of one core
SAFE_SCORE = 60.0  # single precision holds the sum of its exponentials over any record


def attend(tokens_BSD: torch.Tensor, maps_3AdD: torch.Tensor, places_3AdS: torch.Tensor) -> torch.Tensor:
    """Let every token of a stay attend to every token of the same stay, head by head.

    For each head and stay, the queries, keys and values are matrices Q, K, V = map x' + place, channels first: at these
    sizes such products run twice as fast as with tokens first. With one column of P for each query,

        P = softmax over keys of K'Q;  O = V P

    and backward, from G_O, with delta the sums of G_O * O over channels and G_Z the gradient before the softmax,

        G_V = G_O P';  G_Z = P * (V'G_O - delta);  G_Q = K G_Z;  G_K = Q G_Z'

    P is computed for a few heads and stays at a time, and computed again in the backward pass: writing all of it to
    memory and reading it back would take longer. The products also carry the logarithms of P's sums, the sums, and
    delta, as one more channel: -log(sum) beside Q and 1 beside K, 1 beside V and -delta beside G_O. Scores are shifted
    by their largest only if the lengths of Q and K allow an exponential that is too large or too small. On a GPU they
    are always shifted, because checking would mean waiting for the GPU.

    Shapes: tokens (B, S, D), maps (3, A, d, D), places (3, A, d, S), the same for every stay; (B, C, S) out. A factor
    such as 1 / sqrt(d) belongs into the query's map and place. All share one floating dtype.

    Source: Vaswani et al. 2017, section 3.2; backward as in Dao et al. 2022 (arXiv 2205.14135), section 3.1.
    """
    attended_BCS = compiled_attention(tokens_BSD, maps_3AdD, places_3AdS)
    return _Attention.apply(tokens_BSD, maps_3AdD, places_3AdS) if attended_BCS is None else attended_BCS


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens_BSD: torch.Tensor, maps_3AdD: torch.Tensor, places_3AdS: torch.Tensor) -> torch.Tensor:
        B, S, _ = tokens_BSD.shape
        _, A, d, _ = maps_3AdD.shape
        maps = pad(maps_3AdD, (0, 0, 0, 1)).flatten(1, 2)
        places = pad(places_3AdS, (0, 0, 0, 1))
        places[1:, :, d] = 1
        queries, keys, values = (
            torch.baddbmm(place, each.expand(B, -1, -1), tokens_BSD.transpose(1, 2)).view(B * A, d + 1, S)
            for each, place in zip(maps, places.flatten(1, 2), strict=True)
        )
        attended = tokens_BSD.new_empty(B * A, d, S)
        weights = tokens_BSD.new_empty(_at_once(queries), S, S)
        shifted = _may_overflow(queries[:, :d], keys[:, :d])
        for q, k, v, o in _few_at_a_time(queries, keys, values, attended):
            if shifted:
                torch.neg(torch.bmm(k.transpose(1, 2), q).amax(dim=1), out=q[:, d])
            P = torch.bmm(k.transpose(1, 2), q, out=weights[: len(q)]).exp_()
            summed = torch.bmm(v, P)
            torch.div(summed[:, :d], summed[:, d:], out=o)
            q[:, d] -= summed[:, d].log_()
        ctx.save_for_backward(tokens_BSD, maps, queries, keys, values, attended)
        return attended.view(B, A * d, S)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, G_BCS: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tokens_BSD, maps, queries, keys, values, attended = ctx.saved_tensors
        B, S, _ = tokens_BSD.shape
        BA, d, _ = attended.shape
        given = pad(G_BCS.reshape(BA, d, S), (0, 0, 0, 1))
        torch.neg((given[:, :d] * attended).sum(dim=1), out=given[:, d])
        grads = queries.new_empty(3, BA, d + 1, S)
        weights, scores = queries.new_empty(2, _at_once(queries), S, S)
        for q, k, v, g, g_q, g_k, g_v in _few_at_a_time(queries, keys, values, given, *grads):
            # Here P has a row for each query, so that two of the three products below need no transposing.
            P_t = torch.bmm(q.transpose(1, 2), k, out=weights[: len(q)]).exp_()
            G_Z_t = torch.bmm(g.transpose(1, 2), v, out=scores[: len(q)]).mul_(P_t)
            torch.bmm(g, P_t, out=g_v)
            torch.bmm(q, G_Z_t, out=g_k)
            torch.bmm(k, G_Z_t.transpose(1, 2), out=g_q)
        grads = grads.view(3, B, -1, S)
        G_tokens = None
        if ctx.needs_input_grad[0]:
            G_tokens = sum(g.transpose(1, 2) @ each for g, each in zip(grads, maps, strict=True))
        G_maps = torch.stack([torch.bmm(g, tokens_BSD).sum(dim=0) for g in grads])
        A = BA // B
        return G_tokens, G_maps.unflatten(1, (A, -1))[:, :, :d], grads.sum(dim=1).unflatten(1, (A, -1))[:, :, :d]


def _may_overflow(queries: torch.Tensor, keys: torch.Tensor) -> bool:
    """Say whether the exponential of a score could be outside the range of single precision."""
    if queries.is_cuda:
        return True
    squares = (matrices.square().sum(dim=1).amax() for matrices in (queries, keys))
    return not math.prod(squares) < SAFE_SCORE**2


def _at_once(matrices: torch.Tensor) -> int:
    """Return how many matrices to compute at a time: on a GPU all of them."""
    return len(matrices) if matrices.is_cuda else MATRICES_AT_ONCE


def _few_at_a_time(*matrices: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the same few matrices of each batch of matrices, until all had their turn."""
    return zip(*(each.split(_at_once(each)) for each in matrices), strict=True)
