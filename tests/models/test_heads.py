import pytest
import torch

from imputune.models.heads import HEADS, Mlp, RecurrentHead
from imputune.protocol.variants import FAMILIES

# Of heads on 108 hidden numbers and, where they read a series, 35 variables.
COUNTS = {"mlp2": 14_081, "mlp5": 63_617, "lstm": 76_721, "gru": 61_061}


def inputs(name: str, stays: int, hours: int = 7, width: int = 6, variables: int = 4) -> tuple[torch.Tensor, ...]:
    """Return random inputs of a head, (B, H) and for a recurrent one (B, T, D)."""
    series = (torch.randn(stays, hours, variables),) if name in ("lstm", "gru") else ()
    return torch.randn(stays, width), *series


@pytest.mark.parametrize("name", HEADS)
def test_parameter_counts(name: str) -> None:
    """The heads have the paper's parameter counts; mlp5, of which it gives none, 13,952 + 3 * 16,512 + 129."""
    parameters = list(HEADS[name](108, 35, 0.0).parameters())
    assert sum(parameter.numel() for parameter in parameters) == COUNTS[name]
    assert all(parameter.requires_grad for parameter in parameters)


def test_mlp2_by_hand() -> None:
    """One hidden unit: relu(2 * 1 - 1 * 3 + 2) * 5 + 0.5 = 5.5, and 0.5 where the unit is silent."""
    head = Mlp(2, hidden=1)
    for parameter, number in zip(head.parameters(), ([[2, -1]], [2], [[5]], [0.5]), strict=True):
        parameter.data = torch.tensor(number, dtype=torch.float32)
    assert head(torch.tensor([[1.0, 3.0], [0.0, 3.0]])).tolist() == [5.5, 0.5]


def test_mlp5_by_hand() -> None:
    """Five maps of one unit, each doubling what is above 0: 2 ** 5 * 1.5 = 48, and nothing of a negative number."""
    head = Mlp(1, layers=5, hidden=1)
    for number, parameter in enumerate(head.parameters()):
        parameter.data.fill_(2.0 if number % 2 == 0 else 0.0)
    assert head(torch.tensor([[1.5], [-1.0]])).tolist() == [48.0, 0.0]


@pytest.mark.parametrize(("cell", "gates"), [(torch.nn.GRU, 3), (torch.nn.LSTM, 4)])
def test_recurrent_heads_begin_in_the_imputers_state(cell: type[torch.nn.Module], gates: int) -> None:
    """With every weight of the recurrence 0, its states follow from the first one by hand.

    A GRU halves its state every hour: z = sigmoid(0) = 1/2, n = 0. An LSTM halves its cell state c, begun in the
    same hidden state, and shows sigmoid(0) * tanh(c).
    """
    head = RecurrentHead(cell, 3, 2)
    for parameter in head.recurrence.parameters():
        assert parameter.shape[0] == gates * 3
        parameter.data.zero_()
    hidden_BH = torch.tensor([[0.8, -0.4, 0.0]])
    expected_BH = hidden_BH / 4 if cell is torch.nn.GRU else torch.tanh(hidden_BH / 4) / 2
    torch.testing.assert_close(head(hidden_BH, torch.randn(1, 2, 2)), head.mlp(expected_BH))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("stays", [1, 2, 7])
@pytest.mark.parametrize("hours", [1, 7])
def test_one_logit_per_stay(name: str, stays: int, hours: int) -> None:
    """The logits are (B,), for one stay and one hour too, and a row alone gives what it gives in the batch."""
    torch.manual_seed(0)
    head, given = HEADS[name](6, 4, 0.0).eval(), inputs(name, stays, hours)
    logits = head(*given)
    assert logits.shape == (stays,)
    for row in range(stays):
        torch.testing.assert_close(head(*(each[[row]] for each in given)), logits[[row]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_every_weight_gets_gradient_and_eight_stays_are_overfitted(name: str) -> None:
    """Eight stays with outcomes at random are learnt by heart, and each weight has its share in it."""
    torch.manual_seed(0)
    head, given = HEADS[name](6, 4, 0.0), inputs(name, 8)
    died_B = torch.tensor([0.0, 1, 1, 0, 0, 1, 0, 1])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(*given), died_B)
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())
        optimizer.step()
    assert ((head(*given) > 0) == died_B.bool()).all()


@pytest.mark.parametrize("name", HEADS)
def test_dropout_acts_in_training_alone(name: str) -> None:
    """With dropout 0.5, two passes differ in training and agree in evaluation; without it they always agree."""
    torch.manual_seed(0)
    head, plain, given = HEADS[name](6, 4, 0.5), HEADS[name](6, 4, 0.0), inputs(name, 5)
    assert not torch.equal(head(*given), head(*given))
    assert torch.equal(plain(*given), plain(*given))
    head.eval()
    assert torch.equal(head(*given), head(*given))


def test_every_neural_head_of_the_protocol_can_be_built() -> None:
    """The names that the command line takes are those of the heads."""
    assert set(HEADS) == {head for family in FAMILIES[:2] for head in family.head}
