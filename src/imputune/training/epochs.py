"""The epochs of one training: optimizer, schedule, running average of the weights, and early stopping."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from imputune.data.batches import shuffled_batches
from imputune.data.splits import FoldData, Split
from imputune.evaluation.metrics import curve_scores
from imputune.models.weights import FlatWeights, RunningAverage
from imputune.runtime.recorder import Curve, EpochReport
from imputune.runtime.seeds import Purpose, generator_for
from imputune.training.best_state import BestState, check_converging
from imputune.training.schedules import Schedule


class Trainer(Protocol):
    """Gives the loss of a step, and the risks.

    module: what is trained. weights: its trainable weights, in one vector.
    """

    module: nn.Module
    weights: FlatWeights

    def loss(self, split: Split, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss on some stays, positions of the split, and their logits (B,)."""

    def risk(self, split: Split, module: nn.Module | None = None) -> np.ndarray:
        """Return the risk of each stay of a split, float32 (N,), from what is trained or an average of it."""


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """How long a network trains, and how.

    epochs: at most. patience: epochs without a better validation AUC before training stops; None trains every epoch.
    average_decay: of the running average of the weights. schedule: makes the schedule of an optimizer, given the number
    of steps of an epoch. remedy: what a user can do if training diverges.
    """

    seed: int
    epochs: int
    patience: int | None
    batch_size: int
    weight_decay: float
    gradient_norm: float
    average_decay: float
    schedule: Callable[[torch.optim.Optimizer, int], Schedule]
    remedy: str


def train_epochs(plan: EpochPlan, data: FoldData, trainer: Trainer, report: EpochReport) -> tuple[BestState, Curve]:
    """Train until the validation AUC stops rising and, where it stays equal, the loss stops falling.

    Return the best epoch and the curve.

    After every epoch, the running average of the weights is evaluated; its best state is kept and, at the end, loaded
    into the trainer's module. Raises DivergedError if training diverges.
    """
    stepper = _Stepper(plan, data, trainer)
    averaged = stepper.averaged.module
    best, curve = BestState(averaged), []
    for epoch in range(plan.epochs):
        trained = stepper.train_epoch(data.train)
        validation_risk_N = trainer.risk(data.validation, averaged)
        check_converging((*trained.losses, *validation_risk_N), data.number, epoch, plan.remedy)
        train_scores = curve_scores(trained.outcome_N, trained.risk_N)
        validation_scores = curve_scores(data.validation.outcome_N.numpy(), validation_risk_N)
        curve.append(
            {
                "train_loss": train_scores["log_loss"],
                "train_total_loss": float(np.mean(trained.losses)),
                "train_auc": train_scores["auc"],
                "validation_loss": validation_scores["log_loss"],
                "validation_auc": validation_scores["auc"],
            }
        )
        report(epoch, curve[-1])
        stepper.schedule.epoch_ended(validation_scores["log_loss"])
        best.update(validation_scores["auc"], epoch, validation_scores["log_loss"])
        if plan.patience is not None and best.stale >= plan.patience:
            break
    best.restore()
    trainer.module.load_state_dict(averaged.state_dict())
    return best, curve


@dataclass(frozen=True, eq=False)
class _TrainedEpoch:
    """The loss of each step of an epoch, and each training stay's outcome and risk when its batch was trained."""

    losses: list[float]
    outcome_N: np.ndarray
    risk_N: np.ndarray


class _Stepper:
    """Takes the optimizer steps of a training."""

    def __init__(self, plan: EpochPlan, data: FoldData, trainer: Trainer) -> None:
        self.trainer, self.plan = trainer, plan
        self.order = generator_for(plan.seed, data.number, Purpose.FINETUNE_ORDER)
        self.optimizer = torch.optim.Adam([trainer.weights.vector], weight_decay=plan.weight_decay, fused=True)
        self.schedule = plan.schedule(self.optimizer, -(-len(data.train) // plan.batch_size))
        self.averaged = RunningAverage(trainer.module, trainer.weights, plan.average_decay)

    def train_epoch(self, train: Split) -> _TrainedEpoch:
        """Take a step on every batch of the training stays, in a new order."""
        self.trainer.module.train()
        losses, logits = [], []
        batches = list(shuffled_batches(len(train), self.plan.batch_size, self.order))
        for stays in batches:
            loss, logits_B = self.trainer.loss(train, stays)
            self.trainer.weights.clear_gradient()
            loss.backward()
            self.trainer.weights.clip_gradient(self.plan.gradient_norm)
            self.optimizer.step()
            self.schedule.step_ended()
            self.averaged.update()
            logits.append(logits_B.detach())
            losses.append(loss.detach())
        return _TrainedEpoch(
            torch.stack(losses).tolist(),
            train.outcome_N[torch.cat(batches)].numpy(),
            torch.sigmoid(torch.cat(logits)).cpu().numpy(),
        )
