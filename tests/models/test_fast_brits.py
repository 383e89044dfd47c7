"""BRITS's recurrence; tests/models/test_faster_pypots.py compares it with PyPOTS's."""

import pytest
import torch

from imputune.models.fast_brits import Hours, Weights, recur


def random_inputs(T: int, B: int, D: int, H: int) -> tuple[torch.Tensor, ...]:
    """Draw inputs of the documented shapes for two directions; all but `missing` ask for gradients."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(2, *size, generator=generator, dtype=torch.float64)

    missing = (normal(T, B, D) > 0).double()
    hours = Hours(normal(T, B, D) * (1 - missing), missing, normal(T, B, H).abs(), normal(T, B, D).sigmoid())
    weights = Weights(normal(H, D + 4 * H), normal(D), normal(D, D), normal(D), normal(2 * D + 1, 4 * H))
    return tuple(tensor.requires_grad_(tensor is not missing) for tensor in (*hours, *weights))


def recurred(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the three estimates and the last hidden states."""
    estimates, hidden_KBH = recur(Hours(*tensors[:4]), Weights(*tensors[4:]), tensors[2].shape[-1])
    return *estimates, hidden_KBH


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 2, 2, 2)])
def test_gradients_are_those_of_finite_differences(shape: tuple[int, int, int, int]) -> None:
    """`gradcheck` also tries losses that read only some of the results."""
    assert torch.autograd.gradcheck(recurred, random_inputs(*shape))


def test_without_gradients_the_results_are_the_same_bits() -> None:
    """Without a backward pass, every hour overwrites what the hour before it left in memory."""
    inputs = random_inputs(4, 3, 2, 5)
    expected = recurred(*inputs)
    found = recurred(*(tensor.detach() for tensor in inputs))
    assert all(torch.equal(each, other) for each, other in zip(found, expected, strict=True))
