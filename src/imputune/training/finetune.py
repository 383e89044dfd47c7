"""Fine-tuning: a neural head learns the outcome on a pretrained imputer, frozen or unfrozen, one fold at a time."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import cast, get_args

import numpy as np
import torch
from torch import nn

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.batches import batches_in_order, joined
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.record_features import RecordScaler, record_features
from imputune.data.scaling import Scaler
from imputune.data.splits import FoldData, Split, split_cohort
from imputune.imputers.build import csai_sizes, saved_imputer
from imputune.imputers.interface import Imputer
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai
from imputune.models.heads import HeadSizes, build_head
from imputune.models.hidden_states import state_size
from imputune.models.weights import load_module, module_weights
from imputune.protocol.imputers import imputer_kind
from imputune.protocol.variants import Variant, state_of
from imputune.runtime.device import choose_device
from imputune.runtime.recorder import Curve, EpochReport, Recorder, SilentRecorder, Trial
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.names import MlpHead, NeuralSchedule
from imputune.settings.schema import Params
from imputune.training.best_state import BestState
from imputune.training.epochs import EpochPlan, Trainer, train_epochs
from imputune.training.head_inputs import head_inputs
from imputune.training.kept_inputs import kept_inputs, key_of
from imputune.training.schedules import make_schedule
from imputune.training.scoring import score_fold
from imputune.training.search import Search, search_rate
from imputune.training.trainers import FrozenTrainer, InputsOfSplits, RecordOfSplits, UnfrozenTrainer


@dataclass(frozen=True, eq=False, kw_only=True)
class FinetuneJob:
    """One fold of a variant.

    pretrained: the weights of the imputer's pretraining. trials: those that an interrupted search of this fold had
    ended; it goes on after them. learning_rate: of schedule optuna, found on another fold; None searches it. frozen:
    for an unfrozen variant, the result of its frozen variant on this fold, whose head it starts from; None trains that
    head first. early_stopping: False trains every epoch of the budget, whatever the validation AUC.
    """

    cohort: Cohort
    fold: Fold
    params: Params
    variant: Variant
    pretrained: dict[str, torch.Tensor]
    trials: tuple[Trial, ...] = ()
    learning_rate: float | None = None
    frozen: TrainedFold | None = None
    early_stopping: bool = True

    @property
    def epochs(self) -> int:
        """The number of epochs in params.yaml, at most."""
        budget = self.params.budget_of(self.params.dataset)
        return budget.frozen_epochs if self.variant.mode == "frozen" else budget.unfrozen_epochs


def finetune_fold(job: FinetuneJob, recorder: Recorder) -> TrainedFold:
    """Train a fold's head, and its imputer too if unfrozen; score the best epoch once on the test stays.

    The best epoch has the highest validation AUC, of equal ones the lowest validation loss. A frozen imputer represents
    each stay once, and the head trains on these representations. Unfrozen training starts from the head of the frozen
    variant and multiplies the schedule's rates by a factor: a head with random weights would spoil what the imputer has
    learned (Kumar et al. 2022, arXiv 2202.10054). `seconds` is what the variant takes alone: it includes the training
    of that head, and the representations also where an earlier head left them in this process.
    """
    started = time.perf_counter()
    data = split_cohort(job.cohort, job.fold, Scaler.from_arrays(job.pretrained))
    splitting = time.perf_counter() - started
    if job.variant.mode == "unfrozen" and job.frozen is None:
        head_job = replace(job, variant=job.variant.frozen, learning_rate=None, trials=())
        job = replace(job, frozen=_train_and_score(head_job, data, SilentRecorder()))
    trained = _train_and_score(job, data, recorder)
    earlier = job.frozen.seconds if job.frozen else 0.0
    return replace(trained, seconds=splitting + earlier + trained.seconds)


def build_classifier(
    shape: tuple[int, ...], params: Params, variant: Variant, fold: int = 0, record: int = 0, bin_hours: int = 1
) -> Classifier:
    """Return a classifier on CSAI for a cohort of shape (N, T, D), its head with the initial weights of a fold.

    record: the number of record features that the head reads. bin_hours: the length of the cohort's bins.
    """
    imputer, head = _draw_networks(shape, params, variant, fold, record, bin_hours)
    return Classifier(imputer, head, freeze_imputer=variant.mode == "frozen", input=variant.base)


def new_head(shape: tuple[int, ...], params: Params, variant: Variant, fold: int = 0, record: int = 0) -> nn.Module:
    """Return a variant's neural head for a cohort of shape (N, T, D), with the initial weights of a fold.

    record: the number of record features that the head reads.
    """
    return _draw_networks(shape, params, variant, fold, record)[1]


def _draw_networks(
    shape: tuple[int, ...], params: Params, variant: Variant, fold: int, record: int, bin_hours: int = 1
) -> tuple[Csai, nn.Module]:
    """Draw the weights of a CSAI, then of a head.

    CSAI comes first whatever the variant's imputer is, so that a fold's head has the same initial weights on each.
    """
    _, hours, variables = shape
    reads_series = variant.head in get_args(MlpHead) and variant.base == "imputed"
    size = hours * variables if reads_series else state_size(state_of(variant.input), params.csai.hidden_size)
    sizes = HeadSizes(
        input_size=size,
        variables=variables,
        mlp_width=params.heads.mlp_width,
        dropout=params.record_heads.dropout if record else params.finetune.dropout,
        record=record,
        input_dropout=params.record_heads.input_dropout if record else 0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, fold, Purpose.HEAD_WEIGHTS).initial_seed())
        imputer = Csai(csai_sizes(params, variables, hours, bin_hours))
        return imputer, build_head(variant.head, sizes)


def _train_and_score(job: FinetuneJob, data: FoldData, recorder: Recorder) -> TrainedFold:
    """Train a variant on a fold, after a search of its learning rate if it needs one, and score it."""
    started = time.perf_counter()
    training = _FoldAttempts(job, data)
    rate, trials = job.learning_rate, list[Trial]()
    if job.variant.schedule == "optuna" and rate is None:
        rate, trials = _search(training, recorder)
    best, history = training.train(rate, job.epochs, partial(recorder.epoch, data.number))
    scores, predictions = score_fold(data, training.trainer.risk)
    return TrainedFold(
        fold=data.number,
        weights=data.scaler.to_arrays() | training.weights(),
        scores=scores,
        best_epoch=best.epoch,
        seconds=time.perf_counter() - started + training.saved_seconds,
        history=history,
        predictions=predictions,
        learning_rate=rate,
        trials=trials,
    )


def _search(training: "_FoldAttempts", recorder: Recorder) -> tuple[float, list[Trial]]:
    """Search the learning rate; return it with all trials, which the recorder gets too."""
    job, fold = training.job, training.data.number
    trials: list[Trial] = []

    def trial_finished(trial: Trial) -> None:
        trials.append(trial)
        recorder.trial_finished(fold, trial)

    search = Search(
        settings=job.params.schedules.optuna,
        epochs=min(job.params.schedules.optuna.trial_epochs, job.epochs),
        seed=generator_for(job.params.seed, fold, Purpose.SEARCH).initial_seed(),
        name=f"{job.variant.name}-fold-{fold}",
        earlier=job.trials,
    )
    rate = search_rate(search, lambda rate, report: training.train(rate, search.epochs, report), trial_finished)
    return rate, trials


def _plan(job: FinetuneJob, epochs: int, learning_rate: float | None) -> EpochPlan:
    """Return how a variant trains for at most so many epochs; `learning_rate` is for schedule optuna."""
    params, variant, settings = job.params, job.variant, job.params.finetune
    frozen = variant.mode == "frozen"
    schedule = partial(
        make_schedule,
        cast(NeuralSchedule, variant.schedule),
        schedules=params.schedules,
        rate_factor=1.0 if frozen else settings.unfrozen_rate_factor,
        found_rate=learning_rate,
    )
    return EpochPlan(
        seed=params.seed,
        epochs=epochs,
        patience=settings.patience if job.early_stopping else None,
        batch_size=settings.batch_size,
        weight_decay=params.record_heads.weight_decay if variant.record_parts else settings.weight_decay,
        gradient_norm=settings.gradient_norm,
        average_decay=settings.average_decay if frozen else settings.unfrozen_average_decay,
        schedule=lambda optimizer, steps: schedule(optimizer, steps_per_epoch=steps),
        remedy=f"lower the rates of schedules.{variant.schedule} in params.yaml",
    )


class _FoldAttempts:
    """Trains one fold of a variant, any number of times, each time from the same initial weights.

    `trainer` is the trainer of the last time. saved_seconds: what this process did not need to compute again; see
    `kept_inputs`.
    """

    trainer: Trainer

    def __init__(self, job: FinetuneJob, data: FoldData) -> None:
        self.job, self.data = job, data
        self.device = choose_device(job.params.device)
        splits = (data.train, data.validation, data.test)
        self.record_scaler, self.record = record_inputs(job.variant, splits, self.device)
        self.inputs: InputsOfSplits | None = None
        self.saved_seconds = 0.0
        if job.variant.mode == "frozen":
            shape, state = job.cohort.values_NTD.shape, state_of(job.variant.input)
            hours = job.cohort.bin_hours
            imputer = saved_imputer(job.variant.imputer, shape, job.params, job.pretrained, state, bin_hours=hours)
            self.inputs = {split: self._inputs(imputer, split) for split in splits}

    def train(self, learning_rate: float | None, epochs: int, report: EpochReport) -> tuple[BestState, Curve]:
        """Train for at most so many epochs; `learning_rate` is for schedule optuna."""
        params, fold = self.job.params, self.data.number
        plan = _plan(self.job, epochs, learning_rate)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            if self.inputs is None:
                self.trainer = UnfrozenTrainer(self._new_classifier(), self.data, params, record=self.record)
            else:
                shape = self.job.cohort.values_NTD.shape
                head = new_head(shape, params, self.job.variant, fold, self.record_size).to(self.device)
                self.trainer = FrozenTrainer(head=head, data=self.data, inputs=self.inputs, device=self.device)
            # After the networks are drawn: their seed is also a GPU's, and nothing would restore that.
            torch.manual_seed(generator_for(params.seed, fold, Purpose.DROPOUT).initial_seed())
            return train_epochs(plan, self.data, self.trainer, report)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weights of the head, the scaling of its record features, and a CSAI imputer's weights.

        Another imputer's weights stay in the output of its pretraining alone.
        """
        record = self.record_scaler.to_arrays() if self.record_scaler else {}
        return record | self._network_weights(self.trainer.module)

    @property
    def record_size(self) -> int:
        """The number of record features that the head reads."""
        return self.record_scaler.size if self.record_scaler else 0

    def _network_weights(self, module: nn.Module) -> dict[str, np.ndarray]:
        if isinstance(module, Classifier):
            return module_weights("imputer", module.imputer) | module_weights("head", module.head)
        imputer = {name: tensor.numpy() for name, tensor in self.job.pretrained.items() if name.startswith("imputer.")}
        is_csai = imputer_kind(self.job.variant.imputer).family == "csai"
        return (imputer if is_csai else {}) | module_weights("head", module)

    def _inputs(self, imputer: Imputer, split: Split) -> tuple[torch.Tensor, ...]:
        def of_batch(stays: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values_BTD, observed_BTD = split.batch(stays)
            representation = imputer.represent(values_BTD, observed_BTD)
            return head_inputs(self.job.variant, representation, values_BTD, self.job.params.csai.hidden_size)

        variant = self.job.variant
        reads = (variant.imputer, variant.base, variant.head in get_args(MlpHead), state_of(variant.input))
        inputs, saved_seconds = kept_inputs(
            key_of((*reads, self.data.bin_hours, self.job.params), self.job.pretrained, split),
            lambda: joined(map(of_batch, batches_in_order(len(split))), len(split)),
        )
        self.saved_seconds += saved_seconds
        return (*(each.to(self.device) for each in inputs), *self.record[split])

    def _new_classifier(self) -> Classifier:
        job = self.job
        shape, fold = job.cohort.values_NTD.shape, self.data.number
        hours = job.cohort.bin_hours
        classifier = build_classifier(shape, job.params, job.variant, fold, self.record_size, hours)
        load_module("imputer", classifier.imputer, job.pretrained)
        if job.frozen is not None:
            start = {name: torch.from_numpy(array) for name, array in job.frozen.weights.items()}
            load_module("head", classifier.head, start)
        return classifier.to(self.device)


def record_inputs(
    variant: Variant, splits: tuple[Split, Split, Split], device: torch.device
) -> tuple[RecordScaler | None, RecordOfSplits]:
    """Return the record features that a variant's head reads, and their scaling, fitted on the training split."""
    if not variant.record_parts:
        return None, dict.fromkeys(splits, ())
    features = {split: _record_features(split, variant.record_parts) for split in splits}
    scaler = RecordScaler.fit(features[splits[0]])
    return scaler, {split: (scaler.standardised(each).to(device),) for split, each in features.items()}


def _record_features(split: Split, parts: tuple[str, ...]) -> np.ndarray:
    """Return a split's record features, float32 (N, F); see `record_features`."""

    def of_batch(stays: torch.Tensor) -> tuple[torch.Tensor]:
        values_BTD, observed_BTD = split.batch(stays)
        static_BS = split.static_NS[stays.numpy()]
        return (torch.from_numpy(record_features(values_BTD.numpy(), observed_BTD.bool().numpy(), static_BS, parts)),)

    [features_NF] = joined(map(of_batch, batches_in_order(len(split))), len(split))
    return features_NF.numpy()
