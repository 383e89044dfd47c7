"""A head on top of an imputer, trained on what the imputer hands on (frozen) or through it (unfrozen)."""

import torch
from torch import nn

from imputune.data.directions import Views
from imputune.models.csai import Csai

READS = ("hidden", "imputed", "raw")


class Classifier(nn.Module):
    """An imputer, and a head that turns what it hands on into a logit of in-hospital death.

    With `freeze_imputer` only the head's weights are trainable, and the imputer stays bit-equal. `reads` says what the
    head is given: `hidden`, the representation `last` alone; `imputed` or `raw`, that and a series, imputed or with 0
    in its holes. Shapes: Views of (K, B, T, D) tensors in, logits (B,) out. Raises ValueError for another `reads`.

    Source: paper, section V.A (frozen and unfrozen, inputs).
    """

    def __init__(self, imputer: Csai, head: nn.Module, freeze_imputer: bool, reads: str = "hidden") -> None:
        super().__init__()
        if reads not in READS:
            raise ValueError(f"reads must be one of {READS}, got {reads!r}")
        self.imputer = imputer.requires_grad_(not freeze_imputer)
        self.head = head
        self.reads = reads

    def forward(self, views: Views) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        return self.head(*self.represent(views))

    def represent(self, views: Views) -> tuple[torch.Tensor, ...]:
        """Return what the head reads: the hidden state (B, H), and where it reads one a series (B, T, D)."""
        reconstruction = self.imputer(views)
        return self.choose(reconstruction.last_BH, reconstruction.imputed_BTD, views.values[0])

    def choose(
        self, last_BH: torch.Tensor, imputed_BTD: torch.Tensor, raw_BTD: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return of these what the head reads."""
        if self.reads == "hidden":
            return (last_BH,)
        return last_BH, imputed_BTD if self.reads == "imputed" else raw_BTD
