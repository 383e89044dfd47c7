"""What all rivals have in common: an encoder turns a record into an embedding, a readout turns that into a logit.

Letters: B stays, T hours, D variables, E numbers of the embedding, R record features.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


class Encoder(Protocol):
    """The network of a rival without its last layers.

    embedding_size: E. Called with values and an observed mask, both float (B, T, D), standardised, 0 where not
    observed, and 0/1. It returns the embedding (B, E) and a penalty, a 0-dimensional tensor, which training adds to the
    loss: 0 for a rival that learns from the outcome alone.
    """

    embedding_size: int

    def __call__(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding and the penalty."""


class RivalClassifier(nn.Module):
    """An encoder and a readout. The numbers in missing cells (observed = 0) have no effect.

    Shapes: values and observed mask (B, T, D) and, if the readout takes them, record features (B, R) in; logits of the
    outcome (B,) and the encoder's penalty out.
    """

    def __init__(self, encoder: Encoder, readout: nn.Module) -> None:
        super().__init__()
        self.encoder, self.readout = encoder, readout

    def forward(
        self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor, record_BR: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one logit per stay, (B,), and the penalty."""
        embedding_BE, penalty = self.encoder(values_BTD.masked_fill(observed_BTD == 0, 0.0), observed_BTD)
        record = () if record_BR is None else (record_BR,)
        return self.readout(embedding_BE, *record), penalty


@dataclass(frozen=True, eq=False, kw_only=True)
class Places:
    """Where each of the M observations of a batch stands, if the observations of a stay stand side by side.

    stays: B. length: L, the largest number of observations of a stay, 1 at least. stay_M, place_M: int64 (M,).
    """

    stays: int
    length: int
    stay_M: torch.Tensor
    place_M: torch.Tensor

    def laid_out(self, numbers_MX: torch.Tensor, empty: float) -> torch.Tensor:
        """Return numbers of observations (M, X) as (B, L, X), `empty` in the places without one."""
        laid_out = numbers_MX.new_full((self.stays, self.length, numbers_MX.shape[1]), empty)
        return laid_out.index_put((self.stay_M, self.place_M), numbers_MX)


def places_in_stays(stay_M: torch.Tensor, stays: int) -> Places:
    """Return the places of observations, given the stay of each in ascending order, int64 (M,)."""
    count_B = torch.bincount(stay_M, minlength=stays)
    first_B = count_B.cumsum(0) - count_B
    place_M = torch.arange(len(stay_M), device=stay_M.device) - first_B[stay_M]
    length = max(1, int(count_B.max())) if stays else 1
    return Places(stays=stays, length=length, stay_M=stay_M, place_M=place_M)


def sinusoids(hours: int, channels: int) -> torch.Tensor:
    """Return sines and cosines of each hour at wavelengths from 2 pi to 2 pi times twice the hours, (T, channels).

    Source: Vaswani et al. 2017, section 3.5. Raises ValueError for an odd number of channels.
    """
    if channels % 2:
        raise ValueError(f"time channels must be even, got {channels}")
    half = channels // 2
    frequency_C = (2.0 * hours) ** (-torch.arange(half) / max(1, half - 1))
    angle_TC = torch.arange(hours)[:, None] * frequency_C
    return torch.cat([angle_TC.sin(), angle_TC.cos()], dim=1)
