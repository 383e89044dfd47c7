"""Fine-tuning: a head learns in-hospital death on a pretrained imputer, frozen or unfrozen, one fold at a time."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from torch import nn

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.batches import shuffled
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.scaling import load_scaler, scaler_weights
from imputune.data.splits import FoldData, Partition, divide
from imputune.evaluation.metrics import curve_scores
from imputune.imputers.build import csai_sizes, represent, saved_imputer
from imputune.imputers.interface import Imputer
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai
from imputune.models.heads import HEADS
from imputune.models.weights import RunningAverage, load_module, module_weights
from imputune.protocol.imputers import IMPUTERS
from imputune.protocol.variants import Cell
from imputune.runtime.device import choose_device
from imputune.runtime.recorder import (
    Curve,
    Recorder,
    Trial,
    Unheard,
)
from imputune.runtime.seeds import generator_for
from imputune.settings.names import MlpHead, NeuralSchedule
from imputune.settings.schema import Params
from imputune.training.best_state import BestState, check_converging
from imputune.training.head_inputs import read_by
from imputune.training.schedules import make_schedule
from imputune.training.scoring import score
from imputune.training.search import Report, search_rate
from imputune.training.trainers import (
    FrozenTrainer,
    Represented,
    Trainer,
    UnfrozenTrainer,
)

WEIGHTS, ORDER, _, DROPOUT, SEARCH = range(10, 15)  # purposes of generators; 12 hides cells, see `trainers`


@dataclass(frozen=True, eq=False)
class FinetuneJob:
    """One fold of a cell, with the weights its imputer was pretrained to.

    journals: folder for the trials of searches, so that one that was killed goes on. learning_rate: for schedule
    optuna, the rate found on another fold; None searches. frozen: for an unfrozen cell, its frozen cell's result on
    this fold, whose head it starts from; None trains that head first. early_stopping: False trains every epoch of the
    budget, whatever validation says.
    """

    cohort: Cohort
    fold: Fold
    params: Params
    cell: Cell
    pretrained: dict[str, torch.Tensor]
    journals: Path
    learning_rate: float | None = None
    frozen: TrainedFold | None = None
    early_stopping: bool = True

    @property
    def epochs(self) -> int:
        """The most epochs that params.yaml allows."""
        budget = self.params.budget_of(self.params.dataset)
        return budget.frozen_epochs if self.cell.mode == "frozen" else budget.unfrozen_epochs


def finetune_fold(job: FinetuneJob, recorder: Recorder) -> TrainedFold:
    """Train a fold's head, and its imputer too when unfrozen; score the kept epoch once on the test stays.

    The kept epoch has the highest validation AUC. A frozen imputer reads each stay once, and the head trains on what
    it gave. Unfrozen training starts from the head of the frozen cell, at a share of the schedule's rates: a head that
    knows nothing yet would spoil what the imputer has learned (Kumar et al. 2022, arXiv 2202.10054). `seconds` count
    that head's training too.
    """
    started = time.perf_counter()
    data = divide(job.cohort, job.fold, load_scaler(job.pretrained))
    earlier = job.frozen.seconds if job.frozen else 0.0
    if job.cell.mode == "unfrozen" and job.frozen is None:
        head_job = replace(job, cell=job.cell.frozen, learning_rate=None)
        job = replace(job, frozen=_train(head_job, data, Unheard()))
    trained = _train(job, data, recorder)
    return replace(trained, seconds=earlier + time.perf_counter() - started)


def build_classifier(shape: tuple[int, ...], params: Params, cell: Cell, fold: int = 0) -> Classifier:
    """Return a classifier on CSAI for a cohort's shape (N, T, D), its head freshly drawn for the fold."""
    imputer, head = _drawn(shape, params, cell, fold)
    return Classifier(imputer, head, freeze_imputer=cell.mode == "frozen", reads=cell.input)


def new_head(shape: tuple[int, ...], params: Params, cell: Cell, fold: int = 0) -> nn.Module:
    """Return a cell's head, a network, for a cohort's shape (N, T, D), freshly drawn for the fold."""
    return _drawn(shape, params, cell, fold)[1]


def _drawn(shape: tuple[int, ...], params: Params, cell: Cell, fold: int) -> tuple[Csai, nn.Module]:
    """Draw a CSAI and a head, in this order whatever the imputer is: a fold's head then begins the same on each."""
    _, hours, variables = shape
    width = params.csai.hidden
    if cell.head in get_args(MlpHead) and cell.input == "imputed":
        width = hours * variables
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, fold, WEIGHTS).initial_seed())
        imputer = Csai(csai_sizes(params, variables, hours))
        return imputer, HEADS[cell.head](width, variables, params.finetune.dropout)


def _train(job: FinetuneJob, data: FoldData, recorder: Recorder) -> TrainedFold:
    """Train a cell on a fold, after the search of its learning rate where it needs one, and score it."""
    started = time.perf_counter()
    attempts = _Attempts(job, data)
    rate, trials = job.learning_rate, list[Trial]()
    if job.cell.schedule == "optuna" and rate is None:
        rate, trials = _search(attempts, recorder)
    best, history = attempts.train(rate, job.epochs, partial(recorder.epoch, data.number))
    scores, predictions = score(data, attempts.trainer.risk)
    weights = scaler_weights(data.scaler) | attempts.weights()
    seconds = time.perf_counter() - started
    return TrainedFold(
        data.number,
        weights,
        scores,
        best.epoch,
        seconds,
        history,
        predictions=predictions,
        learning_rate=rate,
        trials=trials,
    )


def _search(attempts: "_Attempts", recorder: Recorder) -> tuple[float, list[Trial]]:
    job, fold = attempts.job, attempts.data.number
    trials: list[Trial] = []

    def heard(trial: Trial) -> None:
        trials.append(trial)
        recorder.trial_finished(fold, trial)

    settings = job.params.schedules.optuna
    epochs = min(settings.trial_epochs, job.epochs)
    name = f"{job.cell.name}-fold-{fold}"
    job.journals.mkdir(parents=True, exist_ok=True)
    rate = search_rate(
        lambda rate, report: attempts.train(rate, epochs, report),
        settings,
        epochs,
        generator_for(job.params.seed, fold, SEARCH).initial_seed(),
        name,
        job.journals / f"{name}.journal",
        heard,
    )
    return rate, trials


class _Attempts:
    """Trains one fold of a cell any number of times, each time from the same start; `trainer` is the last attempt's."""

    trainer: Trainer

    def __init__(self, job: FinetuneJob, data: FoldData) -> None:
        self.job, self.data = job, data
        self.device = choose_device(job.params.device)
        self.represented: Represented | None = None
        if job.cell.mode == "frozen":
            imputer = saved_imputer(job.cell.imputer, job.cohort.values_NTD.shape, job.params, job.pretrained)
            self.represented = {part: self._read(imputer, part) for part in (data.train, data.validation, data.test)}

    def train(self, rate: float | None, epochs: int, report: Report) -> tuple[BestState, Curve]:
        """Train for at most so many epochs; `rate` is that of schedule optuna."""
        params, fold = self.job.params, self.data.number
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(generator_for(params.seed, fold, DROPOUT).initial_seed())
            if self.represented is None:
                self.trainer = UnfrozenTrainer(self._new_classifier(), self.data, params)
            else:
                head = new_head(self.job.cohort.values_NTD.shape, params, self.job.cell, fold).to(self.device)
                self.trainer = FrozenTrainer(head, self.data, self.represented, self.device)
            return _run_epochs(self.job, self.data, self.trainer, rate, epochs, report)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the last attempt's head, and the CSAI it stands on; another imputer's are in its own output alone."""
        module = self.trainer.module
        if isinstance(module, Classifier):
            return module_weights("imputer", module.imputer) | module_weights("head", module.head)
        imputer = {name: tensor.numpy() for name, tensor in self.job.pretrained.items() if name.startswith("imputer.")}
        own = IMPUTERS[self.job.cell.imputer].family == "csai"
        return (imputer if own else {}) | module_weights("head", module)

    def _read(self, imputer: Imputer, part: Partition) -> tuple[torch.Tensor, ...]:
        representation = represent(imputer, part)
        read = read_by(self.job.cell, representation, part, self.job.params.csai.hidden)
        return tuple(each.to(self.device) for each in read)

    def _new_classifier(self) -> Classifier:
        job = self.job
        classifier = build_classifier(job.cohort.values_NTD.shape, job.params, job.cell, self.data.number)
        load_module("imputer", classifier.imputer, job.pretrained)
        if job.frozen is not None:
            start = {name: torch.from_numpy(array) for name, array in job.frozen.weights.items()}
            load_module("head", classifier.head, start)
        return classifier.to(self.device)


def _run_epochs(
    job: FinetuneJob, data: FoldData, trainer: Trainer, rate: float | None, epochs: int, report: Report
) -> tuple[BestState, Curve]:
    """Train until validation AUC stops rising; what is judged and kept is the running average of the weights."""
    settings, train = job.params.finetune, data.train
    order = generator_for(job.params.seed, data.number, ORDER)
    weights = trainer.weights
    optimizer = torch.optim.Adam([weights.vector], weight_decay=settings.weight_decay, fused=True)
    schedule = make_schedule(
        cast(NeuralSchedule, job.cell.schedule),
        optimizer,
        job.params.schedules,
        1.0 if job.cell.mode == "frozen" else settings.unfrozen_rate_share,
        -(-len(train) // settings.batch_size),
        rate,
    )
    decay = settings.average_decay if job.cell.mode == "frozen" else settings.unfrozen_average_decay
    averaged = RunningAverage(trainer.module, weights, decay)
    best, history = BestState(averaged.module), []
    for epoch in range(epochs):
        trainer.module.train()
        step_losses, logits, batches = [], [], list(shuffled(len(train), settings.batch_size, order))
        for stays in batches:
            loss, logits_B = trainer.loss(train, stays)
            weights.clear_gradient()
            loss.backward()
            weights.clip_gradient(settings.gradient_norm)
            optimizer.step()
            schedule.step_ended()
            averaged.update()
            logits.append(logits_B.detach())
            step_losses.append(loss.detach())
        losses = torch.stack(step_losses).tolist()
        train_risk = torch.sigmoid(torch.cat(logits)).cpu().numpy()
        train_died = train.died_N[torch.cat(batches)].numpy()
        validation_risk = trainer.risk(data.validation, averaged.module)
        remedy = f"lower the rates of schedules.{job.cell.schedule} in params.yaml"
        check_converging((*losses, *validation_risk), data.number, epoch, remedy)
        trained = curve_scores(train_died, train_risk)
        validated = curve_scores(data.validation.died_N.numpy(), validation_risk)
        history.append(
            {
                "train_loss": trained["log_loss"],
                "train_total_loss": float(np.mean(losses)),
                "train_auc": trained["auc"],
                "validation_loss": validated["log_loss"],
                "validation_auc": validated["auc"],
            }
        )
        report(epoch, history[-1])
        schedule.epoch_ended(validated["log_loss"])
        best.update(validated["auc"], epoch)
        if job.early_stopping and best.stale >= settings.patience:
            break
    best.restore()
    trainer.module.load_state_dict(averaged.module.state_dict())
    return best, history
