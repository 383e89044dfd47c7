import pytest
import torch

from imputune.models import attention
from imputune.models.attention import attend

pytestmark = pytest.mark.usefixtures("code")

# Stays, tokens, variables, heads, channels of a head; the fifth fills more than one block of matrices, and the last
# three more than one vector of compiled code; 98 tokens are three blocks of its queries.
SHAPES = [
    (1, 1, 1, 1, 1),
    (3, 5, 2, 2, 3),
    (2, 7, 4, 1, 2),
    (1, 4, 3, 3, 1),
    (7, 3, 2, 5, 2),
    (2, 98, 5, 2, 4),
    (3, 40, 7, 2, 8),
    (2, 16, 3, 3, 16),
    (2, 60, 3, 2, 16),
    (1, 70, 3, 2, 2),
]
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def random_inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, size: float = 1.0) -> Inputs:
    """Draw tokens, maps and places of the documented shapes, `size` times standard normal; all require gradients."""
    B, S, D, A, d = shape
    generator = torch.Generator().manual_seed(0)
    sizes = [(B, S, D), (3, A, d, D), (3, A, d, S)]
    drawn = (size * torch.randn(each, generator=generator, dtype=torch.float64) for each in sizes)
    tokens, maps, places = (each.to(dtype).requires_grad_() for each in drawn)
    return tokens, maps, places


def attend_plainly(tokens_BSD: torch.Tensor, maps_3AdD: torch.Tensor, places_3AdS: torch.Tensor) -> torch.Tensor:
    """Attend by the formulas in the docstring of `attend`; autograd gives the gradients."""
    queries, keys, values = torch.einsum("padv,bsv->pbads", maps_3AdD, tokens_BSD) + places_3AdS[:, None]
    weights = torch.softmax(torch.einsum("badk,badq->bakq", keys, queries), dim=-2)
    return torch.einsum("badk,bakq->badq", values, weights).flatten(1, 2)


def gradients(inputs: Inputs, output: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the gradients of all inputs, of one random weighting of the output."""
    weighting = torch.randn(output.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return torch.autograd.grad((output * weighting.to(output)).sum(), inputs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_equals_the_formulas(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    """The output has its documented shape; it and all gradients are those of the formulas and autograd."""
    B, S, _, A, d = shape
    inputs = random_inputs(shape, dtype, size=0.4)
    ours, expected = attend(*inputs), attend_plainly(*inputs)
    assert ours.shape == (B, A * d, S)
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    for mine, autograd in zip(gradients(inputs, ours), gradients(inputs, expected), strict=True):
        torch.testing.assert_close(mine, autograd, rtol=tolerance, atol=tolerance * float(autograd.abs().max()))


def test_gradcheck() -> None:
    """Finite differences agree with the backward pass for every input."""
    assert torch.autograd.gradcheck(attend, random_inputs((2, 3, 2, 2, 2)))


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_too_large_for_an_exponential(sign: int) -> None:
    """With scores of hundreds, or far below 0 in every place, output and gradients are finite and right."""
    tokens, maps, places = random_inputs((3, 5, 2, 2, 4), torch.float32)
    with torch.no_grad():
        maps[:2] *= 0.1
        places[0] = 12.0
        places[1] = sign * 8.0
    inputs = (tokens, maps, places)
    queries, keys, _ = torch.einsum("padv,bsv->pbads", maps, tokens) + places[:, None]
    scores = sign * torch.einsum("badk,badq->bakq", keys, queries)
    assert scores.min() > 200
    ours, expected = attend(*inputs), attend_plainly(*inputs)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    for mine, autograd in zip(gradients(inputs, ours), gradients(inputs, expected), strict=True):
        torch.testing.assert_close(mine, autograd, rtol=1e-3, atol=1e-3 * float(autograd.abs().max()))


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computing one matrix at a time gives what all at once give."""
    inputs = random_inputs(SHAPES[4])
    expected = attend(*inputs)
    monkeypatch.setattr(attention, "MATRICES_AT_ONCE", 1)
    torch.testing.assert_close(attend(*inputs), expected, rtol=0, atol=1e-12)


def test_stays_do_not_mix() -> None:
    """A stay's output does not depend on the other stays of the batch."""
    tokens, maps, places = random_inputs((4, 5, 3, 2, 2))
    alone = attend(tokens[1:2], maps, places)
    torch.testing.assert_close(attend(tokens, maps, places)[1:2], alone, rtol=0, atol=1e-12)
