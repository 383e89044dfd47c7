"""STraTS: a transformer over observations as triplets of time, variable and value.

Letters: B stays, T hours, D variables, M observations of a batch, L places for those of a stay, W width.
"""

import torch
from torch import nn
from torch.nn.functional import embedding, scaled_dot_product_attention

from imputune.models.rivals.classifier import places_in_stays

STAYS_TOGETHER = 8
LOWEST = -1e9  # the score of a place without an observation


class Strats(nn.Module):
    """Self-supervised Transformer for Time Series, trained on the outcome alone.

    An observation is the sum of three embeddings of width W: one of its variable, one of its value and one of its hour,
    the last two by a network with one hidden layer. A transformer lets the observations of a stay attend to each other.
    Attention with weights softmax(u' tanh(W c + b)) sums up its outputs c. The paper first trains the network to
    forecast the record on further stays without an outcome; here it has none, as every rival.

    Shapes: see `classifier.Encoder`; E = W. A stay without an observation has the embedding 0.

    Source: Tipirneni and Reddy 2022 (arXiv 2107.14293), section 3.3: initial triplet embedding, contextual triplet
    embedding, fusion self-attention.
    """

    hour_T1: torch.Tensor

    def __init__(
        self, hours: int, variables: int, *, width: int, layers: int, heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding_size = width
        self.register_buffer("hour_T1", torch.linspace(-1, 1, hours)[:, None], persistent=False)
        self.variable_DW = nn.Parameter(torch.randn(variables, width) / 2)
        self.value, self.hour = _number_embedding(width), _number_embedding(width)
        self.blocks = nn.ModuleList(_Block(width, heads, feedforward, dropout=dropout) for _ in range(layers))
        self.fusion = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, 1, bias=False))

    def forward(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding (B, E) and no penalty.

        Stays with about as many observations are computed together: attention takes time in proportion to the square
        of the places of the longest one.
        """
        by_length_B = observed_BTD.sum(dim=(1, 2)).argsort()
        embedding_BE = torch.cat(
            [self._embed(values_BTD[some], observed_BTD[some]) for some in by_length_B.split(STAYS_TOGETHER)]
        )
        return embedding_BE[by_length_B.argsort()], values_BTD.new_zeros(())

    def _embed(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> torch.Tensor:
        """Return the embedding (B, E) of stays that share their number of places."""
        stay_M, hour_M, variable_M = observed_BTD.nonzero(as_tuple=True)
        value_M1 = values_BTD[stay_M, hour_M, variable_M].unsqueeze(1)
        triplet_MW = (
            self.value(value_M1) + embedding(hour_M, self.hour(self.hour_T1)) + embedding(variable_M, self.variable_DW)
        )
        places = places_in_stays(stay_M, len(values_BTD))
        is_empty_BL = places.laid_out(triplet_MW.new_zeros(len(stay_M), 1), 1.0).squeeze(2) > 0
        bias_B11L = (is_empty_BL * LOWEST)[:, None, None]
        context_BLW = places.laid_out(triplet_MW, 0.0)
        for block in self.blocks:
            context_BLW = block(context_BLW, bias_B11L)
        weight_BL1 = self.fusion(context_BLW).masked_fill(is_empty_BL.unsqueeze(2), LOWEST).softmax(dim=1)
        weight_BL1 = weight_BL1.masked_fill(is_empty_BL.unsqueeze(2), 0.0)
        return (weight_BL1 * context_BLW).sum(dim=1)


class _Block(nn.Module):
    """One layer of a transformer: attention between the observations of a stay, then a feed-forward network.

    Dropout acts on what each of the two adds, not on attention weights: so these are never stored.

    Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(self, width: int, heads: int, feedforward: int, *, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.projected = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, context_BLW: torch.Tensor, bias_B11L: torch.Tensor) -> torch.Tensor:
        """Return the observations (B, L, W) with what they attend to; the bias is added to the scores of a place."""
        parts = self.projected(context_BLW).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=bias_B11L)
        context_BLW = self.norms[0](context_BLW + self.dropout(self.joined(attended.transpose(1, 2).flatten(2))))
        return self.norms[1](context_BLW + self.dropout(self.feedforward(context_BLW)))


def _number_embedding(width: int) -> nn.Module:
    """Return a network with one hidden layer, of the root of the width, that embeds a number."""
    hidden = max(1, round(width**0.5))
    return nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, width, bias=False))
