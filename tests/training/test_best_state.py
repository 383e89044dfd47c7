import math

import pytest
import torch
from torch import nn

from imputune.data.batches import in_order, shuffled
from imputune.errors import UserError
from imputune.models.weights import FlatWeights, RunningAverage
from imputune.runtime.seeds import generator_for
from imputune.training.best_state import BestState, check_converging


def test_shuffled_gives_every_stay_once_in_a_new_order():
    """An epoch is a permutation, and the next epoch another."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.cat(list(shuffled(10, 4, generator))).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_in_order_keeps_the_order():
    """Batches of 4 over 10 stays are 4, 4 and 2, as they stand."""
    assert [batch.tolist() for batch in in_order(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_generators_of_folds_and_purposes_differ_and_repeat():
    """Each seed, fold and purpose has draws of its own, the same every time."""
    draws = {
        (seed, fold, purpose): torch.rand(1, generator=generator_for(seed, fold, purpose)).item()
        for seed in (1, 2)
        for fold in range(5)
        for purpose in range(13)
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[1, 3, 2] == torch.rand(1, generator=generator_for(1, 3, 2)).item()


def two_layers() -> nn.Sequential:
    """Two linear layers, the bias of the first frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    return model


def test_steps_on_flat_weights_are_steps_on_each_weight():
    """Five clipped Adam steps on the vector leave each weight where steps on the weights do, and the frozen one."""
    flat_model, model = two_layers(), two_layers()
    weights = FlatWeights(flat_model)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    flat_step, step = (torch.optim.Adam(each, lr=0.1) for each in ([weights.vector], trainable))
    inputs = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(1))
    for number, batch in enumerate(inputs):
        weights.clear_gradient()
        flat_model(batch).square().sum().backward()
        weights.clip_gradient(norm=10.0 ** (number - 2))
        flat_step.step()
        step.zero_grad()
        model(batch).square().sum().backward()
        nn.utils.clip_grad_norm_(trainable, 10.0 ** (number - 2))
        step.step()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(flat_model.state_dict()[name], weight, rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(model[1].bias, two_layers()[1].bias)
    assert torch.equal(flat_model[0].bias, two_layers()[0].bias)


def test_loading_weights_reaches_the_vector():
    """Weights loaded into the module are those of its vector: training goes on from a restored epoch."""
    model, other = two_layers(), two_layers()
    weights = FlatWeights(model)
    nn.init.constant_(other[1].bias, 7.0)
    model.load_state_dict(other.state_dict())
    assert weights.vector[-2:].tolist() == [7.0, 7.0]


def test_running_average_by_hand():
    """The first weights are taken whole; then 2/4 of the average is kept, and 3/5 would be, but for the decay."""
    model = nn.Linear(1, 1)
    average = RunningAverage(model, FlatWeights(model), decay=0.55)
    averages = []
    for weight in (1.0, 2.0, 3.0):
        nn.init.constant_(model.weight, weight)
        average.update()
        averages.append(average.module.weight.item())
    second = 2 / 4 * 1 + 2 / 4 * 2
    assert averages == pytest.approx([1.0, second, 0.55 * second + 0.45 * 3])
    assert model.weight.item() == 3


def test_best_state_keeps_the_best_epoch_not_the_last():
    """After scores 1, 3, 2, 3 the weights of epoch 1 come back, and two epochs were stale."""
    model = nn.Linear(1, 1, bias=False)
    best = BestState(model)
    for epoch, score in enumerate([1.0, 3.0, 2.0, 3.0]):
        nn.init.constant_(model.weight, epoch)
        best.update(score, epoch)
    assert (best.epoch, best.score, best.stale) == (1, 3.0, 2)
    best.restore()
    assert model.weight.item() == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_finite_number_is_a_user_error(loss):
    """Fold, epoch and remedy stand in one line; finite numbers, however large, pass."""
    check_converging([0.0, 1e300], 3, 7, "lower it")
    with pytest.raises(UserError) as caught:
        check_converging([1.0, loss], 3, 7, "lower it")
    assert str(caught.value) == "training of fold 3 diverged in epoch 7: lower it"


def test_restoring_without_a_kept_epoch_is_an_error():
    """A score that is never a number keeps no epoch, and there is nothing to restore."""
    best = BestState(nn.Linear(1, 1))
    best.update(math.nan, 0)
    assert (best.epoch, best.stale) == (-1, 1)
    with pytest.raises(RuntimeError, match="no epoch was kept"):
        best.restore()
