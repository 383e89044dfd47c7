import pytest
import torch

from imputune.models.recurrence import (
    Steps,
    Trace,
    Weights,
    recur,
)

# Hours, readings, stays, variables, hidden width.
SHAPES = [
    (1, 2, 1, 1, 1),
    (1, 2, 3, 2, 4),
    (7, 2, 1, 3, 5),
    (5, 2, 4, 1, 3),
    (5, 2, 4, 3, 1),
    (6, 1, 2, 2, 3),
    (9, 2, 5, 4, 6),
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


def recur_in_steps(steps: Steps, weights: Weights, first_KBH: torch.Tensor) -> Trace:
    """Run the formulas in the docstring of `recur` hour by hour, one reading at a time, gradients left to torch."""
    K, T, B, D = steps.values_KTBD.shape
    H = first_KBH.shape[-1]
    readings = []
    for k in range(K):
        h, hours = first_KBH[k], []
        for t in range(T):
            x, o, rate, w = (tensor[k, t] for tensor in steps)
            d = torch.exp(-rate) * h
            p_history, p_new, p_reset, p_update = torch.split(d @ weights.hidden_KHO[k], [D, H, H, H], dim=-1)
            history = p_history + weights.history_bias_KD[k]
            f = (x + (1 - o) * history) @ weights.feature_KDD[k] + weights.feature_bias_KD[k]
            c = (1 - w) * history + w * f
            inputs = torch.cat([x + (1 - o) * c, o, torch.ones(B, 1).to(x)], dim=-1)
            q_reset, q_update, q_new = torch.split(inputs @ weights.input_KIG[k], [H, H, H], dim=-1)
            r, z = torch.sigmoid(q_reset + p_reset), torch.sigmoid(q_update + p_update)
            n = torch.tanh(q_new + r * (p_new + weights.new_bias_KH[k]))
            h = (1 - z) * n + z * d
            hours.append((history, c, h))
        readings.append([torch.stack(series) for series in zip(*hours, strict=True)])
    return Trace(*(torch.stack(series) for series in zip(*readings, strict=True)))


def gradients(inputs: Inputs, trace: Trace, outputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Return the gradient of every input, by name, of one random weighting of the named outputs."""
    steps, weights, first_KBH = inputs
    named = {**steps._asdict(), **weights._asdict(), "first_KBH": first_KBH}
    named.pop("observed_KTBD")
    generator = torch.Generator().manual_seed(99)
    loss = first_KBH.new_zeros(())
    for name in outputs:
        output = getattr(trace, name)
        loss = loss + (output * torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)).sum()
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_forward_equals_the_formulas(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    """All three outputs are what the formulas give, in their documented shapes and the inputs' dtype."""
    T, K, B, D, H = shape
    inputs = random_inputs(shape, dtype)
    trace, expected = recur(*inputs), recur_in_steps(*inputs)
    for name, output in trace._asdict().items():
        assert output.shape == ((K, T, B, H) if name == "hidden_KTBH" else (K, T, B, D)), name
        torch.testing.assert_close(output, getattr(expected, name), rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_equal_autograd(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    """With every output used, the hand-written backward pass gives each input autograd's gradient."""
    inputs = random_inputs(shape, dtype)
    ours = gradients(inputs, recur(*inputs), Trace._fields)
    autograd = gradients(inputs, recur_in_steps(*inputs), Trace._fields)
    for name, gradient in autograd.items():
        torch.testing.assert_close(
            ours[name], gradient, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    "outputs",
    [*((name,) for name in Trace._fields), ("combined_KTBD", "hidden_KTBH"), ("history_KTBD", "combined_KTBD")],
)
def test_unused_outputs_leave_the_gradients_right(outputs: tuple[str, ...]) -> None:
    """A loss over some outputs alone gives autograd's gradients too, the values' included."""
    inputs = random_inputs((6, 2, 3, 4, 5))
    ours = gradients(inputs, recur(*inputs), outputs)
    autograd = gradients(inputs, recur_in_steps(*inputs), outputs)
    assert ours["values_KTBD"].abs().max() > 0
    for name, gradient in autograd.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-10, atol=1e-10, msg=name)


def test_last_hidden_state_alone_gives_right_gradients() -> None:
    """A head that reads the last hour alone sends autograd's gradients back through all hours."""
    inputs = random_inputs((6, 2, 3, 4, 5))
    asked = [inputs[0].values_KTBD, *inputs[1], inputs[2]]
    ours, autograd = (
        torch.autograd.grad(run(*inputs).hidden_KTBH[:, -1].square().sum(), asked) for run in (recur, recur_in_steps)
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
    """Where values need no gradient, as in training, the weights get theirs all the same."""
    steps, weights, first_KBH = random_inputs((4, 2, 3, 2, 3))
    constant = steps._replace(values_KTBD=steps.values_KTBD.detach())
    for ours, expected in zip(
        torch.autograd.grad(recur(constant, weights, first_KBH).hidden_KTBH.sum(), list(weights)),
        torch.autograd.grad(recur_in_steps(steps, weights, first_KBH).hidden_KTBH.sum(), list(weights)),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_backward_pass_can_run_twice() -> None:
    """A second backward pass over a retained graph gives the first one's gradients again."""
    inputs = random_inputs((4, 2, 3, 2, 3))
    loss = recur(*inputs).hidden_KTBH.square().sum()
    first, second = (torch.autograd.grad(loss, list(inputs[1]), retain_graph=True) for _ in range(2))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(first, second, strict=True))


def test_readings_do_not_mix() -> None:
    """Changing the backward reading's inputs and weights leaves the forward reading bit-equal."""
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
