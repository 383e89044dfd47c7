import pytest
import torch
from torch import nn

from imputune.models.weights import FlatWeights, RunningAverage


def two_layers() -> nn.Sequential:
    """Two linear layers, the bias of the first frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    return model


def test_steps_on_flat_weights_are_steps_on_each_weight():
    """Five clipped Adam steps on the vector give the same weights as steps on each weight; a frozen weight stays."""
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
    """Weights loaded into the module are in its vector too, so training can go on from a restored epoch."""
    model, other = two_layers(), two_layers()
    weights = FlatWeights(model)
    nn.init.constant_(other[1].bias, 7.0)
    model.load_state_dict(other.state_dict())
    assert weights.vector[-2:].tolist() == [7.0, 7.0]


def test_running_average_by_hand():
    """The first update takes the weights; the second keeps 2/4 of the average, the third 0.55, the decay."""
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
