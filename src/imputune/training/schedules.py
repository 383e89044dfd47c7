"""Learning-rate schedules by their names in params.yaml."""

from typing import Protocol

import torch

from imputune.settings.names import NeuralSchedule as Name
from imputune.settings.schema import Cyclic, Plateau, Schedules


class Schedule(Protocol):
    """Sets an optimizer's learning rate, from its construction on."""

    def step_ended(self) -> None:
        """Take note of a step, after the optimizer's own."""

    def epoch_ended(self, validation_loss: float) -> None:
        """Take note of an epoch and its validation loss."""


class PlateauSchedule:
    """A learning rate, begun at a share of the schedule's, that falls when validation loss stops improving.

    Source: paper, section V.B (ReduceLROnPlateau: 1e-3, factor 0.2, patience 15, at least 1e-5).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plateau: Plateau, rate_share: float) -> None:
        _set_rate(optimizer, plateau.learning_rate * rate_share)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode="min",
            factor=plateau.factor,
            patience=plateau.patience,
            min_lr=plateau.min_learning_rate * rate_share,
        )

    def step_ended(self) -> None:
        """Do nothing: the rate holds for an epoch at least."""

    def epoch_ended(self, validation_loss: float) -> None:
        """Take note of an epoch's validation loss."""
        self.scheduler.step(validation_loss)


class CyclicSchedule:
    """A learning rate that goes up and down with every batch between two bounds, the upper one decaying.

    Source: paper, section V.B (CyclicLR, 1e-5 to 1e-3, exp_range); Smith 2017. The paper gives neither the length of a
    cycle nor gamma.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, cyclic: Cyclic, rate_share: float, steps_per_epoch: int
    ) -> None:
        self.scheduler = torch.optim.lr_scheduler.CyclicLR(
            optimizer,
            base_lr=cyclic.lowest_rate * rate_share,
            max_lr=cyclic.highest_rate * rate_share,
            step_size_up=cyclic.half_cycle_epochs * steps_per_epoch,
            mode="exp_range",
            gamma=cyclic.gamma,
            cycle_momentum=False,
        )

    def step_ended(self) -> None:
        """Move on by one batch."""
        self.scheduler.step()

    def epoch_ended(self, validation_loss: float) -> None:
        """Do nothing: the cycle does not look at losses."""


class ConstantSchedule:
    """A learning rate that stays: the one that a search has found, or a trial of it tries."""

    def __init__(self, optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
        _set_rate(optimizer, learning_rate)

    def step_ended(self) -> None:
        """Do nothing."""

    def epoch_ended(self, validation_loss: float) -> None:
        """Do nothing."""


def make_schedule(
    name: Name,
    optimizer: torch.optim.Optimizer,
    schedules: Schedules,
    rate_share: float,
    steps_per_epoch: int,
    found_rate: float | None,
) -> Schedule:
    """Return a schedule for an optimizer, its rates multiplied by `rate_share`.

    `found_rate` is the learning rate of schedule optuna; ValueError where that has none.
    """
    match name:
        case "plateau":
            return PlateauSchedule(optimizer, schedules.plateau, rate_share)
        case "cyclic":
            return CyclicSchedule(optimizer, schedules.cyclic, rate_share, steps_per_epoch)
        case "optuna":
            if found_rate is None:
                raise ValueError("schedule optuna needs a learning rate, got None")
            return ConstantSchedule(optimizer, found_rate * rate_share)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
