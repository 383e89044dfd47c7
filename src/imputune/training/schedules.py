"""Learning-rate schedules by their names in params.yaml."""

import torch

from imputune.config import ScheduleName, Schedules


class PlateauSchedule:
    """Adam whose learning rate, begun at a share of the schedule's, falls when validation loss stops improving.

    Source: paper, section V.B (ReduceLROnPlateau: 1e-3, factor 0.2, patience 15, at least 1e-5).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedules: Schedules, rate_share: float) -> None:
        plateau = schedules.plateau
        for group in optimizer.param_groups:
            group["lr"] = plateau.learning_rate * rate_share
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode="min",
            factor=plateau.factor,
            patience=plateau.patience,
            min_lr=plateau.min_learning_rate,
        )

    def epoch_ended(self, validation_loss: float) -> None:
        """Take note of an epoch's validation loss."""
        self.scheduler.step(validation_loss)


SCHEDULES: dict[ScheduleName, type[PlateauSchedule]] = {"plateau": PlateauSchedule}
