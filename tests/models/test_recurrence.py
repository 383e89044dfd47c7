import pytest
import torch

from imputune.models.fast_recurrence import recur
from imputune.models.recurrence import Steps, Trace, Weights, one_hour, recur_plainly

pytestmark = pytest.mark.usefixtures("code")

# Hours, directions, stays, variables, hidden size.
SHAPES = [
    (1, 2, 1, 1, 1),
    (1, 2, 3, 2, 4),
    (7, 2, 1, 3, 5),
    (5, 2, 4, 1, 3),
    (5, 2, 4, 3, 1),
    (6, 1, 2, 2, 3),
    (9, 2, 5, 4, 6),
    (3, 2, 11, 17, 20),
]
Inputs = tuple[Steps, Weights, torch.Tensor]


def random_inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Inputs:
    """Draw inputs of the documented shapes; all but the observed mask ask for gradients."""
    T, K, B, D, H = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    observed = (torch.rand((K, T, B, D), generator=generator) < 0.5).double()
    steps = (normal(K, T, B, D) * observed, observed, normal(K, T, B, H).abs(), normal(K, T, B, D))
    off_diagonal = 1 - torch.eye(D, dtype=torch.float64)
    weights = (
        0.5 * normal(K, H, D + 3 * H),
        0.5 * normal(K, D),
        0.5 * normal(K, H),
        0.5 * normal(K, D, D) * off_diagonal,
        0.5 * normal(K, D),
        0.5 * normal(K, 2 * D + 1, 3 * H),
    )
    asked = [tensor.to(dtype).requires_grad_(number != 1) for number, tensor in enumerate((*steps, *weights))]
    return Steps(*asked[:4]), Weights(*asked[4:]), normal(K, B, H).to(dtype).requires_grad_()


def gradients(inputs: Inputs, trace: Trace, outputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Return the gradient of every input, by name, of one random weighting of the named outputs."""
    steps, weights, first_KBH = inputs
    named = {**steps._asdict(), **weights._asdict(), "first_KBH": first_KBH}
    named.pop("observed")
    generator = torch.Generator().manual_seed(99)
    loss = first_KBH.new_zeros(())
    for name in outputs:
        output = getattr(trace, name)
        loss = loss + (output * torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)).sum()
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


def test_one_hour_updates_the_hidden_state_as_torchs_gru_cell() -> None:
    """After one hour, the hidden state is that of a GRU cell on [completed values, observed] and the decayed state."""
    steps, weights, first_KBH = random_inputs((1, 1, 3, 2, 4))
    hour = Steps(*(series[:, 0] for series in steps))
    given = one_hour(hour, weights, first_KBH)
    cell = torch.nn.GRUCell(4, 4, dtype=torch.float64)
    hidden_new, hidden_reset, hidden_update = weights.hidden_KHO[0, :, 2:].split(4, dim=-1)
    with torch.no_grad():
        cell.weight_hh.copy_(torch.cat([hidden_reset, hidden_update, hidden_new], dim=-1).T)
        cell.bias_hh.copy_(torch.cat([torch.zeros(8), weights.new_bias_KH[0]]))
        cell.weight_ih.copy_(weights.input_KIG[0, :-1].T)
        cell.bias_ih.copy_(weights.input_KIG[0, -1])
    completed_BD = torch.where(hour.observed[0] > 0, hour.values[0], given.combined[0])
    expected_BH = cell(torch.cat([completed_BD, hour.observed[0]], dim=-1), first_KBH[0] * torch.exp(-hour.rate[0]))
    torch.testing.assert_close(given.hidden[0], expected_BH, rtol=1e-10, atol=1e-10)


def test_one_hour_estimates_by_hand() -> None:
    """Two variables, one hidden unit of 3 that decays to 2; the second variable is missing.

    History = [2 * 1 + 0.5, 2 * (-1) + 1] = [2.5, -1]. The feature regression reads [4, -1]: [-1 * 2, 4 * 3] + [1, 0] =
    [-1, 12]. With combination weights 0.25 and 0.5, combined = [0.75 * 2.5 - 0.25, 0.5 * -1 + 6] = [1.625, 5.5].
    """

    def numbers(*rows: object) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float64)

    hour = Steps(
        values=numbers([[4, 0]]),
        observed=numbers([[1, 0]]),
        rate=torch.log(numbers([[1.5]])),
        weight=numbers([[0.25, 0.5]]),
    )
    weights = Weights(
        hidden_KHO=numbers([[1, -1, 0, 0, 0]]),
        history_bias_KD=numbers([0.5, 1]),
        new_bias_KH=numbers([0]),
        feature_KDD=numbers([[0, 3], [2, 0]]),
        feature_bias_KD=numbers([1, 0]),
        input_KIG=torch.zeros(1, 5, 3, dtype=torch.float64),
    )
    given = one_hour(hour, weights, numbers([[3]]))
    torch.testing.assert_close(given.history, numbers([[2.5, -1]]))
    torch.testing.assert_close(given.combined, numbers([[1.625, 5.5]]))
    torch.testing.assert_close(given.hidden, numbers([[1]]))  # half of the new gate, 0, and half of the decayed state


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_forward_equals_the_plain_recurrence(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    """All three outputs are those of the plain recurrence, in their documented shapes and the inputs' dtype."""
    T, K, B, D, H = shape
    inputs = random_inputs(shape, dtype)
    trace, expected = recur(*inputs), recur_plainly(*inputs)
    for name, output in trace._asdict().items():
        assert output.shape == ((K, T, B, H) if name == "hidden" else (K, T, B, D)), name
        torch.testing.assert_close(output, getattr(expected, name), rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_equal_autograd(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    """With every output used, the hand-written backward pass gives each input autograd's gradient."""
    inputs = random_inputs(shape, dtype)
    ours = gradients(inputs, recur(*inputs), Trace._fields)
    autograd = gradients(inputs, recur_plainly(*inputs), Trace._fields)
    for name, gradient in autograd.items():
        error = float((ours[name] - gradient).abs().max())
        assert error <= tolerance * max(1.0, float(gradient.abs().max())), name


@pytest.mark.parametrize(
    "outputs",
    [*((name,) for name in Trace._fields), ("combined", "hidden"), ("history", "combined")],
)
def test_unused_outputs_leave_the_gradients_right(outputs: tuple[str, ...]) -> None:
    """A loss over some outputs alone gives autograd's gradients too, the values' included."""
    inputs = random_inputs((6, 2, 3, 4, 5))
    ours = gradients(inputs, recur(*inputs), outputs)
    autograd = gradients(inputs, recur_plainly(*inputs), outputs)
    assert ours["values"].abs().max() > 0
    for name, gradient in autograd.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-10, atol=1e-10, msg=name)


def test_last_hidden_state_alone_gives_right_gradients() -> None:
    """A loss on the last hour's hidden state alone has autograd's gradients through all hours."""
    inputs = random_inputs((6, 2, 3, 4, 5))
    asked = [inputs[0].values, *inputs[1], inputs[2]]
    ours, autograd = (
        torch.autograd.grad(run(*inputs).hidden[:, -1].square().sum(), asked) for run in (recur, recur_plainly)
    )
    for mine, theirs in zip(ours, autograd, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(3, 2, 2, 2, 3), (1, 2, 1, 1, 1)])
def test_gradcheck(shape: tuple[int, ...]) -> None:
    """Finite differences agree with the backward pass for every input, the values included."""
    steps, weights, first_KBH = random_inputs(shape)

    def outputs(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(recur(Steps(*tensors[:4]), Weights(*tensors[4:10]), tensors[10]))

    assert torch.autograd.gradcheck(outputs, (*steps, *weights, first_KBH))


def test_values_without_gradient_leave_the_others_right() -> None:
    """If the values need no gradient, as in training, the weights still get theirs."""
    steps, weights, first_KBH = random_inputs((4, 2, 3, 2, 3))
    constant = steps._replace(values=steps.values.detach())
    for ours, expected in zip(
        torch.autograd.grad(recur(constant, weights, first_KBH).hidden.sum(), list(weights)),
        torch.autograd.grad(recur_plainly(steps, weights, first_KBH).hidden.sum(), list(weights)),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_backward_pass_can_run_twice() -> None:
    """A second backward pass over a retained graph gives the first one's gradients again."""
    inputs = random_inputs((4, 2, 3, 2, 3))
    loss = recur(*inputs).hidden.square().sum()
    first, second = (torch.autograd.grad(loss, list(inputs[1]), retain_graph=True) for _ in range(2))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(first, second, strict=True))


def test_directions_do_not_mix() -> None:
    """Changing the backward direction's inputs and weights leaves the forward direction bit-equal."""
    steps, weights, first_KBH = random_inputs((5, 2, 3, 2, 4))
    other_steps, other_weights, other_first = random_inputs((5, 2, 3, 2, 4), seed=1)
    mixed = recur(
        Steps(*(torch.stack([a[0], b[1]]) for a, b in zip(steps, other_steps, strict=True))),
        Weights(*(torch.stack([a[0], b[1]]) for a, b in zip(weights, other_weights, strict=True))),
        torch.stack([first_KBH[0], other_first[1]]),
    )
    for name, output in recur(steps, weights, first_KBH)._asdict().items():
        assert torch.equal(getattr(mixed, name)[0], output[0]), name
        assert not torch.equal(getattr(mixed, name)[1], output[1]), name
