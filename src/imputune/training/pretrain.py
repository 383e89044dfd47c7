"""Pretraining: CSAI learns to fill cells hidden from it, one fold at a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from imputune.config import Params, Pretrain
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.masking import Hiding, hide, hiding_rates
from imputune.data.partitions import FoldData, Partition, fit_and_divide
from imputune.data.views import Views
from imputune.evaluation.metrics import imputation_scores
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.interpolation import BASELINES
from imputune.training.device import choose_device
from imputune.training.loop import BestState, check_converging, generator_for, in_order, shuffled
from imputune.training.outputs import TrainedFold, module_weights, scaler_weights
from imputune.training.reconstruction import hide_cells, learner, reconstruction_loss
from imputune.training.recorder import Recorder

WEIGHTS, ORDER, TRAIN_MASKS, VALIDATION_MASKS, TEST_MASKS = range(5)
PartName = Literal["validation", "test"]
PARTS: tuple[PartName, ...] = ("validation", "test")
HIDINGS: tuple[Hiding, ...] = ("non_uniform", "uniform")


@dataclass(frozen=True, eq=False)
class PretrainJob:
    """One fold to pretrain on."""

    cohort: Cohort
    fold: Fold
    params: Params


def csai_sizes(params: Params, variables: int, hours: int) -> CsaiSizes:
    """Return the imputer's sizes for a cohort of so many variables and hours."""
    return CsaiSizes(variables=variables, hours=hours, **params.csai.model_dump())


def new_imputer(data: FoldData, params: Params) -> Csai:
    """Return a fold's imputer as pretraining begins with it, on the CPU: its weights newly drawn, its median gaps."""
    _, hours, variables = data.train.values_NTD.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, data.number, WEIGHTS).initial_seed())
        imputer = Csai(csai_sizes(params, variables, hours))
    imputer.median_gap_hours_D.copy_(torch.from_numpy(data.median_gap_hours_D))
    return imputer


def pretrain_fold(job: PretrainJob, recorder: Recorder) -> TrainedFold:
    """Train CSAI on a fold's training stays and score it on held-out cells of its validation and test stays.

    Hidden cells are drawn afresh each epoch in training, once for validation and test. The kept epoch has the
    lowest validation error on hidden cells; test stays are read once, at the end.
    """
    started = time.perf_counter()
    params, number = job.params, job.fold.number
    data = fit_and_divide(job.cohort, job.fold, params.scaling.tail_share)
    imputer = new_imputer(data, params)
    best, history = _train(imputer, data, params, recorder)
    best.restore()
    imputation = [
        row
        for part in PARTS
        for hiding in HIDINGS
        for row in _score(imputer, data, part, params, hiding, job.cohort.variable_names)
    ]
    scores = {
        f"{row['partition']}_{measure}_{row['hiding']}": row[measure]
        for row in imputation
        if (row["imputer"], row["variable"]) == ("csai", "all")
        for measure in ("mae", "mre")
    }
    weights = scaler_weights(data.scaler) | module_weights("imputer", imputer)
    seconds = time.perf_counter() - started
    return TrainedFold(number, weights, scores, best.epoch, seconds, history, imputation)


class Pretraining:
    """CSAI learning on a fold's training stays, an epoch at a time, on the device that params.yaml names.

    The learning rate falls along a cosine over the dataset's budget of epochs.
    """

    def __init__(self, imputer: Csai, data: FoldData, params: Params) -> None:
        self.settings, self.train = params.pretrain, data.train
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


def _train(
    imputer: Csai, data: FoldData, params: Params, recorder: Recorder
) -> tuple[BestState, list[dict[str, float]]]:
    validation_hidden = _fixed_mask(data, "validation", params, params.masking.hiding)
    training = Pretraining(imputer, data, params)
    best, history = BestState(imputer), []
    for epoch in range(params.budget_of(params.dataset).pretrain_epochs):
        losses = training.train_epoch()
        validation_loss, mae = _validate(imputer, data.validation, validation_hidden, params.pretrain)
        check_converging((*losses, mae), data.number, epoch, "lower pretrain.learning_rate in params.yaml")
        best.update(-mae, epoch)
        history.append(
            {"train_loss": float(np.mean(losses)), "validation_loss": validation_loss, "validation_mae": mae}
        )
        recorder.epoch(data.number, epoch, history[-1])
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


def impute(imputer: Csai, part: Partition, visible_NTD: torch.Tensor) -> torch.Tensor:
    """Return a part's values (N, T, D), standardised, imputed from the visible cells alone (boolean or 0/1)."""
    imputed_NTD = torch.empty_like(part.values_NTD)
    with torch.no_grad():
        for stays in in_order(len(part)):
            values = part.values_NTD[stays].to(imputer.device)
            imputed_NTD[stays] = imputer(Views.read(values, visible_NTD[stays].to(values))).imputed_BTD.cpu()
    return imputed_NTD


def _rates(train: Partition, params: Params, hiding: Hiding) -> torch.Tensor:
    masking = params.masking
    rate_D = hiding_rates(train.observed_NTD.numpy(), hiding, masking.share, masking.factor)
    return torch.from_numpy(rate_D).float()


def _fixed_mask(data: FoldData, name: PartName, params: Params, hiding: Hiding) -> torch.Tensor:
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
    imputer: Csai, data: FoldData, name: PartName, params: Params, hiding: Hiding, variables: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Score CSAI and the simple imputers on the hidden cells of a part; see `imputation_scores` for the rows."""
    part: Partition = getattr(data, name)
    hidden = _fixed_mask(data, name, params, hiding)
    visible = part.observed_NTD & ~hidden
    # Functions, not arrays: one estimate at a time stands in memory.
    estimates: dict[str, Callable[[], np.ndarray]] = {"csai": lambda: impute(imputer, part, visible).numpy()}
    estimates |= {baseline: partial(_fill, part, visible, fill) for baseline, fill in BASELINES.items()}
    return [
        {"imputer": imputer_name, "hiding": hiding, "partition": name} | row
        for imputer_name, estimate in estimates.items()
        for row in imputation_scores(estimate(), part.values_NTD.numpy(), hidden.numpy(), variables)
    ]


def _fill(part: Partition, visible_NTD: torch.Tensor, fill: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return what a simple imputer makes of a part's visible cells, (N, T, D)."""
    filled_NTD = np.empty(part.values_NTD.shape, dtype=np.float32)
    for stays in in_order(len(part)):
        holed_BTD = torch.where(visible_NTD[stays], part.values_NTD[stays], torch.nan)
        filled_NTD[stays.numpy()] = fill(holed_BTD.numpy())
    return filled_NTD
