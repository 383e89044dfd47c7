"""The epochs of one fine-tuning: optimizer, schedule, running average of the weights, and early stopping."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from imputune.data.batches import shuffled_batches
from imputune.data.splits import FoldData, Split
from imputune.evaluation.metrics import curve_scores
from imputune.models.weights import RunningAverage
from imputune.protocol.variants import Variant
from imputune.runtime.recorder import Curve
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.names import NeuralSchedule
from imputune.settings.schema import Params
from imputune.training.best_state import BestState, check_converging
from imputune.training.schedules import make_schedule
from imputune.training.search import EpochReport
from imputune.training.trainers import Trainer


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """How long a variant trains, and at which rate.

    epochs: at most. learning_rate: of schedule optuna. early_stopping: False trains every epoch, whatever the
    validation AUC.
    """

    variant: Variant
    params: Params
    epochs: int
    learning_rate: float | None
    early_stopping: bool

    @property
    def weight_decay(self) -> float:
        """Adam's weight decay."""
        section = self.params.record_heads if self.variant.record_parts else self.params.finetune
        return section.weight_decay


def train_epochs(plan: EpochPlan, data: FoldData, trainer: Trainer, report: EpochReport) -> tuple[BestState, Curve]:
    """Train until the validation AUC stops rising and, where it stays equal, the loss stops falling.

    Return the best epoch and the curve.

    After every epoch, the running average of the weights is evaluated; its best state is kept and, at the end, loaded
    into the trainer's module. Raises DivergedError if training diverges.
    """
    stepper = _Stepper(plan, data, trainer)
    averaged = stepper.averaged.module
    best, curve = BestState(averaged), []
    remedy = f"lower the rates of schedules.{plan.variant.schedule} in params.yaml"
    for epoch in range(plan.epochs):
        trained = stepper.train_epoch(data.train)
        validation_risk_N = trainer.risk(data.validation, averaged)
        check_converging((*trained.losses, *validation_risk_N), data.number, epoch, remedy)
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
        if plan.early_stopping and best.stale >= plan.params.finetune.patience:
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
        settings, frozen = plan.params.finetune, plan.variant.mode == "frozen"
        self.trainer, self.settings = trainer, settings
        self.order = generator_for(plan.params.seed, data.number, Purpose.FINETUNE_ORDER)
        self.optimizer = torch.optim.Adam([trainer.weights.vector], weight_decay=plan.weight_decay, fused=True)
        self.schedule = make_schedule(
            cast(NeuralSchedule, plan.variant.schedule),
            self.optimizer,
            plan.params.schedules,
            rate_factor=1.0 if frozen else settings.unfrozen_rate_factor,
            steps_per_epoch=-(-len(data.train) // settings.batch_size),
            found_rate=plan.learning_rate,
        )
        decay = settings.average_decay if frozen else settings.unfrozen_average_decay
        self.averaged = RunningAverage(trainer.module, trainer.weights, decay)

    def train_epoch(self, train: Split) -> _TrainedEpoch:
        """Take a step on every batch of the training stays, in a new order."""
        self.trainer.module.train()
        losses, logits = [], []
        batches = list(shuffled_batches(len(train), self.settings.batch_size, self.order))
        for stays in batches:
            loss, logits_B = self.trainer.loss(train, stays)
            self.trainer.weights.clear_gradient()
            loss.backward()
            self.trainer.weights.clip_gradient(self.settings.gradient_norm)
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
