import pytest
import torch

from imputune.training.schedules import make_schedule


def rates(name, schedules, steps, steps_per_epoch=2, factor=0.5, found=None):
    """Return the learning rate of each step while validation loss never improves."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(
        name, optimizer, schedules, rate_factor=factor, steps_per_epoch=steps_per_epoch, found_rate=found
    )
    seen = []
    for step in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step_ended()
        if step % steps_per_epoch == steps_per_epoch - 1:
            schedule.epoch_ended(validation_loss=1.0)
    return seen


def changed(schedules, name, **keys):
    """Return schedules with other keys of one."""
    return schedules.model_copy(update={name: getattr(schedules, name).model_copy(update=keys)})


def test_plateau_starts_at_its_rate_and_falls(make_params):
    """The rate is multiplied by the factor when patience is over, and never falls below the minimum."""
    keys = {"learning_rate": 2e-3, "factor": 0.2, "patience": 1, "min_learning_rate": 1e-4}
    seen = rates("plateau", changed(make_params().schedules, "plateau", **keys), 12)
    assert seen[::2] == pytest.approx([1e-3, 1e-3, 1e-3, 2e-4, 2e-4, 5e-5])
    assert seen[1::2] == seen[::2]


def test_cyclic_goes_up_and_down_with_every_step(make_params):
    """By hand: two steps up and two down, from 1e-3 to 5e-3, halved by the factor; the top decays in every step."""
    keys = {"lowest_rate": 2e-3, "highest_rate": 1e-2, "half_cycle_epochs": 1, "gamma": 0.5}
    seen = rates("cyclic", changed(make_params().schedules, "cyclic", **keys), 7)
    height = [0, 0.5, 1, 0.5, 0, 0.5, 1]
    assert seen == pytest.approx([1e-3 + 4e-3 * each * 0.5**step for step, each in enumerate(height)])


def test_optuna_keeps_the_rate_that_was_found(make_params):
    """Every step has the rate that the search found; without a rate there is an error."""
    assert rates("optuna", make_params().schedules, 4, found=4e-4) == [2e-4] * 4
    with pytest.raises(ValueError, match="needs a learning rate, got None"):
        rates("optuna", make_params().schedules, 1)
