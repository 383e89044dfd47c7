"""Raindrop: a graph of variables in which an observation of one passes messages to the others.

Letters: B stays, T hours, D variables (U as senders, D as receivers), C channels of an observation, P time channels,
K attention channels.
"""

import math

import torch
from torch import nn

from imputune.models.rivals.classifier import sinusoids

KEPT_EDGES = 0.5
LOWEST = -1e9  # the score of an hour without an observation


class Raindrop(nn.Module):
    """Graph-guided network for irregularly sampled time series.

    In each hour, every observed variable u has an embedding h_u = relu(x R_u). It sends a message to every other
    variable v, weighted by how much it matters to v at this time, and by an edge weight e_uv of the stay:

        alpha_uv = sigmoid(h_u W [r_v, p_t]');  message = relu(h_u w_u w_v' alpha_uv e_uv)

    r_v, w_u and w_v are vectors of the variables u and v, and p_t encodes the time. A variable that was not observed
    adds up its messages, over both layers; one that was observed keeps its own embedding. In the first layer all edges
    are 1. In the second an edge is the mean of alpha_uv over the hours in which u was observed, and the weaker half of
    a stay's edges is cut.
    Attention over the hours sums up each variable, with a query and key of [h, p_t] and a learned vector s:

        beta = softmax over hours of (Q K' / sqrt(K)) s;  z_v = sum over hours of beta [h, p_t] W_z

    The variables' embeddings side by side are the embedding of the stay. Its hours are those in which anything was
    observed. The paper also draws the graphs of different stays together; this penalty is left out, because it mixes
    the stays of a batch.

    Because w_u w_v' has rank one, a message is a number times the positive or the negative part of w_v, and no vector
    is stored for each pair of variables.

    Shapes: see `classifier.Encoder`; E = D * C.

    Source: Zhang et al. 2022 (arXiv 2110.05357), sections 3.3 (messages and edges) and 3.4 (attention over time).
    """

    hour_TP: torch.Tensor

    def __init__(self, hours: int, variables: int, *, channels: int, time_channels: int, attention: int) -> None:
        super().__init__()
        self.embedding_size = variables * channels
        self.register_buffer("hour_TP", sinusoids(hours, time_channels), persistent=False)
        self.reading_DC = nn.Parameter(torch.randn(variables, channels))
        self.first = _Messages(variables, channels, time_channels)
        self.second = _Messages(variables, channels, time_channels)
        self.query = nn.Linear(channels + time_channels, attention)
        self.key = nn.Linear(channels + time_channels, attention)
        self.summing_T = nn.Parameter(torch.full((hours,), 1 / math.sqrt(hours)))
        self.value = nn.Linear(channels + time_channels, channels)

    def forward(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding (B, E) and no penalty."""
        state_BTDC = (values_BTD.unsqueeze(3) * self.reading_DC).relu() * observed_BTD.unsqueeze(3)
        edge_BUD = values_BTD.new_ones(len(values_BTD), values_BTD.shape[2], values_BTD.shape[2])
        state_BTDC, alpha_BTUD = self.first(state_BTDC, observed_BTD, edge_BUD, self.hour_TP)
        edge_BUD = strongest_edges(alpha_BTUD, observed_BTD)
        state_BTDC, _ = self.second(state_BTDC, observed_BTD, edge_BUD, self.hour_TP)
        return self._sum_up(state_BTDC, observed_BTD).flatten(1), values_BTD.new_zeros(())

    def _sum_up(self, state_BTDC: torch.Tensor, observed_BTD: torch.Tensor) -> torch.Tensor:
        """Return the embedding of each variable over the hours in which anything was observed, (B, D, C)."""
        B, _, D, _ = state_BTDC.shape
        time_BDTP = self.hour_TP.expand(B, D, -1, -1)
        tokens_BDTX = torch.cat([state_BTDC.transpose(1, 2), time_BDTP], dim=3)
        is_used_B1T = (observed_BTD.amax(dim=2) > 0).unsqueeze(1)
        # (Q K') s = Q (K' s): the sum over hours comes first, so no matrix of pairs of hours is needed.
        summed_BDK1 = (self.key(tokens_BDTX) * is_used_B1T.unsqueeze(3)).transpose(2, 3) @ self.summing_T[:, None]
        score_BDT = (self.query(tokens_BDTX) @ summed_BDK1).squeeze(3) / math.sqrt(self.query.out_features)
        weight_BDT = score_BDT.masked_fill(~is_used_B1T, LOWEST).softmax(dim=2) * is_used_B1T
        return (weight_BDT.unsqueeze(2) @ self.value(tokens_BDTX)).squeeze(2)


class _Messages(nn.Module):
    """One layer of messages."""

    def __init__(self, variables: int, channels: int, time_channels: int) -> None:
        super().__init__()
        self.receiver_DC = nn.Parameter(torch.randn(variables, channels) / math.sqrt(channels))
        self.importance = nn.Linear(channels, channels + time_channels, bias=False)
        self.sender_DC = nn.Parameter(torch.randn(variables, channels) / math.sqrt(channels))
        self.direction_DC = nn.Parameter(torch.randn(variables, channels) / math.sqrt(channels))

    def forward(
        self, state_BTDC: torch.Tensor, observed_BTD: torch.Tensor, edge_BUD: torch.Tensor, hour_TP: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embeddings (B, T, D, C) after the messages, and alpha (B, T, D, D), 0 for unobserved senders."""
        channels = state_BTDC.shape[3]
        to_receiver, to_time = self.importance(state_BTDC).split([channels, hour_TP.shape[1]], dim=3)
        score_BTUD = to_receiver @ self.receiver_DC.T + (to_time * hour_TP[:, None]).sum(dim=3, keepdim=True)
        alpha_BTUD = score_BTUD.sigmoid() * observed_BTD.unsqueeze(3)
        sent_BTU1 = (state_BTDC * self.sender_DC).sum(dim=3, keepdim=True)
        strength_BTUD = sent_BTU1 * alpha_BTUD * edge_BUD.unsqueeze(1)
        # relu(s w) = relu(s) relu(w) + relu(-s) relu(-w), for a number s and a vector w.
        risen_BTD, total_BTD = strength_BTUD.relu().sum(dim=2), strength_BTUD.sum(dim=2)
        fallen_BTD = risen_BTD - total_BTD
        received = (
            risen_BTD.unsqueeze(3) * self.direction_DC.relu() + fallen_BTD.unsqueeze(3) * (-self.direction_DC).relu()
        )
        own = observed_BTD.unsqueeze(3)
        return state_BTDC + (1 - own) * received, alpha_BTUD


def strongest_edges(alpha_BTUD: torch.Tensor, observed_BTD: torch.Tensor) -> torch.Tensor:
    """Return the mean of alpha over the hours in which the sender was observed, (B, D, D), 0 for the weaker half."""
    mean_BUD = alpha_BTUD.sum(dim=1) / observed_BTD.sum(dim=1).clamp_min(1.0).unsqueeze(2)
    kept = max(1, round(KEPT_EDGES * mean_BUD.shape[1] * mean_BUD.shape[2]))
    lowest_B11 = mean_BUD.detach().flatten(1).topk(kept, dim=1).values[:, -1, None, None]
    return mean_BUD * (mean_BUD >= lowest_B11)
