"""CSAI's first hidden states of several folds at once, without gradients; `models.csai.FirstState` defines them.

Letters: J readings, the directions of all folds, each with weights of its own; B stays, T hours, D variables, H hidden
size, S = 2T tokens of a stay, C channels, A heads, E = A * d channels of queries, keys or values, L of the widened
layer.
"""

import math
from typing import NamedTuple, Self

import torch
from torch.nn.functional import gelu, layer_norm, pad

from imputune.models.csai import Csai, FirstState
from imputune.models.small_products import product
from imputune.models.stacked_recurrence import LOG2_E

MATRICES_AT_ONCE = 16  # attention matrices (S, S) that fit into the cache of one core
SAFE_EXPONENT = 80.0  # single precision holds the sum of such powers of 2 over any record


class FirstStateWeights(NamedTuple):
    """The weights of J first states. The maps of queries, keys and values start from the D variables of a token.

    places_J3ES: of the queries the factor of the scores is part, and that of powers of 2. The last LayerNorm's weights
    are part of what comes after it.
    """

    median_gap_JD: torch.Tensor
    decay_JDD: torch.Tensor
    decay_bias_JD: torch.Tensor
    maps_J3ED: torch.Tensor
    places_J3ES: torch.Tensor
    residual_JDC: torch.Tensor
    residual_place_JSC: torch.Tensor
    mixed_JCC: torch.Tensor
    norm_JC: torch.Tensor
    norm_bias_JC: torch.Tensor
    widen_JCL: torch.Tensor
    widen_bias_JL: torch.Tensor
    narrow_JLC: torch.Tensor
    narrow_bias_JC: torch.Tensor
    contract_JS: torch.Tensor
    output_JCH: torch.Tensor
    output_bias_JH: torch.Tensor

    @classmethod
    def of(cls, imputer: Csai) -> Self:
        """Return the weights of one imputer's two readings."""
        both = [cls._of_reading(imputer, state) for state in imputer.first_states if isinstance(state, FirstState)]
        return cls._make(torch.stack(each) for each in zip(*both, strict=True))

    @classmethod
    def _of_reading(cls, imputer: Csai, state: FirstState) -> Self:
        layer, attention = state.attention, state.attention.self_attn
        C, A = attention.embed_dim, attention.num_heads
        place_SC = state.positions_TC.repeat(2, 1) + state.project.bias
        scale_3 = torch.tensor([LOG2_E / math.sqrt(C // A), 1.0, 1.0])
        map_3CC = attention.in_proj_weight.view(3, C, C) * scale_3[:, None, None]
        bias_3C = attention.in_proj_bias.view(3, C) * scale_3[:, None]
        norm, bias = layer.norm2.weight, layer.norm2.bias
        return cls(
            median_gap_JD=imputer.median_gap_hours_D,
            decay_JDD=state.decay.weight.t(),
            decay_bias_JD=state.decay.bias,
            maps_J3ED=map_3CC @ state.project.weight,
            places_J3ES=map_3CC @ place_SC.t() + bias_3C[:, :, None],
            residual_JDC=state.project.weight.t(),
            residual_place_JSC=place_SC + attention.out_proj.bias,
            mixed_JCC=attention.out_proj.weight.t(),
            norm_JC=layer.norm1.weight,
            norm_bias_JC=layer.norm1.bias,
            widen_JCL=layer.linear1.weight.t(),
            widen_bias_JL=layer.linear1.bias,
            narrow_JLC=layer.linear2.weight.t(),
            narrow_bias_JC=layer.linear2.bias,
            contract_JS=state.contract,
            output_JCH=(state.output.weight * norm).t(),
            output_bias_JH=state.output.bias + state.contract.sum() * (state.output.weight @ bias),
        )


def first_hidden(
    weights: FirstStateWeights, last_observed_JBTD: torch.Tensor, gap_JBTD: torch.Tensor, heads: int
) -> torch.Tensor:
    """Return the hidden state before the first hour of every reading, (J, B, H); gaps are in hours."""
    J, B, T, D = gap_JBTD.shape
    excess = (gap_JBTD - weights.median_gap_JD[:, None, None]).flatten(1, 2)
    slope = torch.baddbmm(weights.decay_bias_JD[:, None], excess, weights.decay_JDD).abs_()
    decay = slope.mul_(excess.sign_()).mul_(-2).sigmoid_()  # (1 - tanh(slope)) / 2
    tokens_JBSD = torch.cat([last_observed_JBTD, decay.view(J, B, T, D)], dim=2)
    attended_JBES = _attended(weights, tokens_JBSD, heads)

    residual = torch.bmm(tokens_JBSD.flatten(1, 2), weights.residual_JDC).view(J, B, 2 * T, -1)
    residual += weights.residual_place_JSC[:, None]
    for mixed_BSC, attended_BES, map_EC in zip(residual, attended_JBES, weights.mixed_JCC, strict=True):
        mixed_BSC.baddbmm_(attended_BES.transpose(1, 2), map_EC.expand(B, -1, -1))
    channels = residual.shape[-1:]
    normed = layer_norm(residual, channels).flatten(1, 2)
    normed = torch.addcmul(weights.norm_bias_JC[:, None], normed, weights.norm_JC[:, None])
    widened = gelu(torch.baddbmm(weights.widen_bias_JL[:, None], normed, weights.widen_JCL))
    normed += weights.narrow_bias_JC[:, None]
    encoded_JBSC = layer_norm(normed.baddbmm_(widened, weights.narrow_JLC), channels).view(J, B, 2 * T, -1)
    contracted_JBC = torch.matmul(weights.contract_JS[:, None, None], encoded_JBSC).squeeze(2)
    return torch.baddbmm(weights.output_bias_JH[:, None], contracted_JBC, weights.output_JCH)


def _attended(weights: FirstStateWeights, tokens_JBSD: torch.Tensor, heads: int) -> torch.Tensor:
    """Let every token of a stay attend to every token of the same stay, head by head, (J, B, E, S) out.

    As in `models.attention`, matrices are channels first, a few at a time, and another channel of the values, all 1,
    gives the sums of the powers of 2.
    """
    J, B, S, _ = tokens_JBSD.shape
    E = weights.maps_J3ED.shape[2]
    d = E // heads
    mapped = tokens_JBSD.new_empty(3, J, B, E, S)
    for j, tokens_BSD in enumerate(tokens_JBSD):
        for part in range(3):
            place_ES, map_ED = weights.places_J3ES[j, part], weights.maps_J3ED[j, part]
            torch.baddbmm(place_ES, map_ED.expand(B, -1, -1), tokens_BSD.transpose(1, 2), out=mapped[part, j])
    queries, keys, values = mapped.view(3, J * B * heads, d, S)
    values_and_1 = pad(values, (0, 0, 0, 1), value=1.0)
    attended = torch.empty_like(values)
    scores, summed = (tokens_JBSD.new_empty(MATRICES_AT_ONCE, size, S) for size in (S, d + 1))
    shifted = _may_overflow(queries, keys)
    few = (each.split(MATRICES_AT_ONCE) for each in (queries, keys, values_and_1, attended))
    for q, k, v, o in zip(*few, strict=True):
        z, weighted = scores[: len(q)], summed[: len(q)]
        product(k.transpose(1, 2), q, z)()
        if shifted:
            z -= z.amax(dim=1, keepdim=True)
        product(v, z.exp2_(), weighted)()
        torch.div(weighted[:, :d], weighted[:, d:], out=o)
    return attended.view(J, B, E, S)


def _may_overflow(queries: torch.Tensor, keys: torch.Tensor) -> bool:
    """Say whether a power of 2 of a score could be outside the range of single precision."""
    squares = (matrices.square().sum(dim=1).amax().item() for matrices in (queries, keys))
    return not math.prod(squares) < SAFE_EXPONENT**2
