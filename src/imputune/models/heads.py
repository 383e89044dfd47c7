"""Heads: small classifiers that read a representation.

Letters: B stays, H representation width.
"""

import torch
from torch import nn


class Mlp2(nn.Module):
    """Two-layer perceptron, H -> 128 -> 1; 14,081 parameters at H = 108.

    Shapes: representation (B, H) in, logits of in-hospital death (B,) out.

    Source: paper, section VI.C (parameter counts).
    """

    def __init__(self, width: int, hidden: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1))

    def forward(self, representation_BH: torch.Tensor) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        return self.layers(representation_BH).squeeze(-1)


HEADS: dict[str, type[Mlp2]] = {"mlp2": Mlp2}
