"""Fine-tuning: a head learns in-hospital death on a pretrained imputer, frozen or unfrozen, one fold at a time."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.config import Head, Mode, Params, ScheduleName
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.partitions import FoldData, Partition, divide
from imputune.data.views import Views
from imputune.evaluation.metrics import curve_scores, risk_scores
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai
from imputune.models.heads import HEADS
from imputune.training.device import choose_device
from imputune.training.loop import (
    BestState,
    FlatWeights,
    RunningAverage,
    check_converging,
    generator_for,
    in_order,
    shuffled,
)
from imputune.training.outputs import (
    TrainedFold,
    load_module,
    load_scaler,
    module_weights,
    scaler_weights,
)
from imputune.training.pretrain import csai_sizes
from imputune.training.reconstruction import hide_cells, learner
from imputune.training.recorder import Recorder
from imputune.training.schedules import SCHEDULES

WEIGHTS, ORDER, HIDING, DROPOUT = range(10, 14)


@dataclass(frozen=True)
class Cell:
    """One cell of the comparison: what is fine-tuned, and how."""

    head: Head
    mode: Mode
    schedule: ScheduleName

    @property
    def name(self) -> str:
        """The cell's name in artifacts and run names."""
        return f"{self.head}-{self.mode}-{self.schedule}"


@dataclass(frozen=True, eq=False)
class FinetuneJob:
    """One fold of a cell, with the weights its imputer was pretrained to."""

    cohort: Cohort
    fold: Fold
    params: Params
    cell: Cell
    pretrained: dict[str, torch.Tensor]


def finetune_fold(job: FinetuneJob, recorder: Recorder) -> TrainedFold:
    """Train a fold's head, and its imputer too when unfrozen; score the kept epoch once on the test stays.

    The kept epoch has the highest validation AUC. A frozen imputer reads each stay once, and the head trains on the
    representations it gave. Unfrozen training starts from that head, at a share of the schedule's rates: a head that
    knows nothing yet would spoil what the imputer has learned (Kumar et al. 2022, arXiv 2202.10054).
    """
    started = time.perf_counter()
    params, number = job.params, job.fold.number
    data = divide(job.cohort, job.fold, load_scaler(job.pretrained))
    classifier = build_classifier(job.cohort.values_NTD.shape, params, job.cell, number)
    load_module("imputer", classifier.imputer, job.pretrained)
    device = choose_device(params.device)
    trainer: _FrozenTrainer | _UnfrozenTrainer = _FrozenTrainer(classifier.to(device), data, device)
    budget = params.budget_of(params.dataset)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator_for(params.seed, number, DROPOUT).initial_seed())
        if job.cell.mode == "frozen":
            best, history = _train(trainer, data, params, job.cell, budget.frozen_epochs, 1.0, recorder.epoch)
        else:
            _train(trainer, data, params, job.cell, budget.frozen_epochs, 1.0, _unheard)
            trainer, share = _UnfrozenTrainer(classifier, data, params, device), params.finetune.unfrozen_rate_share
            best, history = _train(trainer, data, params, job.cell, budget.unfrozen_epochs, share, recorder.epoch)
    scores: dict[str, float] = {}
    predictions = []
    for name, part in (("validation", data.validation), ("test", data.test)):
        died, risk = part.died_N.numpy().astype(int), _risk(trainer, trainer.module, part)
        scores |= {f"{name}_{metric}": value for metric, value in risk_scores(died, risk).items()}
        predictions.append(pd.DataFrame({"stay_id": part.stay_ids_N, "partition": name, "died": died, "risk": risk}))
    weights = (
        scaler_weights(data.scaler)
        | module_weights("imputer", classifier.imputer)
        | module_weights("head", classifier.head)
    )
    seconds = time.perf_counter() - started
    return TrainedFold(number, weights, scores, best.epoch, seconds, history, predictions=pd.concat(predictions))


def build_classifier(shape: tuple[int, ...], params: Params, cell: Cell, fold: int = 0) -> Classifier:
    """Return a classifier for a cohort's shape (N, T, D), its head freshly drawn for the fold."""
    _, hours, variables = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, fold, WEIGHTS).initial_seed())
        imputer = Csai(csai_sizes(params, variables, hours))
        head = HEADS[cell.head](params.csai.hidden, dropout=params.finetune.dropout)
    return Classifier(imputer, head, freeze_imputer=cell.mode == "frozen")


class _FrozenTrainer:
    """Trains the head alone, on representations computed once."""

    def __init__(self, classifier: Classifier, data: FoldData, device: torch.device) -> None:
        self.module: nn.Module = classifier.head
        self.weights = FlatWeights(self.module)
        self.device = device
        parts = (data.train, data.validation, data.test)
        self.represented = {part: represent(classifier, part) for part in parts}
        self.died = {part: part.died_N.to(device) for part in parts}

    def loss(self, part: Partition, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the head's loss on some stays, and their logits."""
        stays = stays.to(self.device)
        logits = self.module(self.represented[part].index_select(0, stays))
        return binary_cross_entropy_with_logits(logits, self.died[part].index_select(0, stays)), logits

    def logits(self, module: nn.Module, part: Partition) -> torch.Tensor:
        """Return the logits of a part's stays, from the head or an average of it."""
        return module(self.represented[part])


class _UnfrozenTrainer:
    """Trains the head and the imputer under it.

    Against overfitting, some observed cells are hidden from the imputer, and it goes on learning to fill them: its
    reconstruction loss is added to the head's.
    """

    def __init__(self, classifier: Classifier, data: FoldData, params: Params, device: torch.device) -> None:
        self.module = classifier
        self.weights = FlatWeights(classifier)  # before `learner`, whose graphs keep the places of the weights
        self.device = device
        self.settings = params.finetune
        self.hidden_share = torch.tensor(params.finetune.hidden_share)
        self.masks = generator_for(params.seed, data.number, HIDING)
        self.learner = learner(classifier.imputer, data.train, params.finetune.batch_size, params.pretrain)

    def loss(self, part: Partition, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss on some stays, the head's and the weighted reconstruction's, and their logits."""
        reconstruction, last_BH = self.learner(*hide_cells(part, stays, self.hidden_share, self.masks, self.device))
        logits = self.module.head(last_BH)
        loss = binary_cross_entropy_with_logits(logits, part.died_N[stays].to(self.device))
        return loss + self.settings.reconstruction_weight * reconstruction, logits

    def logits(self, module: nn.Module, part: Partition) -> torch.Tensor:
        """Return the logits of a part's stays, from the classifier or an average of it."""
        assert isinstance(module, Classifier)
        return module.head(represent(module, part))


def represent(classifier: Classifier, part: Partition) -> torch.Tensor:
    """Return what the head reads of every stay of a part, (N, H), without gradient."""
    device = classifier.imputer.device
    with torch.no_grad():
        batches = ((cells.to(device) for cells in part.batch(stays)) for stays in in_order(len(part)))
        return torch.cat([classifier.represent(Views.read(*cells)) for cells in batches])


def _risk(trainer: _FrozenTrainer | _UnfrozenTrainer, module: nn.Module, part: Partition) -> np.ndarray:
    with torch.no_grad():
        return torch.sigmoid(trainer.logits(module.eval(), part)).cpu().numpy()


def _unheard(fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
    """Pass over an epoch of the head's training that comes before unfrozen training."""


def _train(
    trainer: _FrozenTrainer | _UnfrozenTrainer,
    data: FoldData,
    params: Params,
    cell: Cell,
    epochs: int,
    rate_share: float,
    report: Callable[[int, int, Mapping[str, float]], None],
) -> tuple[BestState, list[dict[str, float]]]:
    """Train until validation AUC stops rising; what is judged and kept is the running average of the weights."""
    settings, train = params.finetune, data.train
    order = generator_for(params.seed, data.number, ORDER)
    weights = trainer.weights
    optimizer = torch.optim.Adam([weights.vector], weight_decay=settings.weight_decay, fused=True)
    schedule = SCHEDULES[cell.schedule](optimizer, params.schedules, rate_share)
    averaged = RunningAverage(trainer.module, weights, settings.average_decay)
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
            averaged.update()
            logits.append(logits_B.detach())
            step_losses.append(loss.detach())
        losses = torch.stack(step_losses).tolist()
        train_risk = torch.sigmoid(torch.cat(logits)).cpu().numpy()
        train_died = train.died_N[torch.cat(batches)].numpy()
        validation_risk = _risk(trainer, averaged.module, data.validation)
        remedy = "lower the schedule's learning_rate in params.yaml"
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
        report(data.number, epoch, history[-1])
        schedule.epoch_ended(validated["log_loss"])
        best.update(validated["auc"], epoch)
        if best.stale >= settings.patience:
            break
    best.restore()
    trainer.module.load_state_dict(averaged.module.state_dict())
    return best, history
