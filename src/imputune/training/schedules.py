"""Learning-rate schedules by their names in params.yaml."""

from typing import Protocol

import torch

from imputune.settings.head_sections import Cyclic, Plateau, Schedules
from imputune.settings.names import NeuralSchedule


class Schedule(Protocol):
    """Sets an optimizer's learning rate, from its construction on."""

    def step_ended(self) -> None:
        """Count a step; call it after the optimizer's own."""

    def epoch_ended(self, validation_loss: float) -> None:
        """Count an epoch and note its validation loss."""


class PlateauSchedule:
    """A learning rate that falls when validation loss stops improving.

    Source: paper, section V.B (ReduceLROnPlateau: 1e-3, factor 0.2, patience 15, at least 1e-5).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plateau: Plateau, rate_factor: float) -> None:
        _set_rate(optimizer, plateau.learning_rate * rate_factor)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode="min",
            factor=plateau.factor,
            patience=plateau.patience,
            min_lr=plateau.min_learning_rate * rate_factor,
        )

    def step_ended(self) -> None:
        """Do nothing: the rate changes between epochs only."""

    def epoch_ended(self, validation_loss: float) -> None:
        """Note an epoch's validation loss."""
        self.scheduler.step(validation_loss)


class CyclicSchedule:
    """A learning rate that rises and falls between two bounds with every batch; the upper bound decays.

    Source: paper, section V.B (CyclicLR, 1e-5 to 1e-3, exp_range); Smith 2017. The paper gives neither the length of a
    cycle nor gamma.
    """

    def __init__(
        self, *, optimizer: torch.optim.Optimizer, cyclic: Cyclic, rate_factor: float, steps_per_epoch: int
    ) -> None:
        self.scheduler = torch.optim.lr_scheduler.CyclicLR(
            optimizer,
            base_lr=cyclic.lowest_rate * rate_factor,
            max_lr=cyclic.highest_rate * rate_factor,
            step_size_up=cyclic.half_cycle_epochs * steps_per_epoch,
            mode="exp_range",
            gamma=cyclic.gamma,
            cycle_momentum=False,
        )

    def step_ended(self) -> None:
        """Set the rate of the next batch."""
        self.scheduler.step()

    def epoch_ended(self, validation_loss: float) -> None:
        """Do nothing: the cycle does not depend on the loss."""


class ConstantSchedule:
    """A constant learning rate, found by a search or tried by one of its trials."""

    def __init__(self, optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
        _set_rate(optimizer, learning_rate)

    def step_ended(self) -> None:
        """Do nothing."""

    def epoch_ended(self, validation_loss: float) -> None:
        """Do nothing."""


def make_schedule(
    name: NeuralSchedule,
    optimizer: torch.optim.Optimizer,
    schedules: Schedules,
    *,
    rate_factor: float,
    steps_per_epoch: int,
    found_rate: float | None,
) -> Schedule:
    """Return a schedule for an optimizer, with all its rates multiplied by `rate_factor`.

    `found_rate` is the learning rate of schedule optuna; ValueError if it is missing there.
    """
    match name:
        case "plateau":
            return PlateauSchedule(optimizer, schedules.plateau, rate_factor)
        case "cyclic":
            return CyclicSchedule(
                optimizer=optimizer,
                cyclic=schedules.cyclic,
                rate_factor=rate_factor,
                steps_per_epoch=steps_per_epoch,
            )
        case "optuna":
            if found_rate is None:
                raise ValueError("schedule optuna needs a learning rate, got None")
            return ConstantSchedule(optimizer, found_rate * rate_factor)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
