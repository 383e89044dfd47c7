"""CSAI: bidirectional recurrence with temporal decay; its first hidden state comes from self-attention over the record.

Letters: B stays, T hours, D variables, H hidden size, K the two directions (0 forward, 1 backward); in attention, S
tokens of a stay, C channels, A heads, E = 3 * C channels of queries, keys and values together.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import gelu, pad

from imputune.data.directions import Directions
from imputune.models.attention import attend
from imputune.models.compiled.layer import LayerInputs, compiled_layer
from imputune.models.fast_recurrence import recur
from imputune.models.hidden_states import make_state
from imputune.models.recurrence import Steps, Trace, Weights


@dataclass(frozen=True, kw_only=True)
class CsaiSizes:
    """The numbers that fix a CSAI; attention is one encoder layer over 2 * hours tokens.

    hours: T, the number of bins. bin_hours: how many hours pass from one bin to the next; time gaps are in hours.
    """

    variables: int
    hours: int = 48
    bin_hours: int = 1
    hidden_size: int = 108
    channels: int = 64
    attention_heads: int = 8
    feedforward: int = 64


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstruction:
    """CSAI's estimates and hidden states for a batch.

    combined_KBTD: each direction's estimate of every cell, standardised, both in forward order of time.
    history_KBTD: the history regression's estimates alone. imputed_BTD: observed cells unchanged, missing cells the
    mean of both directions' estimates. hidden_KBTH: hidden states, in each direction's own order of time, so that
    [:, :, -1] is the last.
    """

    combined_KBTD: torch.Tensor
    history_KBTD: torch.Tensor
    imputed_BTD: torch.Tensor
    hidden_KBTH: torch.Tensor

    @property
    def last_BH(self) -> torch.Tensor:
        """Representation `last`: the mean of both directions' final hidden states, (B, H)."""
        return self.state("hidden")

    def state(self, name: str) -> torch.Tensor:
        """Return a hidden state of each stay, (B, size); see `models.hidden_states.make_state`."""
        return make_state(name, self.hidden_KBTH)


class Csai(nn.Module):
    """Conditional self-attention imputation of standardised hourly records.

    Shapes: `forward` takes Directions of (K, B, T, D) tensors and gives a Reconstruction. A stay alone gives what it
    gives in any batch: attention runs over the hours of one record only.

    Source: CSAI (arXiv 2312.16713); recurrence after BRITS (Cao et al. 2018).
    """

    median_gap_hours_D: torch.Tensor

    def __init__(self, sizes: CsaiSizes) -> None:
        super().__init__()
        self.sizes = sizes
        D, H, K = sizes.variables, sizes.hidden_size, 2
        self.register_buffer("median_gap_hours_D", torch.zeros(D))
        self.first_states = nn.ModuleList(FirstState(sizes) for _ in range(K))
        self.hidden_decay = _uniform(K, D, H, fan_in=D)
        self.hidden_decay_bias = _uniform(K, H, fan_in=D)
        self.input_decay = _uniform(K, D, fan_in=1)
        self.input_decay_bias = _uniform(K, D, fan_in=D)
        self.history = _uniform(K, H, D, fan_in=H)
        self.history_bias = _uniform(K, D, fan_in=H)
        self.feature = _uniform(K, D, D, fan_in=D)
        self.feature_bias = _uniform(K, D, fan_in=D)
        self.combine = _uniform(K, 2 * D, D, fan_in=2 * D)
        self.combine_bias = _uniform(K, D, fan_in=2 * D)
        self.gru_values = _uniform(K, D, 3 * H, fan_in=H)
        self.gru_observed = _uniform(K, D, 3 * H, fan_in=H)
        self.gru_input_bias = _uniform(K, 3 * H, fan_in=H)
        self.gru_hidden = _uniform(K, H, 3 * H, fan_in=H)
        self.gru_hidden_bias = _uniform(K, 3 * H, fan_in=H)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.median_gap_hours_D.device

    def forward(self, directions: Directions) -> Reconstruction:
        """Impute a batch; see the class for shapes. Raises ValueError if hours or variables differ from the sizes."""
        expected = (self.sizes.hours, self.sizes.variables)
        if directions.values.shape[2:] != expected:
            raise ValueError(
                f"directions must have (hours, variables) {expected}, got {tuple(directions.values.shape[2:])}"
            )
        trace = recur(self._steps(directions), self._weights(), self._first_hidden(directions))
        return self._reconstruct(directions, trace)

    def _first_hidden(self, directions: Directions) -> torch.Tensor:
        gap_excess = self._in_hours(directions.gap_hours) - self.median_gap_hours_D
        return torch.stack(
            [state(directions.last_observed[k], gap_excess[k]) for k, state in enumerate(self.first_states)]
        )

    def _in_hours(self, gap: torch.Tensor) -> torch.Tensor:
        return gap if self.sizes.bin_hours == 1 else gap * self.sizes.bin_hours

    def _steps(self, directions: Directions) -> Steps:
        """Compute for all hours at once what does not depend on the hidden state."""
        values, observed, gap = (
            series.transpose(1, 2).contiguous()
            for series in (directions.values, directions.observed, self._in_hours(directions.gap_hours))
        )
        gap_decay = torch.relu(gap * self.input_decay[:, None, None] + self.input_decay_bias[:, None, None])
        rate = torch.relu(_affine([gap], self.hidden_decay, self.hidden_decay_bias))
        weight = _affine([torch.exp(-gap_decay), observed], self.combine, self.combine_bias)
        return Steps(values, observed, rate, weight)

    def _weights(self) -> Weights:
        H = self.sizes.hidden_size
        reset_update, new = self.gru_hidden.split([2 * H, H], dim=-1)
        reset_update_bias, new_bias = self.gru_hidden_bias.split([2 * H, H], dim=-1)
        input_bias = self.gru_input_bias + pad(reset_update_bias, (0, H))
        off_diagonal = 1 - torch.eye(self.sizes.variables, dtype=self.feature.dtype, device=self.feature.device)
        return Weights(
            hidden_KHO=torch.cat([self.history, new, reset_update], dim=-1),
            history_bias_KD=self.history_bias,
            new_bias_KH=new_bias,
            feature_KDD=self.feature * off_diagonal,
            feature_bias_KD=self.feature_bias,
            input_KIG=torch.cat([self.gru_values, self.gru_observed, input_bias[:, None]], dim=1),
        )

    def _reconstruct(self, directions: Directions, trace: Trace) -> Reconstruction:
        combined_KBTD = _forward_order(trace.combined)
        observed_BTD = directions.observed[0]
        return Reconstruction(
            combined_KBTD=combined_KBTD,
            history_KBTD=_forward_order(trace.history),
            imputed_BTD=torch.where(observed_BTD > 0, directions.values[0], combined_KBTD.mean(dim=0)),
            hidden_KBTH=trace.hidden.transpose(1, 2),
        )


class FirstState(nn.Module):
    """The hidden state before the first hour, from self-attention over one direction of the whole record.

    Each hour has two tokens: its last observations, and the conditional decay of (gap - median gap). Both go through
    one projection and have the same positions. Shapes: two (B, T, D) tensors in, (B, H) out.

    Source: CSAI (arXiv 2312.16713), conditional self-attention. The contraction over tokens comes before the last
    projection; the two commute.
    """

    positions_TC: torch.Tensor

    def __init__(self, sizes: CsaiSizes) -> None:
        super().__init__()
        self.decay = nn.Linear(sizes.variables, sizes.variables)
        self.project = nn.Linear(sizes.variables, sizes.channels)
        self.register_buffer("positions_TC", sinusoidal_positions(sizes.hours, sizes.channels))
        self.attention = nn.TransformerEncoderLayer(
            sizes.channels,
            sizes.attention_heads,
            sizes.feedforward,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
        )
        self.contract = _uniform(2 * sizes.hours, fan_in=2 * sizes.hours)
        self.output = nn.Linear(sizes.channels, sizes.hidden_size)

    def forward(self, last_observed_BTD: torch.Tensor, gap_excess_BTD: torch.Tensor) -> torch.Tensor:
        """Return the first hidden state (B, H)."""
        slope_BTD = torch.sign(gap_excess_BTD) * torch.abs(self.decay(gap_excess_BTD))
        decay_BTD = 0.5 * (1 - torch.tanh(slope_BTD))
        tokens_BSD = torch.cat([last_observed_BTD, decay_BTD], dim=1)
        place_SC = self.positions_TC.repeat(2, 1) + self.project.bias
        inputs = LayerInputs(
            tokens_BSD, self._attend(tokens_BSD, place_SC), place_SC + self.attention.self_attn.out_proj.bias
        )
        contracted_BC = compiled_layer(inputs, self.project.weight, self.attention, self.contract)
        if contracted_BC is None:
            contracted_BC = torch.matmul(self.contract, self._encode(inputs))
        return self.output(contracted_BC)

    def _attend(self, tokens_BSD: torch.Tensor, place_SC: torch.Tensor) -> torch.Tensor:
        """Return what the attention gives for `project(tokens) + positions`, (B, C, S), before its last projection.

        The maps to queries, keys and values start from D variables; the layer's own start from C channels.
        """
        attention = self.attention.self_attn
        (_, S, D), A, C = tokens_BSD.shape, attention.num_heads, attention.embed_dim
        map_EC, bias_E = (
            torch.cat([each[:C] * (C // A) ** -0.5, each[C:]])  # the factor of the scores
            for each in (attention.in_proj_weight, attention.in_proj_bias)
        )
        return attend(
            tokens_BSD,
            (map_EC @ self.project.weight).view(3, A, C // A, D),
            torch.addmm(bias_E[:, None], map_EC, place_SC.t()).view(3, A, C // A, S),
        )

    def _encode(self, inputs: LayerInputs) -> torch.Tensor:
        """Return the encoder layer's output (B, S, C), without its copies between batch-first and its inner layout."""
        layer, B = self.attention, len(inputs.tokens)
        residual_BSC = torch.baddbmm(inputs.places, inputs.tokens, self.project.weight.t().expand(B, -1, -1))
        mixed_BSC = torch.baddbmm(
            residual_BSC, inputs.attended.transpose(1, 2), layer.self_attn.out_proj.weight.t().expand(B, -1, -1)
        )
        normed_BSC = layer.norm1(mixed_BSC)
        return layer.norm2(normed_BSC + layer.linear2(gelu(layer.linear1(normed_BSC))))


def sinusoidal_positions(hours: int, channels: int) -> torch.Tensor:
    """Return the Transformer's sinusoidal position code, (T, C). Source: Vaswani et al. 2017, section 3.5."""
    hour_T1 = torch.arange(hours, dtype=torch.float32).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    code_TC = torch.zeros(hours, channels)
    code_TC[:, 0::2] = torch.sin(hour_T1 * frequency)
    code_TC[:, 1::2] = torch.cos(hour_T1 * frequency[: channels // 2])
    return code_TC


def _affine(inputs_KTBI: list[torch.Tensor], weight_KIO: torch.Tensor, bias_KO: torch.Tensor) -> torch.Tensor:
    """Map the concatenated inputs of all hours at once, the bias as one more input; (K, T, B, O) out."""
    K, T, B, _ = inputs_KTBI[0].shape
    extended_KTBI = torch.cat([*inputs_KTBI, weight_KIO.new_ones(()).expand(K, T, B, 1)], dim=-1)
    return torch.bmm(extended_KTBI.flatten(1, 2), torch.cat([weight_KIO, bias_KO[:, None]], dim=1)).view(K, T, B, -1)


def _forward_order(cells_KTBD: torch.Tensor) -> torch.Tensor:
    """Turn (K, T, B, D) in each direction's order of time into (K, B, T, D) in forward order."""
    return torch.stack([cells_KTBD[0], cells_KTBD[1].flip(0)]).transpose(1, 2)


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
