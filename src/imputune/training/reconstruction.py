"""Learning to fill hidden cells, for pretraining and for fine-tuning an unfrozen imputer: batches and their loss."""

from collections.abc import Callable

import torch
from torch import nn

from imputune.data.directions import Views
from imputune.data.masking import hide
from imputune.data.splits import Partition
from imputune.models.csai import Csai, Reconstruction
from imputune.runtime.device import graphed
from imputune.settings.schema import Pretrain

Cells = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A batch's values, and which of its cells are visible and which hidden (0/1), (B, T, D) each."""


def hide_cells(
    part: Partition, stays: torch.Tensor, rate_D: torch.Tensor, masks: torch.Generator, device: torch.device
) -> Cells:
    """Return some stays with cells hidden at random, on `device`; what is hidden is drawn on the CPU, the same on all.

    Shapes: stays int64 (B,), rate_D (D,) or a scalar.
    """
    values_BTD, observed_BTD = part.batch(stays)
    hidden_BTD = hide(observed_BTD, rate_D, masks)
    return values_BTD.to(device), (observed_BTD - hidden_BTD).to(device), hidden_BTD.to(device)


class _Learner(nn.Module):
    """An imputer and its loss in one module that takes and gives nothing but tensors."""

    def __init__(self, imputer: Csai, settings: Pretrain) -> None:
        super().__init__()
        self.imputer = imputer
        self.settings = settings

    def forward(
        self, values_BTD: torch.Tensor, visible_BTD: torch.Tensor, hidden_BTD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the reconstruction loss, a scalar, the representation `last`, (B, H), and the imputed (B, T, D)."""
        reconstruction = self.imputer(Views.read(values_BTD, visible_BTD))
        loss = reconstruction_loss(reconstruction, values_BTD, visible_BTD, hidden_BTD, self.settings)
        return loss, reconstruction.last_BH, reconstruction.imputed_BTD


def learner(
    imputer: Csai, train: Partition, batch_size: int, settings: Pretrain
) -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return the function that training goes through, from a batch's `Cells` to what `_Learner.forward` returns.

    On a GPU, where the imputer then must be already, batches of the full size replay a graph.
    """
    module, device = _Learner(imputer, settings), imputer.device
    if device.type == "cpu":
        return module
    shape = (min(batch_size, len(train)), *train.values_NTD.shape[1:])
    return graphed(module, tuple(torch.zeros(shape, device=device) for _ in range(3)))


def reconstruction_loss(
    reconstruction: Reconstruction,
    values_BTD: torch.Tensor,
    visible_BTD: torch.Tensor,
    hidden_BTD: torch.Tensor,
    settings: Pretrain,
) -> torch.Tensor:
    """Return CSAI's training loss, a scalar.

    The mean absolute error of each reading's combined estimate on visible cells, plus `imputation_weight` times that
    on hidden cells, `history_weight` times the visible error of the history regression alone (which teaches the hidden
    state to foretell the next hour), and `consistency_weight` times the mean difference between the two readings.

    Shapes: values, visible (0/1) and hidden (0/1) are (B, T, D), standardised.

    Source: CSAI (arXiv 2312.16713) and BRITS (Cao et al. 2018), loss terms.
    """
    combined_BTD = (reconstruction.combined_KBTD - values_BTD).abs().mean(dim=0)
    history_BTD = (reconstruction.history_KBTD - values_BTD).abs().mean(dim=0)
    forward, backward = reconstruction.combined_KBTD
    return (
        _mean_over(combined_BTD, visible_BTD)
        + settings.imputation_weight * _mean_over(combined_BTD, hidden_BTD)
        + settings.history_weight * _mean_over(history_BTD, visible_BTD)
        + settings.consistency_weight * (forward - backward).abs().mean()
    )


def _mean_over(error_BTD: torch.Tensor, cells_BTD: torch.Tensor) -> torch.Tensor:
    return (error_BTD * cells_BTD).sum() / cells_BTD.sum().clamp(min=1)
