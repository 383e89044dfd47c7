"""Pretraining: CSAI learns to fill cells hidden from it, one fold at a time."""

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from imputune.config import Params, Pretrain
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.masking import Hiding, hide, hiding_rates
from imputune.data.partitions import FoldData, Partition, fit_and_divide
from imputune.data.views import Views
from imputune.evaluation.metrics import imputation_scores
from imputune.models.csai import Csai, CsaiSizes, Reconstruction
from imputune.models.interpolation import BASELINES
from imputune.training.loop import BestState, check_converging, generator_for, in_order, shuffled
from imputune.training.outputs import TrainedFold, module_weights, scaler_weights
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


def pretrain_fold(job: PretrainJob, recorder: Recorder) -> TrainedFold:
    """Train CSAI on a fold's training stays and score it on held-out cells of its validation and test stays.

    Hidden cells are drawn afresh each epoch in training, once for validation and test. The kept epoch has the
    lowest validation error on hidden cells; test stays are read once, at the end.
    """
    started = time.perf_counter()
    params, number = job.params, job.fold.number
    data = fit_and_divide(job.cohort, job.fold, params.scaling.tail_share)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, number, WEIGHTS).initial_seed())
        _, hours, variables = job.cohort.values_NTD.shape
        imputer = Csai(csai_sizes(params, variables, hours))
    imputer.median_gap_hours_D.copy_(torch.from_numpy(data.median_gap_hours_D))
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


def _train(
    imputer: Csai, data: FoldData, params: Params, recorder: Recorder
) -> tuple[BestState, list[dict[str, float]]]:
    settings, train = params.pretrain, data.train
    epochs = params.budget_of(params.dataset).pretrain_epochs
    order = generator_for(params.seed, data.number, ORDER)
    masks = generator_for(params.seed, data.number, TRAIN_MASKS)
    rate_D = _rates(train, params, params.masking.hiding)
    validation_hidden = _fixed_mask(data, "validation", params, params.masking.hiding)
    optimizer = torch.optim.Adam(imputer.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, history = BestState(imputer), []
    for epoch in range(epochs):
        losses = []
        for stays in shuffled(len(train), settings.batch_size, order):
            values, observed = train.values_NTD[stays], train.observed_NTD[stays]
            hidden = hide(observed, rate_D, masks)
            visible = observed - hidden
            loss = reconstruction_loss(imputer(Views.read(values, visible)), values, visible, hidden, settings)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(imputer.parameters(), settings.gradient_norm)
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        validation_loss, mae = _validate(imputer, data.validation, validation_hidden, settings)
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
    with torch.no_grad():
        for stays in in_order(len(part)):
            values, hidden = part.values_NTD[stays], hidden_NTD[stays]
            visible = part.observed_NTD[stays] - hidden
            reconstruction = imputer(Views.read(values, visible))
            batch_loss = reconstruction_loss(reconstruction, values, visible, hidden, settings)
            loss += batch_loss.item() * len(stays) / len(part)
            error += ((reconstruction.imputed_BTD - values).abs() * hidden).sum().item()
    return loss, error / max(hidden_NTD.sum().item(), 1)


def impute(imputer: Csai, part: Partition, visible_NTD: torch.Tensor) -> torch.Tensor:
    """Return a part's values (N, T, D), standardised, imputed from the visible cells alone."""
    with torch.no_grad():
        return torch.cat(
            [
                imputer(Views.read(part.values_NTD[stays], visible_NTD[stays])).imputed_BTD
                for stays in in_order(len(part))
            ]
        )


def _rates(train: Partition, params: Params, hiding: Hiding) -> torch.Tensor:
    masking = params.masking
    rate_D = hiding_rates(train.observed_NTD.numpy() > 0, hiding, masking.share, masking.factor)
    return torch.from_numpy(rate_D).float()


def _fixed_mask(data: FoldData, name: PartName, params: Params, hiding: Hiding) -> torch.Tensor:
    """Return the cells of a validation or test part that are hidden in every epoch, (N, T, D)."""
    purpose = VALIDATION_MASKS if name == "validation" else TEST_MASKS
    masks = generator_for(params.seed, data.number, purpose)
    return hide(getattr(data, name).observed_NTD, _rates(data.train, params, hiding), masks)


def _score(
    imputer: Csai, data: FoldData, name: PartName, params: Params, hiding: Hiding, variables: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Score CSAI and the simple imputers on the hidden cells of a part; see `imputation_scores` for the rows."""
    part: Partition = getattr(data, name)
    hidden = _fixed_mask(data, name, params, hiding)
    visible = part.observed_NTD - hidden
    holed = np.where(visible.numpy() > 0, part.values_NTD.numpy(), np.nan)
    estimates = {"csai": impute(imputer, part, visible).numpy()}
    estimates |= {baseline: fill(holed) for baseline, fill in BASELINES.items()}
    return [
        {"imputer": imputer_name, "hiding": hiding, "partition": name} | row
        for imputer_name, estimate in estimates.items()
        for row in imputation_scores(estimate, part.values_NTD.numpy(), hidden.numpy(), variables)
    ]
