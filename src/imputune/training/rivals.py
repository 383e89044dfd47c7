"""Rivals: a network that reads the record itself learns the outcome, end to end, one fold at a time."""

import math
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.batches import batches_in_order
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.record_features import RecordScaler, record_features
from imputune.data.splits import FoldData, Split, fit_and_split
from imputune.errors import UserError
from imputune.models.rivals.build import RivalSizes, build_rival
from imputune.models.rivals.classifier import RivalClassifier
from imputune.models.weights import FlatWeights, module_weights
from imputune.protocol.rivals import SECONDS_FOR_1000, Rival
from imputune.runtime.device import choose_device
from imputune.runtime.recorder import Curve, EpochReport, Recorder, Trial
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.schema import Params
from imputune.training.best_state import BestState, DivergedError
from imputune.training.epochs import EpochPlan, train_epochs
from imputune.training.schedules import ConstantSchedule
from imputune.training.scoring import score_fold

TIMED_STAYS = 1000


@dataclass(frozen=True, eq=False, kw_only=True)
class RivalJob:
    """One fold of a rival.

    learning_rate: found on another fold; None tries the rates in params.yaml. trials: the tries of an interrupted
    command on this fold, by number; they are not repeated.
    """

    cohort: Cohort
    fold: Fold
    params: Params
    rival: Rival
    learning_rate: float | None = None
    trials: tuple[Trial, ...] = ()


def train_rival_fold(job: RivalJob, recorder: Recorder) -> TrainedFold:
    """Train a rival on a fold's training stays, and score its best epoch once on the test stays.

    The best epoch has the highest validation AUC. If no learning rate is given, each rate in params.yaml is tried for a
    few epochs, from the same initial weights, and the rate with the highest validation AUC is taken. A rival that
    diverges, or that PyPOTS cannot use, has no scores: its fold says why it failed.
    """
    started = time.perf_counter()
    training = _RivalTraining(job)
    trials, rate, history, failure = list[Trial](), job.learning_rate, Curve(), ""
    try:
        if rate is None:
            rate = _try_rates(training, recorder, trials)
        best, history = training.train(rate, job.params.rivals.epochs, partial(recorder.epoch, job.fold.number))
    except UserError as error:
        failure = str(error)
    trained = TrainedFold(
        fold=job.fold.number,
        weights={},
        scores={},
        best_epoch=-1,
        seconds=time.perf_counter() - started,
        history=history,
        learning_rate=rate,
        trials=trials,
        failure=failure,
    )
    if failure:
        return trained
    scores, predictions = score_fold(training.data, training.trainer.risk)
    return replace(
        trained,
        weights=training.weights(),
        scores=scores | {SECONDS_FOR_1000: _seconds_for_1000(training)},
        best_epoch=best.epoch,
        seconds=time.perf_counter() - started,
        predictions=predictions,
    )


def new_rival(shape: tuple[int, ...], params: Params, rival: Rival, fold: int = 0, record: int = 0) -> RivalClassifier:
    """Return a rival for a cohort of shape (N, T, D), with the initial weights of a fold.

    record: the number of record features that its readout reads.
    """
    _, hours, variables = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, fold, Purpose.HEAD_WEIGHTS).initial_seed())
        return build_rival(
            rival.name,
            RivalSizes(
                hours=hours,
                variables=variables,
                network=getattr(params.rivals, rival.name).model_dump(),
                mlp_width=params.heads.mlp_width,
                dropout=params.record_heads.dropout if record else params.finetune.dropout,
                record=record,
                input_dropout=params.record_heads.input_dropout if record else 0.0,
            ),
        )


class RivalTrainer:
    """Trains a rival end to end on the observed values of each batch; see `epochs.Trainer`."""

    def __init__(self, module: nn.Module, record: dict[Split, tuple[torch.Tensor, ...]], device: torch.device) -> None:
        self.module = module
        self.weights = FlatWeights(module)
        self.record, self.device = record, device

    def loss(self, split: Split, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log loss of some stays plus the network's penalty, and their logits (B,)."""
        logits_B, penalty = self.module(*self._inputs(split, stays))
        return binary_cross_entropy_with_logits(logits_B, split.outcome_N[stays].to(self.device)) + penalty, logits_B

    def risk(self, split: Split, module: nn.Module | None = None) -> np.ndarray:
        """Return the risk of each stay of a split, float32 (N,), from the rival or from `module`, an average of it."""
        module = (module or self.module).eval()
        with torch.no_grad():
            logits = [module(*self._inputs(split, stays))[0] for stays in batches_in_order(len(split))]
            return torch.sigmoid(torch.cat(logits)).cpu().numpy()

    def _inputs(self, split: Split, stays: torch.Tensor) -> list[torch.Tensor]:
        return [each.to(self.device) for each in (*split.batch(stays), *(rows[stays] for rows in self.record[split]))]


class _RivalTraining:
    """Trains a rival on one fold, any number of times, each time from the same initial weights.

    `trainer` is the trainer of the last time.
    """

    trainer: RivalTrainer

    def __init__(self, job: RivalJob) -> None:
        self.job = job
        self.device = choose_device(job.params.device)
        self.data: FoldData = fit_and_split(job.cohort, job.fold, job.params.scaling.clip_quantile)
        splits = (self.data.train, self.data.validation, self.data.test)
        self.record_scaler: RecordScaler | None = None
        self.record: dict[Split, tuple[torch.Tensor, ...]] = dict.fromkeys(splits, ())
        if job.rival.reads_static:
            features = {split: _static_features(split) for split in splits}
            scaler = self.record_scaler = RecordScaler.fit(features[self.data.train])
            self.record = {split: (scaler.standardised(each),) for split, each in features.items()}

    def train(self, learning_rate: float, epochs: int, report: EpochReport) -> tuple[BestState, Curve]:
        """Train for at most so many epochs."""
        params, fold = self.job.params, self.data.number
        settings, record = params.finetune, self.record_scaler.size if self.record_scaler else 0
        plan = EpochPlan(
            seed=params.seed,
            epochs=epochs,
            patience=params.rivals.patience,
            batch_size=settings.batch_size,
            weight_decay=params.record_heads.weight_decay if record else settings.weight_decay,
            gradient_norm=settings.gradient_norm,
            average_decay=settings.average_decay,
            schedule=lambda optimizer, _: ConstantSchedule(optimizer, learning_rate),
            remedy="lower rivals.rates in params.yaml",
        )
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            module = new_rival(self.job.cohort.values_NTD.shape, params, self.job.rival, fold, record)
            self.trainer = RivalTrainer(module.to(self.device), self.record, self.device)
            torch.manual_seed(generator_for(params.seed, fold, Purpose.DROPOUT).initial_seed())
            return train_epochs(plan, self.data, self.trainer, report)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the rival's weights, and the scaling of values and static facts."""
        record = self.record_scaler.to_arrays() if self.record_scaler else {}
        return self.data.scaler.to_arrays() | record | module_weights("rival", self.trainer.module)


def _static_features(split: Split) -> np.ndarray:
    """Return the static facts of a split's stays as numbers, float32 (N, S), NaN where unknown."""
    no_values = np.empty((len(split), 0, 0), dtype=np.float32)
    return record_features(no_values, no_values, split.static_NS, ("static",))


def _try_rates(training: _RivalTraining, recorder: Recorder, trials: list[Trial]) -> float:
    """Try every rate; return the one with the highest validation AUC. The trials are added to `trials`.

    Raises DivergedError if training diverges at every rate.
    """
    job, settings = training.job, training.job.params.rivals
    highest, best = -math.inf, None
    for number, rate in enumerate(settings.rates):
        earlier = job.trials[number] if number < len(job.trials) else None
        trial = earlier if earlier and earlier.learning_rate == rate else _trial(training, number, rate)
        trials.append(trial)
        recorder.trial_finished(job.fold.number, trial)
        reached = max((row["validation_auc"] for row in trial.curve), default=-math.inf)
        if math.isfinite(trial.validation_loss) and reached > highest:
            highest, best = reached, rate
    if best is None:
        raise DivergedError(f"training of fold {job.fold.number} diverged at every learning rate of rivals.rates")
    return best


def _trial(training: _RivalTraining, number: int, rate: float) -> Trial:
    """Train at a rate for `rate_epochs`; a trial that diverges has an infinite validation loss."""
    curve = Curve()
    try:
        training.train(rate, training.job.params.rivals.rate_epochs, lambda _, metrics: curve.append(dict(metrics)))
        lowest = min(row["validation_loss"] for row in curve)
    except DivergedError:
        lowest = math.inf
    state = "complete" if math.isfinite(lowest) else "pruned"
    return Trial(number=number, learning_rate=rate, state=state, validation_loss=lowest, curve=curve)  # type: ignore


def _seconds_for_1000(training: _RivalTraining) -> float:
    """Return the seconds for the risks of 1,000 stays, reading and scaling included, by the test stays of the fold."""
    started = time.perf_counter()
    training.trainer.risk(training.data.test)
    return (time.perf_counter() - started) * TIMED_STAYS / len(training.data.test)
