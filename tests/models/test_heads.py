import pytest
import torch

from imputune.models.heads import HEADS, Mlp2


def test_mlp2_has_the_papers_parameter_count() -> None:
    """mlp2 on 108 numbers has 108 * 128 + 128 + 128 + 1 = 14,081 parameters, all trainable."""
    parameters = list(Mlp2(108).parameters())
    assert sum(parameter.numel() for parameter in parameters) == 14_081
    assert all(parameter.requires_grad for parameter in parameters)


def test_mlp2_by_hand() -> None:
    """One hidden unit: relu(2 * 1 - 1 * 3 + 2) * 5 + 0.5 = 5.5, and 0.5 where the unit is silent."""
    head = Mlp2(2, hidden=1)
    for parameter, number in zip(head.parameters(), ([[2, -1]], [2], [[5]], [0.5]), strict=True):
        parameter.data = torch.tensor(number, dtype=torch.float32)
    assert head(torch.tensor([[1.0, 3.0], [0.0, 3.0]])).tolist() == [5.5, 0.5]


@pytest.mark.parametrize("stays", [1, 2, 7])
def test_one_logit_per_stay(stays: int) -> None:
    """The logits are (B,), for one stay too, and a row alone gives what it gives in the batch."""
    torch.manual_seed(0)
    head, representation_BH = Mlp2(6).eval(), torch.randn(stays, 6)
    logits = head(representation_BH)
    assert logits.shape == (stays,)
    for row, logit in zip(representation_BH, logits, strict=True):
        torch.testing.assert_close(head(row[None]), logit[None], rtol=0, atol=1e-6)


def test_dropout_acts_in_training_alone() -> None:
    """With dropout 0.5, two passes differ in training and agree in evaluation; without it they always agree."""
    torch.manual_seed(0)
    head, plain, representation_BH = Mlp2(6, dropout=0.5), Mlp2(6), torch.randn(5, 6)
    assert not torch.equal(head(representation_BH), head(representation_BH))
    assert torch.equal(plain(representation_BH), plain(representation_BH))
    head.eval()
    assert torch.equal(head(representation_BH), head(representation_BH))


def test_mlp2_is_registered() -> None:
    """The name of the command line leads to the class."""
    assert HEADS["mlp2"] is Mlp2
