"""A head on top of an imputer, trained on the representation (frozen) or through it (unfrozen)."""

import torch
from torch import nn

from imputune.data.views import Views
from imputune.models.csai import Csai


class Classifier(nn.Module):
    """An imputer whose `last` representation a head turns into a logit of in-hospital death.

    With `freeze_imputer` only the head's weights are trainable, and the imputer stays bit-equal. Shapes: Views of
    (K, B, T, D) tensors in, logits (B,) out.

    Source: paper, section V.A (frozen and unfrozen).
    """

    def __init__(self, imputer: Csai, head: nn.Module, freeze_imputer: bool) -> None:
        super().__init__()
        self.imputer = imputer.requires_grad_(not freeze_imputer)
        self.head = head

    def forward(self, views: Views) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        return self.head(self.represent(views))

    def represent(self, views: Views) -> torch.Tensor:
        """Return what the head reads, (B, H)."""
        return self.imputer(views).last_BH
