"""Predicting which variables are observed next, from the imputer's hidden states: a layer for pretraining alone.

Letters: B stays, T hours, D variables, H hidden size, K the two directions (0 forward, 1 backward).
"""

import math

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits


class Missingness(nn.Module):
    """One linear layer per direction, from the hidden state after an hour to the mask of the direction's next hour.

    The hidden state is taken before the next hour's decay: that decay depends on the gap, which tells which variables
    the next hour has. Shapes: `forward` takes hidden states (K, B, T, H), in each direction's own order of time, and
    gives logits (K, B, T - 1, D) in the same order.

    Source: prediction of presence beside values in DuETT (Labach et al. 2023, arXiv 2304.13017); here from one hour to
    the next, as the history regression of BRITS predicts values.
    """

    def __init__(self, hidden_size: int, variables: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden_size)
        self.weight_KHD = nn.Parameter(torch.empty(2, hidden_size, variables).uniform_(-bound, bound))
        self.bias_KD = nn.Parameter(torch.empty(2, variables).uniform_(-bound, bound))

    def forward(self, hidden_KBTH: torch.Tensor) -> torch.Tensor:
        """Return the logits that a variable is observed in the next hour."""
        before_KBTH = hidden_KBTH[:, :, :-1]
        logits_KND = torch.baddbmm(self.bias_KD[:, None], before_KBTH.flatten(1, 2), self.weight_KHD)
        return logits_KND.unflatten(1, before_KBTH.shape[1:3])

    def loss(self, hidden_KBTH: torch.Tensor, observed_BTD: torch.Tensor) -> torch.Tensor:
        """Return the mean binary cross-entropy over all cells but those of each direction's first hour, a scalar.

        `observed_BTD` is 0/1 (B, T, D) in forward order, masked cells included: they were measured. A record of one
        hour has nothing to predict, and a loss of 0.
        """
        next_KBTD = torch.stack([observed_BTD[:, 1:], observed_BTD.flip(1)[:, 1:]])
        cross_entropy = binary_cross_entropy_with_logits(self(hidden_KBTH), next_KBTD, reduction="sum")
        return cross_entropy / max(next_KBTD.numel(), 1)
