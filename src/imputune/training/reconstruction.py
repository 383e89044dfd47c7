"""One step of learning to fill masked cells, in pretraining and in fine-tuning of an unfrozen imputer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from imputune.data.directions import Directions
from imputune.data.masking import draw_mask, draw_variable_mask
from imputune.data.splits import Records
from imputune.models.csai import Csai, Reconstruction
from imputune.models.missingness import Missingness
from imputune.runtime.device import graphed
from imputune.settings.imputer_sections import Pretrain
from imputune.settings.names import StateName

MaskedBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A batch's values, visible cells (0/1) and masked cells (0/1), (B, T, D) each."""
ReconstructionStep = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Takes the three tensors of a `MaskedBatch`.

Returns the reconstruction loss, a scalar, a hidden state (B, size) and the imputed series (B, T, D).
"""


@dataclass(frozen=True, eq=False)
class VariableMasking:
    """Masking of all observed cells of a variable of a stay, with probability `rate`; `masks` draws it."""

    rate: float
    masks: torch.Generator


def mask_batch(
    records: Records,
    stays: torch.Tensor,
    rate_D: torch.Tensor,
    masks: torch.Generator,
    device: torch.device,
    variables: VariableMasking | None = None,
) -> MaskedBatch:
    """Return some stays on `device`, observed cells masked at random; masks are drawn on the CPU, equal on all devices.

    With `variables`, whole variables of a stay are masked too, by a generator of their own: the other masks stay as
    they are without. Shapes: stays int64 (B,), rate_D (D,) or a scalar.
    """
    values_BTD, observed_BTD = records.batch(stays)
    masked_BTD = draw_mask(observed_BTD, rate_D, masks)
    if variables is not None and variables.rate > 0:
        masked_BTD = torch.maximum(masked_BTD, draw_variable_mask(observed_BTD, variables.rate, variables.masks))
    return values_BTD.to(device), (observed_BTD - masked_BTD).to(device), masked_BTD.to(device)


class _ImputerWithLoss(nn.Module):
    """An imputer and its loss as one module with tensors in and tensors out, as CUDA graphs need it."""

    def __init__(self, imputer: Csai, settings: Pretrain, *, state: StateName, missingness: Missingness | None) -> None:
        super().__init__()
        self.imputer = imputer
        self.settings = settings
        self.state = state
        self.missingness = missingness

    def forward(
        self, values_BTD: torch.Tensor, visible_BTD: torch.Tensor, masked_BTD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what a `ReconstructionStep` returns."""
        reconstruction = self.imputer(Directions.of(values_BTD, visible_BTD))
        loss = reconstruction_loss(reconstruction, values_BTD, visible_BTD, masked_BTD, self.settings)
        if self.missingness is not None:
            predicted = self.missingness.loss(reconstruction.hidden_KBTH, visible_BTD + masked_BTD)
            loss = loss + self.settings.missingness_weight * predicted
        return loss, reconstruction.state(self.state), reconstruction.imputed_BTD


def reconstruction_step(
    imputer: Csai,
    train: Records,
    batch_size: int,
    settings: Pretrain,
    *,
    state: StateName = "hidden",
    missingness: Missingness | None = None,
) -> ReconstructionStep:
    """Return the step that trains an imputer; `state` is the hidden state that it returns.

    With `missingness`, the loss has `missingness_weight` times this layer's loss as a fifth term.
    On a GPU, the imputer and the layer must be there already, and batches of the full size replay a graph.
    """
    module, device = _ImputerWithLoss(imputer, settings, state=state, missingness=missingness), imputer.device
    if device.type == "cpu":
        return module
    shape = (min(batch_size, len(train)), *train.shape[1:])
    return graphed(module, tuple(torch.zeros(shape, device=device) for _ in range(3)))


def reconstruction_loss(
    reconstruction: Reconstruction,
    values_BTD: torch.Tensor,
    visible_BTD: torch.Tensor,
    masked_BTD: torch.Tensor,
    settings: Pretrain,
) -> torch.Tensor:
    """Return CSAI's training loss, a scalar: the sum of four terms.

    The mean absolute error of both directions' combined estimates on visible cells; `imputation_weight` times the same
    error on masked cells; `history_weight` times the error of the history regression on visible cells, which teaches
    the hidden state to predict the next hour; `consistency_weight` times the mean absolute difference between the two
    directions.

    Shapes: values, visible (0/1) and masked (0/1) are (B, T, D), standardised.

    Source: CSAI (arXiv 2312.16713) and BRITS (Cao et al. 2018), loss terms.
    """
    combined_BTD = (reconstruction.combined_KBTD - values_BTD).abs().mean(dim=0)
    history_BTD = (reconstruction.history_KBTD - values_BTD).abs().mean(dim=0)
    forward, backward = reconstruction.combined_KBTD
    return (
        _mean_over(combined_BTD, visible_BTD)
        + settings.imputation_weight * _mean_over(combined_BTD, masked_BTD)
        + settings.history_weight * _mean_over(history_BTD, visible_BTD)
        + settings.consistency_weight * (forward - backward).abs().mean()
    )


def _mean_over(error_BTD: torch.Tensor, cells_BTD: torch.Tensor) -> torch.Tensor:
    return (error_BTD * cells_BTD).sum() / cells_BTD.sum().clamp(min=1)
