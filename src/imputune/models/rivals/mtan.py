"""mTAND-Enc: attention over observation times at reference points, and a recurrence over these.

Letters: B stays, T hours, D variables, R reference points, A attention heads, C features of a time, H hidden size.
"""

import math

import torch
from torch import nn


class Mtan(nn.Module):
    """Multi-Time Attention Network, its encoder with a classifier.

    A time has C learned features in each head, the first linear and the others sines. At each reference point r, a
    variable's value is interpolated by attention over the hours in which it was observed:

        phi(t)_0 = w_0 t + a_0;  phi(t)_c = sin(w_c t + a_c);  kappa(r, t) = softmax over observed t of
        phi(r) w v' phi(t)' / sqrt(C);  x^(r) = sum over t of kappa(r, t) x(t)

    Beside it stands whether the variable was observed at all, which is what the mask interpolates to. A linear map of
    both, over heads and variables, goes into a GRU over the reference points; its last state is the embedding. All
    stays have the same hours, so scores are computed once, and the sums for all stays are one matrix product. An
    interpolated value tends to 0, the training mean, if the weights of all observed hours add up to less than 1e-20
    times the largest weight of any hour.

    Shapes: see `classifier.Encoder`; E = H.

    Source: Shukla and Marlin 2021 (arXiv 2101.10318), section 3: time embedding, multi-time attention; mTAND-Enc:
    section 5.
    """

    hour_T: torch.Tensor
    reference_R: torch.Tensor

    def __init__(
        self, hours: int, variables: int, *, hidden_size: int, heads: int, time_channels: int, reference_points: int
    ) -> None:
        super().__init__()
        self.embedding_size = hidden_size
        self.register_buffer("hour_T", _unit_interval(hours), persistent=False)
        self.register_buffer("reference_R", _unit_interval(reference_points), persistent=False)
        self.rate_AC = nn.Parameter(torch.randn(heads, time_channels) * 4)
        self.phase_AC = nn.Parameter(torch.rand(heads, time_channels) * 2 * math.pi)
        self.query_ACC = nn.Parameter(torch.randn(heads, time_channels, time_channels) / math.sqrt(time_channels))
        self.key_ACC = nn.Parameter(torch.randn(heads, time_channels, time_channels) / math.sqrt(time_channels))
        self.mixing = nn.Linear(heads * 2 * variables, hidden_size)
        self.recurrence = nn.GRU(hidden_size, hidden_size, batch_first=True)

    def forward(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding (B, E) and no penalty."""
        queries = self._embed(self.reference_R) @ self.query_ACC
        keys = self._embed(self.hour_T) @ self.key_ACC
        score_ART = queries @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1])
        weight_ART = (score_ART - score_ART.amax(dim=2, keepdim=True)).exp()
        cells = torch.cat([values_BTD, observed_BTD], dim=2)
        summed_BRAX = torch.einsum("art,btx->brax", weight_ART, cells)
        value_BRAD, total_BRAD = summed_BRAX.chunk(2, dim=3)
        interpolated = value_BRAD / total_BRAD.clamp_min(1e-20)
        mixed_BRH = self.mixing(torch.cat([interpolated, (total_BRAD > 0).to(value_BRAD)], dim=3).flatten(2))
        _, last_1BH = self.recurrence(mixed_BRH)
        return last_1BH[0], values_BTD.new_zeros(())

    def _embed(self, time_X: torch.Tensor) -> torch.Tensor:
        """Return the features of some times, (A, X, C)."""
        angle_AXC = time_X[:, None] * self.rate_AC[:, None] + self.phase_AC[:, None]
        return torch.cat([angle_AXC[..., :1], angle_AXC[..., 1:].sin()], dim=2)


def _unit_interval(points: int) -> torch.Tensor:
    """Return so many times from 0, the first hour, to 1, the last."""
    return torch.linspace(0, 1, points)
