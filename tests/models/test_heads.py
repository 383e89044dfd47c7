import pytest
import torch

from imputune.models.heads import (
    HEAD_BUILDERS,
    RECORD_HEAD_BUILDERS,
    HeadSizes,
    Mlp,
    RecordMlp,
    RecurrentHead,
    build_head,
)
from imputune.protocol.variants import FAMILIES

# With hidden size 108, 35 variables and MLP width 128.
COUNTS = {"mlp2": 14_081, "mlp5": 63_617, "lstm": 76_721, "gru": 61_061}


def build(name: str, dropout: float = 0.0) -> torch.nn.Module:
    """Build a head on a hidden state of 6 numbers and 4 variables."""
    return HEAD_BUILDERS[name](HeadSizes(input_size=6, variables=4, mlp_width=128, dropout=dropout))


def small(input_size: int, mlp_width: int = 1) -> HeadSizes:
    """Return the sizes of a head without dropout, for series of two variables."""
    return HeadSizes(input_size=input_size, variables=2, mlp_width=mlp_width)


def inputs(name: str, stays: int, hours: int = 7, width: int = 6, variables: int = 4) -> tuple[torch.Tensor, ...]:
    """Return random inputs of a head, (B, H) and for a recurrent one (B, T, D)."""
    series = (torch.randn(stays, hours, variables),) if name in ("lstm", "gru") else ()
    return torch.randn(stays, width), *series


@pytest.mark.parametrize("name", HEAD_BUILDERS)
def test_parameter_counts(name: str) -> None:
    """The heads have the paper's parameter counts. It gives none for mlp5, which has 13,952 + 3 * 16,512 + 129."""
    head = HEAD_BUILDERS[name](HeadSizes(input_size=108, variables=35, mlp_width=128))
    parameters = list(head.parameters())
    assert sum(parameter.numel() for parameter in parameters) == COUNTS[name]
    assert all(parameter.requires_grad for parameter in parameters)


def test_mlp2_by_hand() -> None:
    """One hidden unit: relu(2 * 1 - 1 * 3 + 2) * 5 + 0.5 = 5.5, and 0.5 where the unit gives 0."""
    head = Mlp(small(2))
    for parameter, number in zip(head.parameters(), ([[2, -1]], [2], [[5]], [0.5]), strict=True):
        parameter.data = torch.tensor(number, dtype=torch.float32)
    assert head(torch.tensor([[1.0, 3.0], [0.0, 3.0]])).tolist() == [5.5, 0.5]


def test_mlp5_by_hand() -> None:
    """Five layers of one unit, each doubling what is above 0: 2 ** 5 * 1.5 = 48; a negative number gives 0."""
    head = Mlp(small(1), layers=5)
    for number, parameter in enumerate(head.parameters()):
        parameter.data.fill_(2.0 if number % 2 == 0 else 0.0)
    assert head(torch.tensor([[1.5], [-1.0]])).tolist() == [48.0, 0.0]


@pytest.mark.parametrize(("cell", "gates"), [(torch.nn.GRU, 3), (torch.nn.LSTM, 4)])
def test_recurrent_heads_start_from_the_imputers_state(cell: type[torch.nn.Module], gates: int) -> None:
    """With every weight of the recurrence 0, its states can be computed by hand from the first one.

    A GRU halves its state every hour: z = sigmoid(0) = 1/2, n = 0. An LSTM halves its cell state c, which starts from
    the same hidden state, and its output is sigmoid(0) * tanh(c).
    """
    head = RecurrentHead(cell, small(3, mlp_width=128))
    for parameter in head.recurrence.parameters():
        assert parameter.shape[0] == gates * 3
        parameter.data.zero_()
    hidden_BH = torch.tensor([[0.8, -0.4, 0.0]])
    expected_BH = hidden_BH / 4 if cell is torch.nn.GRU else torch.tanh(hidden_BH / 4) / 2
    torch.testing.assert_close(head(hidden_BH, torch.randn(1, 2, 2)), head.mlp(expected_BH))


@pytest.mark.parametrize("name", HEAD_BUILDERS)
@pytest.mark.parametrize("stays", [1, 2, 7])
@pytest.mark.parametrize("hours", [1, 7])
def test_one_logit_per_stay(name: str, stays: int, hours: int) -> None:
    """The logits are (B,), for one stay and one hour too, and a stay alone has the logit that it has in the batch."""
    torch.manual_seed(0)
    head, given = build(name).eval(), inputs(name, stays, hours)
    logits = head(*given)
    assert logits.shape == (stays,)
    for row in range(stays):
        torch.testing.assert_close(head(*(each[[row]] for each in given)), logits[[row]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", HEAD_BUILDERS)
def test_every_weight_gets_gradient_and_eight_stays_are_overfitted(name: str) -> None:
    """Eight stays with random outcomes are all classified correctly after training, and each weight gets gradient."""
    torch.manual_seed(0)
    head, given = build(name), inputs(name, 8)
    outcome_B = torch.tensor([0.0, 1, 1, 0, 0, 1, 0, 1])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(*given), outcome_B)
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())
        optimizer.step()
    assert ((head(*given) > 0) == outcome_B.bool()).all()


@pytest.mark.parametrize("name", HEAD_BUILDERS)
def test_dropout_acts_in_training_alone(name: str) -> None:
    """With dropout 0.5, two passes differ in training and agree in evaluation; without it they always agree."""
    torch.manual_seed(0)
    head, plain, given = build(name, dropout=0.5), build(name), inputs(name, 5)
    assert not torch.equal(head(*given), head(*given))
    assert torch.equal(plain(*given), plain(*given))
    head.eval()
    assert torch.equal(head(*given), head(*given))


def test_every_neural_head_of_the_protocol_can_be_built() -> None:
    """There is a builder for every neural head of the protocol, and no other."""
    assert set(HEAD_BUILDERS) == {head for family in FAMILIES[:2] for head in family.head}


def with_record(name: str, stays: int, **sizes: float) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """Return a head that reads five record features too, and random inputs of it."""
    head = build_head(name, HeadSizes(input_size=6, variables=4, mlp_width=128, record=5, **sizes))  # type: ignore[arg-type]
    return head, (*inputs(name, stays), torch.randn(stays, 5))


@pytest.mark.parametrize("name", RECORD_HEAD_BUILDERS)
def test_heads_that_read_record_features(name: str) -> None:
    """One logit a stay, alone as in a batch; every weight gets gradient; eight stays are overfitted."""
    torch.manual_seed(0)
    head, given = with_record(name, 8)
    logits = head.eval()(*given)
    assert logits.shape == (8,)
    for row in range(8):
        torch.testing.assert_close(head(*(each[[row]] for each in given)), logits[[row]], rtol=0, atol=1e-6)
    outcome_B = torch.tensor([0.0, 1, 1, 0, 0, 1, 0, 1])
    optimizer = torch.optim.Adam(head.train().parameters(), lr=0.01)
    for step in range(150):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(head(*given), outcome_B).backward()
        gradients = [parameter.grad for parameter in head.parameters()]
        assert step or all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
        optimizer.step()
    assert ((head(*given) > 0) == outcome_B.bool()).all()


@pytest.mark.parametrize("name", RECORD_HEAD_BUILDERS)
def test_dropout_of_record_features(name: str) -> None:
    """Input dropout acts on the record features in training alone."""
    torch.manual_seed(0)
    head, given = with_record(name, 4, input_dropout=0.5)
    assert not torch.equal(head(*given), head(*given))
    head.eval()
    assert torch.equal(head(*given), head(*given))


def test_record_mlp_by_hand() -> None:
    """The hidden state (3, 1) becomes (1, -1) by LayerNorm; one unit: relu(2 * 1 + 3 * -1 + 4 * 1.5 - 1) * 2 = 8."""
    head = RecordMlp(HeadSizes(input_size=2, variables=2, mlp_width=1, record=1))
    for parameter, number in zip(head.mlp.parameters(), ([[2, 3, 4]], [-1], [[2]], [0]), strict=True):
        parameter.data = torch.tensor(number, dtype=torch.float32)
    torch.testing.assert_close(
        head(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.5]])), torch.tensor([8.0]), rtol=0, atol=1e-4
    )
