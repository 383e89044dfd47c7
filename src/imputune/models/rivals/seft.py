"""SeFT: a record as a set of observations, summed up by attention.

Letters: B stays, T hours, D variables, M observations of a batch, L places for those of a stay, W width, A attention
heads, C time channels.
"""

import torch
from torch import nn
from torch.nn.functional import embedding

from imputune.models.rivals.classifier import places_in_stays, sinusoids

EMPTY_SCORE = -1e9  # of a place without an observation: its softmax is 0, or meets the vector 0


class Seft(nn.Module):
    """Set Functions for Time Series.

    A record is the set of its observations s = (time, value, variable). A network h maps each observation alone to W
    numbers, and each attention head takes the weighted mean of these over the set:

        r_i = sum over j of a_ji h(s_j),  a_ji = softmax over the set of K_ji . Q_i / sqrt(d),  K_ji = [f'(S), s_j] W_i

    The heads' means side by side are the embedding. Scores are linear in [f'(S), s_j]. So the summary f'(S) of the set
    adds the same number to every score of a head, which the softmax does not see: it is left out, and W_i Q_i is one
    vector. h reads the observations of all stays of a batch in one list, without padding. A stay without an observation
    has the embedding 0.

    Shapes: see `classifier.Encoder`; E = A * W.

    Source: Horn et al. 2020 (arXiv 1909.12064), section 3: set functions, time encoding, attention-based aggregation.
    """

    hour_TC: torch.Tensor

    def __init__(
        self, hours: int, variables: int, *, width: int, layers: int, heads: int, time_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding_size = heads * width
        self.heads = heads
        self.register_buffer("hour_TC", sinusoids(hours, time_channels), persistent=False)
        self.first = _ElementMap(variables, time_channels, width)
        self.scores = _ElementMap(variables, time_channels, heads)
        further: list[nn.Module] = []
        for _ in range(layers - 1):
            further += [nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)]
        self.further = nn.Sequential(*further)

    def forward(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding (B, E) and no penalty."""
        stay_M, hour_M, variable_M = observed_BTD.nonzero(as_tuple=True)
        element = (values_BTD[stay_M, hour_M, variable_M], hour_M, variable_M)
        places = places_in_stays(stay_M, len(values_BTD))
        encoded_BLW = places.laid_out(self.further(self.first(self.hour_TC, *element)), 0.0)
        score_BLA = places.laid_out(self.scores(self.hour_TC, *element), EMPTY_SCORE)
        mean_BAW = score_BLA.softmax(dim=1).transpose(1, 2) @ encoded_BLW
        return mean_BAW.flatten(1), values_BTD.new_zeros(())


class _ElementMap(nn.Module):
    """A linear map of observations (time encoding, value, one-hot variable), without building the one-hot vectors."""

    def __init__(self, variables: int, time_channels: int, size: int) -> None:
        super().__init__()
        self.hour = nn.Linear(time_channels, size)
        self.value = nn.Parameter(torch.randn(size) / 2)
        self.variable = nn.Parameter(torch.randn(variables, size) / 2)

    def forward(
        self, hour_TC: torch.Tensor, value_M: torch.Tensor, hour_M: torch.Tensor, variable_M: torch.Tensor
    ) -> torch.Tensor:
        """Return `size` numbers of each observation."""
        mapped = embedding(hour_M, self.hour(hour_TC)) + embedding(variable_M, self.variable)
        return torch.addcmul(mapped, value_M.unsqueeze(1), self.value)
