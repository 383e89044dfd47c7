"""Pretraining: an imputer learns to fill cells hidden from it, one fold at a time."""

import time
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import nn

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.batches import in_order, shuffled
from imputune.data.cohort import Cohort
from imputune.data.directions import Views
from imputune.data.folds import Fold
from imputune.data.masking import hide, hiding_rates
from imputune.data.scaling import scaler_weights
from imputune.data.splits import (
    FoldData,
    Partition,
    dealt_anew,
    fit_and_divide,
)
from imputune.evaluation.metrics import imputation_scores
from imputune.imputers.build import new_imputer, represent
from imputune.imputers.csai import CsaiImputer
from imputune.imputers.interface import Imputer
from imputune.imputers.plain import PlainImputer
from imputune.imputers.pypots import PypotsImputer
from imputune.models.csai import Csai
from imputune.models.interpolation import BASELINES
from imputune.models.weights import module_weights
from imputune.runtime.device import choose_device
from imputune.runtime.recorder import Recorder
from imputune.runtime.seeds import generator_for
from imputune.settings.names import Hiding, ImputerName
from imputune.settings.schema import Params, Pretrain
from imputune.training.best_state import BestState, check_converging
from imputune.training.reconstruction import hide_cells, learner, reconstruction_loss

ORDER, TRAIN_MASKS, VALIDATION_MASKS, TEST_MASKS, DEALING = range(1, 6)  # purposes of generators; see `imputers` for 0
PartName = Literal["validation", "test"]
PARTS: tuple[PartName, ...] = ("validation", "test")
HIDINGS: tuple[Hiding, ...] = ("non_uniform", "uniform")


@dataclass(frozen=True, eq=False)
class PretrainJob:
    """One fold to pretrain an imputer on."""

    cohort: Cohort
    fold: Fold
    params: Params
    imputer: ImputerName = "csai"


def pretrain_fold(job: PretrainJob, recorder: Recorder) -> TrainedFold:
    """Train an imputer on a fold's training stays and score it on held-out cells of its validation and test stays.

    Hidden cells are drawn once for validation and test, and in CSAI's training afresh each epoch. The kept epoch has
    the lowest validation error on hidden cells; test stays are read once, at the end.
    """
    started = time.perf_counter()
    params, number = job.params, job.fold.number
    data = fit_and_divide(job.cohort, job.fold, params.scaling.tail_share)
    imputer, best_epoch, history = fit(job.imputer, data, params, recorder)
    imputation = [
        row
        for part in PARTS
        for hiding in HIDINGS
        for row in _score(job.imputer, imputer, data, part, params, hiding, job.cohort.variable_names)
    ]
    scores = {
        f"{row['partition']}_{measure}_{row['hiding']}": row[measure]
        for row in imputation
        if (row["imputer"], row["variable"]) == (job.imputer, "all")
        for measure in ("mae", "mre")
    }
    weights = scaler_weights(data.scaler)
    if imputer.module is not None:
        weights |= module_weights("imputer", imputer.module)
    seconds = time.perf_counter() - started
    return TrainedFold(number, weights, scores, best_epoch, seconds, history, imputation)


def fit(
    name: ImputerName, data: FoldData, params: Params, recorder: Recorder
) -> tuple[Imputer, int, list[dict[str, float]]]:
    """Fit an imputer on a fold's training stays; return it with the epoch that was kept, and its curve.

    Validation stays choose the epoch, test stays nothing. An imputer that learns nothing has epoch 0 and no curve.
    Raises UserError where training diverges, or the imputer's package is not installed.
    """
    imputer = new_imputer(name, data, params)
    training = training_of(name, imputer, data, params)
    if training is None:
        return imputer, 0, []
    best, history = _train(training, data.number, params.budget_of(params.dataset).pretrain_epochs, recorder)
    best.restore()
    return imputer, best.epoch, history


class Training(Protocol):
    """An imputer learning on a fold's training stays, an epoch at a time."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""

    @property
    def remedy(self) -> str:
        """What to do where it diverges."""

    def train_epoch(self) -> list[float]:
        """Train on all training stays once and return the losses, a number or more."""

    def validate(self) -> dict[str, float]:
        """Return what is known of the epoch: validation_mae, on hidden cells of validation stays, and other metrics.

        Empty where looking would take too long; then the last epoch is kept.
        """


def training_of(name: ImputerName, imputer: Imputer, data: FoldData, params: Params) -> Training | None:
    """Return how an imputer is trained on a fold; None for one that learns nothing."""
    if isinstance(imputer, PlainImputer) or name == "csai_untrained":
        return None
    if name == "csai_shuffled":
        deal = generator_for(params.seed, data.number, DEALING)
        data = replace(data, train=dealt_anew(data.train, deal), validation=dealt_anew(data.validation, deal))
    if isinstance(imputer, PypotsImputer):
        return PypotsTraining(imputer, data, params)
    assert isinstance(imputer, CsaiImputer)
    return Pretraining(imputer.module, data, params)


class PypotsTraining:
    """One of PyPOTS's imputers learning by its own `fit`, from all observed cells of the training stays."""

    remedy = "PyPOTS's own learning rate does not suit these records, leave that imputer out"

    def __init__(self, imputer: PypotsImputer, data: FoldData, params: Params) -> None:
        self.imputer, self.module, self.validation = imputer, imputer.module, data.validation
        self.holed_NTD = torch.where(data.train.observed_NTD, data.train.values_NTD, torch.nan).numpy()
        self.hidden_NTD = fixed_mask(data, "validation", params, params.masking.hiding)
        self.order = generator_for(params.seed, data.number, ORDER)

    def train_epoch(self) -> list[float]:
        """Train once; see `Training.train_epoch`."""
        seed = int(torch.randint(2**32, (), generator=self.order))
        return [self.imputer.train_epoch(self.holed_NTD, seed)]

    def validate(self) -> dict[str, float]:
        """Return validation_mae; see `Training.validate`."""
        if not self.imputer.validates:
            return {}
        visible = self.validation.observed_NTD & ~self.hidden_NTD
        estimate = represent(self.imputer, self.validation, visible).imputed_BTD
        error = ((estimate - self.validation.values_NTD).abs() * self.hidden_NTD).sum()
        return {"validation_mae": (error / self.hidden_NTD.sum().clamp(min=1)).item()}


class Pretraining:
    """CSAI learning on a fold's training stays, an epoch at a time, on the device that params.yaml names.

    The learning rate falls along a cosine over the dataset's budget of epochs.
    """

    remedy = "lower pretrain.learning_rate in params.yaml"

    def __init__(self, imputer: Csai, data: FoldData, params: Params) -> None:
        self.settings, self.train, self.validation = params.pretrain, data.train, data.validation
        self.module = imputer
        self.hidden_NTD = fixed_mask(data, "validation", params, params.masking.hiding)
        self.device = choose_device(params.device)
        self.order = generator_for(params.seed, data.number, ORDER)
        self.masks = generator_for(params.seed, data.number, TRAIN_MASKS)
        self.rate_D = _rates(data.train, params, params.masking.hiding)
        self.learner = learner(imputer.to(self.device), data.train, self.settings.batch_size, self.settings)
        self.weights = list(imputer.parameters())
        self.optimizer = torch.optim.Adam(self.weights, self.settings.learning_rate, fused=True)
        epochs = params.budget_of(params.dataset).pretrain_epochs
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs)

    def train_epoch(self) -> list[float]:
        """Take a step on every batch of the training stays, in a new order and with other cells hidden.

        Returns the losses of the batches.
        """
        losses = []
        for stays in shuffled(len(self.train), self.settings.batch_size, self.order):
            loss, *_ = self.learner(*hide_cells(self.train, stays, self.rate_D, self.masks, self.device))
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.weights, self.settings.gradient_norm)
            self.optimizer.step()
            losses.append(loss.detach().clone())  # of its own: the next replay of a graph overwrites what it returned
        self.schedule.step()
        return torch.stack(losses).tolist()

    def validate(self) -> dict[str, float]:
        """Return validation_loss and validation_mae."""
        loss, mae = _validate(self.module, self.validation, self.hidden_NTD, self.settings)
        return {"validation_loss": loss, "validation_mae": mae}


def _train(training: Training, fold: int, epochs: int, recorder: Recorder) -> tuple[BestState, list[dict[str, float]]]:
    best, history = BestState(training.module), []
    for epoch in range(epochs):
        losses = training.train_epoch()
        validated = training.validate()
        numbers = (*losses, *validated.values())
        check_converging(numbers, fold, epoch, training.remedy)
        best.update(-validated["validation_mae"] if validated else float(epoch), epoch)
        history.append({"train_loss": float(np.mean(losses)), **validated})
        recorder.epoch(fold, epoch, history[-1])
    return best, history


def _validate(imputer: Csai, part: Partition, hidden_NTD: torch.Tensor, settings: Pretrain) -> tuple[float, float]:
    """Return the loss on a part's stays, and the mean absolute error of the imputation on their hidden cells."""
    loss = error = 0.0
    device = imputer.device
    with torch.no_grad():
        for stays in in_order(len(part)):
            values, observed = (cells.to(device) for cells in part.batch(stays))
            hidden = hidden_NTD[stays].to(values)
            visible = observed - hidden
            reconstruction = imputer(Views.read(values, visible))
            batch_loss = reconstruction_loss(reconstruction, values, visible, hidden, settings)
            loss += batch_loss.item() * len(stays) / len(part)
            error += ((reconstruction.imputed_BTD - values).abs() * hidden).sum().item()
    return loss, error / max(hidden_NTD.sum().item(), 1)


def _rates(train: Partition, params: Params, hiding: Hiding) -> torch.Tensor:
    masking = params.masking
    rate_D = hiding_rates(train.observed_NTD.numpy(), hiding, masking.share, masking.factor)
    return torch.from_numpy(rate_D).float()


def fixed_mask(data: FoldData, name: PartName, params: Params, hiding: Hiding) -> torch.Tensor:
    """Return the cells of a validation or test part that are hidden in every epoch, boolean (N, T, D)."""
    purpose = VALIDATION_MASKS if name == "validation" else TEST_MASKS
    masks = generator_for(params.seed, data.number, purpose)
    rate_D = _rates(data.train, params, hiding)
    observed_NTD = getattr(data, name).observed_NTD
    hidden_NTD = torch.empty_like(observed_NTD)
    for stays in in_order(len(observed_NTD)):
        hidden_NTD[stays] = hide(observed_NTD[stays].float(), rate_D, masks).bool()
    return hidden_NTD


def _score(
    name: ImputerName,
    imputer: Imputer,
    data: FoldData,
    part_name: PartName,
    params: Params,
    hiding: Hiding,
    variables: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Score an imputer, CSAI beside the plain ones, on a part's hidden cells; see `imputation_scores` for the rows."""
    part: Partition = getattr(data, part_name)
    hidden = fixed_mask(data, part_name, params, hiding)
    visible = part.observed_NTD & ~hidden
    scored: dict[ImputerName, Imputer] = {name: imputer}
    if name == "csai":
        scored |= {cast(ImputerName, baseline): PlainImputer(cast(ImputerName, baseline)) for baseline in BASELINES}
    return [
        {"imputer": each, "hiding": hiding, "partition": part_name} | row
        for each, other in scored.items()
        for row in imputation_scores(
            represent(other, part, visible).imputed_BTD.numpy(), part.values_NTD.numpy(), hidden.numpy(), variables
        )
    ]
