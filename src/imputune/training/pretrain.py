"""Pretraining: an imputer learns to fill masked cells, one fold at a time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.batches import batches_in_order
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.splits import FoldData, Split, fit_and_split
from imputune.evaluation.imputation import ImputationErrors, ImputedBatch, cell_errors
from imputune.imputers.build import new_imputer
from imputune.imputers.interface import Imputer
from imputune.imputers.plain import PlainImputer
from imputune.models.weights import module_weights
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.runtime.recorder import Curve, Recorder
from imputune.settings.names import ImputerName, PlainName, RandomPattern
from imputune.settings.schema import Params
from imputune.training.best_state import BestState, check_converging
from imputune.training.fixed_masks import ScoredSplit, fixed_mask, scored_split
from imputune.training.imputer_training import ImputerTraining, training_of

SCORED_SPLITS: tuple[ScoredSplit, ...] = ("validation", "test")
PATTERNS: tuple[RandomPattern, ...] = ("non_uniform", "uniform")


@dataclass(frozen=True, eq=False, kw_only=True)
class PretrainJob:
    """One fold to pretrain an imputer on; the stays of further cohorts train it too, and score nothing."""

    cohort: Cohort
    fold: Fold
    params: Params
    imputer: ImputerName = DEFAULT_IMPUTER
    further: tuple[Cohort, ...] = ()


def pretrain_fold(job: PretrainJob, recorder: Recorder) -> TrainedFold:
    """Train an imputer on a fold's training stays, and score it on masked cells of its validation and test stays.

    The masks of validation and test stays are drawn once. The epoch with the lowest validation error on masked cells is
    kept; test stays are used once, at the end. CSAI's pretraining scores mean, locf and linear beside CSAI.
    """
    started = time.perf_counter()
    data = fit_and_split(job.cohort, job.fold, job.params.scaling.clip_quantile)
    imputer, best_epoch, history = fit(job.imputer, data, job.params, recorder, job.further)
    scored: dict[ImputerName, Imputer] = {job.imputer: imputer}
    if job.imputer == DEFAULT_IMPUTER:
        scored |= {name: PlainImputer(name) for name in get_args(PlainName)}
    imputation = [
        errors
        for split in SCORED_SPLITS
        for pattern in PATTERNS
        for errors in imputation_errors(job, data, scored, split, pattern)
    ]
    weights = data.scaler.to_arrays()
    if imputer.module is not None:
        weights |= module_weights("imputer", imputer.module)
    return TrainedFold(
        fold=data.number,
        weights=weights,
        scores=_scores(imputation, job.imputer),
        best_epoch=best_epoch,
        seconds=time.perf_counter() - started,
        history=history,
        imputation=imputation,
    )


def fit(
    name: ImputerName, data: FoldData, params: Params, recorder: Recorder, further: Sequence[Cohort] = ()
) -> tuple[Imputer, int, Curve]:
    """Fit an imputer on a fold's training stays and further cohorts; return it with the best epoch and the curve.

    Validation stays choose the epoch; test stays are not used. An imputer that learns nothing has epoch 0 and an empty
    curve. Raises UserError if training diverges, or the imputer's package is not installed.
    """
    imputer = new_imputer(name, data, params)
    training = training_of(name, imputer, data, params, further)
    if training is None:
        return imputer, 0, []
    best, history = _train(training, data.number, params.budget_of(params.dataset).pretrain_epochs, recorder)
    best.restore()
    return imputer, best.epoch, history


def _train(training: ImputerTraining, fold: int, epochs: int, recorder: Recorder) -> tuple[BestState, Curve]:
    best, history = BestState(training.module), []
    for epoch in range(epochs):
        losses = training.train_epoch()
        validated = training.validate()
        check_converging((*losses, *validated.values()), fold, epoch, training.remedy)
        best.update(-validated["validation_mae"] if validated else float(epoch), epoch)
        history.append({"train_loss": float(np.mean(losses)), **validated})
        recorder.epoch(fold, epoch, history[-1])
    return best, history


def imputation_errors(
    job: PretrainJob,
    data: FoldData,
    imputers: Mapping[ImputerName, Imputer],
    split: ScoredSplit,
    pattern: RandomPattern,
) -> list[ImputationErrors]:
    """Return the errors of each imputer on the same masked cells of a split."""
    masked_NTD = fixed_mask(data, split, job.params, pattern)
    errors = []
    for name, imputer in imputers.items():
        imputed = _imputed_batches(imputer, scored_split(data, split), masked_NTD)
        overall, by_variable = cell_errors(imputed, job.cohort.variable_names)
        errors.append(
            ImputationErrors(imputer=name, pattern=pattern, split=split, overall=overall, by_variable=by_variable)
        )
    return errors


def _imputed_batches(imputer: Imputer, split: Split, masked_NTD: torch.Tensor) -> Iterator[ImputedBatch]:
    """Yield the estimates, values and masked cells of a split's batches; the imputer sees the cells not masked."""
    for stays in batches_in_order(len(split)):
        values_BTD, observed_BTD = split.batch(stays)
        masked_BTD = masked_NTD[stays]
        estimate_BTD = imputer.represent(values_BTD, observed_BTD.masked_fill(masked_BTD, 0)).imputed_BTD
        yield estimate_BTD.numpy(), values_BTD.numpy(), masked_BTD.numpy()


def _scores(imputation: list[ImputationErrors], imputer: ImputerName) -> dict[str, float]:
    """Return an imputer's overall errors by split, measure and pattern: validation_mae_non_uniform and so on."""
    scores = {}
    for errors in imputation:
        if errors.imputer == imputer:
            scores[f"{errors.split}_mae_{errors.pattern}"] = errors.overall.mae
            scores[f"{errors.split}_mre_{errors.pattern}"] = errors.overall.mre
    return scores
