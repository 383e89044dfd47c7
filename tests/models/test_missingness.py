from collections.abc import Callable

import pytest
import torch

from imputune.data.directions import Directions
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.missingness import Missingness

Record = tuple[torch.Tensor, torch.Tensor]
MakeRecord = Callable[..., Record]
SIZES = CsaiSizes(variables=5, hours=12, hidden_size=7, channels=8, attention_heads=2, feedforward=16)


def build() -> tuple[Csai, Missingness]:
    """Build a seeded CSAI and the layer on it."""
    torch.manual_seed(0)
    return Csai(SIZES), Missingness(SIZES.hidden_size, SIZES.variables)


def test_loss_by_hand() -> None:
    """Two hours, one variable, hidden size 1: each direction predicts its second hour from its first hidden state."""
    layer = Missingness(1, 1)
    with torch.no_grad():
        layer.weight_KHD.copy_(torch.tensor([[[2.0]], [[1.0]]]))
        layer.bias_KD.copy_(torch.tensor([[0.0], [-1.0]]))
    hidden_KBTH = torch.tensor([[[[1.0], [50.0]]], [[[3.0], [50.0]]]])
    logits_KBTD = layer(hidden_KBTH)
    assert logits_KBTD.flatten().tolist() == [2.0, 2.0]
    observed_BTD = torch.tensor([[[0.0], [1.0]]])  # forward, hour 1 is observed; backward, hour 0 is not
    seen, unseen = torch.nn.functional.softplus(torch.tensor([-2.0, 2.0])).tolist()
    assert layer.loss(hidden_KBTH, observed_BTD).item() == pytest.approx((seen + unseen) / 2)


@pytest.mark.parametrize("stays", [1, 4])
def test_shapes(stays: int) -> None:
    """One logit for each direction, stay, hour but the first, and variable; a record of one hour has a loss of 0."""
    _, layer = build()
    assert layer(torch.randn(2, stays, 12, 7)).shape == (2, stays, 11, 5)
    assert layer(torch.randn(2, stays, 1, 7)).shape == (2, stays, 0, 5)
    assert layer.loss(torch.randn(2, stays, 1, 7), torch.ones(stays, 1, 5)).item() == 0


def test_stay_alone_gives_the_same_as_in_a_batch() -> None:
    """A stay's logits do not depend on the other stays of its batch."""
    _, layer = build()
    hidden_KBTH = torch.randn(2, 6, 12, 7)
    alone = torch.cat([layer(hidden_KBTH[:, [i]]) for i in range(6)], dim=1)
    torch.testing.assert_close(alone, layer(hidden_KBTH), rtol=0, atol=1e-6)


def test_an_hours_own_mask_does_not_reach_its_prediction(make_record: MakeRecord) -> None:
    """With the first state fixed, the logits of an hour do not depend on what that hour and later ones have."""
    (imputer, layer), (values, observed) = build(), make_record(4)
    for state in imputer.first_states:
        torch.nn.init.zeros_(state.output.weight)
    before = layer(imputer(Directions.of(values, observed)).hidden_KBTH)
    observed[:, 6:] = 1 - observed[:, 6:]
    after = layer(imputer(Directions.of(values, observed)).hidden_KBTH)
    assert torch.equal(before[0, :, :6], after[0, :, :6])  # place 5 predicts hour 6
    assert not torch.equal(before[0, :, 6:], after[0, :, 6:])


def test_backward_is_forward_of_the_flipped_record() -> None:
    """With both directions' hidden states and weights swapped, the flipped record has the same loss."""
    _, layer = build()
    _, other = build()
    hidden_KBTH, observed = torch.randn(2, 4, 12, 7), (torch.rand(4, 12, 5) < 0.4).float()
    with torch.no_grad():
        other.weight_KHD.copy_(layer.weight_KHD.flip(0))
        other.bias_KD.copy_(layer.bias_KD.flip(0))
    swapped = other.loss(hidden_KBTH.flip(0), observed.flip(1))
    torch.testing.assert_close(swapped, layer.loss(hidden_KBTH, observed))
    assert not torch.isclose(other.loss(hidden_KBTH, observed), layer.loss(hidden_KBTH, observed))


def test_each_weight_gets_gradient(make_record: MakeRecord) -> None:
    """The loss alone trains every weight of the layer, and the recurrence and first states of the imputer."""
    (imputer, layer), (values, observed) = build(), make_record(6)
    layer.loss(imputer(Directions.of(values, observed)).hidden_KBTH, observed).backward()
    for name, parameter in [*layer.named_parameters(), *imputer.named_parameters()]:
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_learns_a_pattern_that_follows_from_the_hour_before(make_record: MakeRecord) -> None:
    """A variable that is measured every second hour is predicted almost surely; a fixed rate would give 0.69."""
    imputer, layer = build()
    values, _ = make_record(8, share=1.0)
    observed = torch.zeros(8, 12, 5)
    observed[:4, ::2] = observed[4:, 1::2] = 1
    directions, weights = Directions.of(values, observed), [*imputer.parameters(), *layer.parameters()]
    optimizer, losses = torch.optim.Adam(weights, 0.02), []
    for _ in range(100):
        loss = layer.loss(imputer(directions).hidden_KBTH, observed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.6
    assert losses[-1] < 0.05
