"""How each kind of imputer learns on a fold's training stays, an epoch at a time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import nn

from imputune.data.batches import batches_in_order, shuffled_batches
from imputune.data.cohort import Cohort
from imputune.data.directions import Directions
from imputune.data.splits import FoldData, Records, shuffled_across_stays, with_further
from imputune.imputers.build import represent
from imputune.imputers.csai import CsaiImputer
from imputune.imputers.interface import Imputer
from imputune.imputers.plain import PlainImputer
from imputune.imputers.pypots import PypotsImputer
from imputune.models.csai import Csai
from imputune.models.missingness import Missingness
from imputune.runtime.device import choose_device
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.names import ImputerName
from imputune.settings.schema import Params
from imputune.training.fixed_masks import fixed_mask, variable_rates
from imputune.training.reconstruction import VariableMasking, mask_batch, reconstruction_loss, reconstruction_step


class ImputerTraining(Protocol):
    """Trains an imputer on a fold's training stays."""

    @property
    def module(self) -> nn.Module:
        """The network that is trained."""

    @property
    def remedy(self) -> str:
        """What a user can do if training diverges."""

    def train_epoch(self) -> list[float]:
        """Train once on all training stays; return one or more losses."""

    def validate(self) -> dict[str, float]:
        """Return the epoch's validation_mae, on masked cells of validation stays, and other metrics.

        Empty if this would take too long; pretraining then keeps the last epoch.
        """


def training_of(
    name: ImputerName, imputer: Imputer, data: FoldData, params: Params, further: Sequence[Cohort] = ()
) -> ImputerTraining | None:
    """Return the training of an imputer on a fold; None for an imputer that learns nothing.

    further: cohorts whose stays train it too; only CSAI has any.
    """
    if isinstance(imputer, PlainImputer) or name == "csai_untrained":
        return None
    if name == "csai_shuffled":
        shuffling = generator_for(params.seed, data.number, Purpose.SHUFFLING_ACROSS_STAYS)
        # The training stays come first: both draw from one generator.
        train = shuffled_across_stays(data.train, shuffling)
        data = replace(data, train=train, validation=shuffled_across_stays(data.validation, shuffling))
    if isinstance(imputer, PypotsImputer):
        return PypotsTraining(imputer, data, params)
    assert isinstance(imputer, CsaiImputer)
    return CsaiTraining(imputer.module, data, params, further=further)


class CsaiTraining:
    """Trains CSAI on the device of params.yaml.

    The learning rate falls along a cosine over the dataset's budget of epochs. Scaling, median gaps and masking rates
    come from the fold's own training stays, also if the stays of further cohorts train too: all imputers of a fold
    then read the same values, are scored on the same masked cells, and differ only in what they were trained on.

    With pretrain.missingness_weight, the layer `missingness` predicts which variables the next hour has; it is left out
    of what is kept of training.
    """

    remedy = "lower pretrain.learning_rate in params.yaml"

    def __init__(self, imputer: Csai, data: FoldData, params: Params, *, further: Sequence[Cohort] = ()) -> None:
        self.settings, self.validation = params.pretrain, data.validation
        self.train: Records = with_further(data.train, further, data.scaler) if further else data.train
        self.module = imputer
        self.validation_mask_NTD = fixed_mask(data, "validation", params, params.masking.pattern)
        self.device = choose_device(params.device)
        self.order = generator_for(params.seed, data.number, Purpose.PRETRAIN_ORDER)
        self.masks = generator_for(params.seed, data.number, Purpose.TRAIN_MASKS)
        self.rate_D = variable_rates(data, params, params.masking.pattern)
        self.variables = VariableMasking(
            self.settings.variable_masking, generator_for(params.seed, data.number, Purpose.TRAIN_VARIABLE_MASKS)
        )
        self.missingness = _new_missingness(imputer, data.number, params)
        self.reconstruct = reconstruction_step(
            imputer.to(self.device),
            self.train,
            self.settings.batch_size,
            self.settings,
            missingness=self.missingness.to(self.device) if self.missingness else None,
        )
        self.weights = [*imputer.parameters(), *(self.missingness.parameters() if self.missingness else ())]
        self.optimizer = torch.optim.Adam(self.weights, self.settings.learning_rate, fused=True)
        epochs = params.budget_of(params.dataset).pretrain_epochs
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs)

    def train_epoch(self) -> list[float]:
        """Take a step on every batch of the training stays, in a new order and with new masks; return their losses."""
        losses = []
        for stays in shuffled_batches(len(self.train), self.settings.batch_size, self.order):
            batch = mask_batch(self.train, stays, self.rate_D, self.masks, self.device, self.variables)
            loss, *_ = self.reconstruct(*batch)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.weights, self.settings.gradient_norm)
            self.optimizer.step()
            losses.append(loss.detach().clone())  # a copy, because a CUDA graph's next replay overwrites its output
        self.schedule.step()
        return torch.stack(losses).tolist()

    def validate(self) -> dict[str, float]:
        """Return validation_loss, and validation_mae on the masked cells.

        With `missingness`, also validation_missingness, the binary cross-entropy of what it predicts; validation_loss
        contains it, by its weight.
        """
        loss = error = missingness = 0.0
        split = self.validation
        with torch.no_grad():
            for stays in batches_in_order(len(split)):
                values, observed = (cells.to(self.device) for cells in split.batch(stays))
                masked = self.validation_mask_NTD[stays].to(values)
                visible = observed - masked
                reconstruction = self.module(Directions.of(values, visible))
                batch_loss = reconstruction_loss(reconstruction, values, visible, masked, self.settings)
                share = len(stays) / len(split)
                loss += batch_loss.item() * share
                if self.missingness is not None:
                    missingness += self.missingness.loss(reconstruction.hidden_KBTH, observed).item() * share
                error += ((reconstruction.imputed_BTD - values).abs() * masked).sum().item()
        mae = error / max(int(torch.count_nonzero(self.validation_mask_NTD)), 1)  # `sum` would make an int64 copy
        if self.missingness is None:
            return {"validation_loss": loss, "validation_mae": mae}
        loss += self.settings.missingness_weight * missingness
        return {"validation_loss": loss, "validation_mae": mae, "validation_missingness": missingness}


def _new_missingness(imputer: Csai, fold: int, params: Params) -> Missingness | None:
    """Return the layer with the initial weights of a fold, on the CPU; None if missingness is not predicted."""
    if not params.pretrain.missingness_weight:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, fold, Purpose.MISSINGNESS_WEIGHTS).initial_seed())
        return Missingness(imputer.sizes.hidden_size, imputer.sizes.variables)


class PypotsTraining:
    """Trains one of PyPOTS's imputers by its own `fit`, on all observed cells of the training stays.

    PyPOTS reads arrays in memory.
    """

    remedy = "PyPOTS's own learning rate does not suit these records, leave that imputer out"

    def __init__(self, imputer: PypotsImputer, data: FoldData, params: Params) -> None:
        self.imputer, self.module, self.validation = imputer, imputer.module, data.validation
        self.validation_values_NTD = data.validation.values_NTD
        self.nan_NTD = torch.where(data.train.observed_NTD, data.train.values_NTD, torch.nan).numpy()
        self.validation_mask_NTD = fixed_mask(data, "validation", params, params.masking.pattern)
        self.order = generator_for(params.seed, data.number, Purpose.PRETRAIN_ORDER)

    def train_epoch(self) -> list[float]:
        """Train for one epoch; return PyPOTS's mean loss."""
        seed = int(torch.randint(2**32, (), generator=self.order))
        return [self.imputer.train_epoch(self.nan_NTD, seed)]

    def validate(self) -> dict[str, float]:
        """Return validation_mae on the masked cells; empty for CSDI."""
        if not self.imputer.validates:
            return {}
        masked_NTD = self.validation_mask_NTD
        estimate = represent(self.imputer, self.validation, self.validation.observed_NTD & ~masked_NTD).imputed_BTD
        error = ((estimate - self.validation_values_NTD).abs() * masked_NTD).sum()
        return {"validation_mae": (error / masked_NTD.sum().clamp(min=1)).item()}
