"""CSAI's recurrence over the hours, both readings at once, with a hand-written backward pass.

Letters: K the two readings, T hours, B stays, D variables, H hidden. All hours of a reading lie together, so that a
weight's gradient is one product over hours and stays without a copy.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input


class Steps(NamedTuple):
    """What the recurrence reads at each hour, all of it known before the first step.

    values_KTBD: standardised, 0 where not observed. observed_KTBD: 0/1. rate_KTBH: how fast the hidden state decays,
    at least 0; the decay is exp(-rate). weight_KTBD: share of the feature regression in the combination.
    """

    values_KTBD: torch.Tensor
    observed_KTBD: torch.Tensor
    rate_KTBH: torch.Tensor
    weight_KTBD: torch.Tensor


class Weights(NamedTuple):
    """The recurrence's weights, one matrix per reading, applied from the right (x @ W).

    hidden_KHO (K, H, D + 3H): from the decayed hidden state to the history regression (D), then the GRU's new, reset
    and update gates (H each). history_bias_KD, new_bias_KH: the biases of its first two parts. feature_KDD,
    feature_bias_KD: the feature regression, its diagonal zero. input_KIG (K, 2D + 1, 3H): from [completed values,
    observed, 1] to the gates reset, update, new; its last row holds every other bias of the gates.
    """

    hidden_KHO: torch.Tensor
    history_bias_KD: torch.Tensor
    new_bias_KH: torch.Tensor
    feature_KDD: torch.Tensor
    feature_bias_KD: torch.Tensor
    input_KIG: torch.Tensor


class Trace(NamedTuple):
    """What the recurrence leaves: two estimates of every cell (K, T, B, D) and the hidden states (K, T, B, H)."""

    history_KTBD: torch.Tensor
    combined_KTBD: torch.Tensor
    hidden_KTBH: torch.Tensor


def recur(steps: Steps, weights: Weights, first_KBH: torch.Tensor) -> Trace:
    """Run the recurrence over all hours of both readings.

    With h the hidden state before hour t, x the values, o the observed mask, and g = exp(-rate) and w
    the hour's decay and combination weight, one hour is

        d = g * h                                 decayed hidden state
        p = d W_h + b_h                           = [history, new, reset, update]; b_h = 0 for the last two
        f = (x + (1 - o) history) W_f + b_f       feature regression, zero diagonal
        c = (1 - w) history + w f                 learned combination
        q = [x + (1 - o) c, o, 1] W_i             = [reset, update, new]
        r = sigmoid(q_r + p_r);  z = sigmoid(q_z + p_z);  n = tanh(q_n + r p_n)
        h' = (1 - z) n + z d

    Backward, writing G_v for the gradient of v and starting from G_h' = its outside part + what hour t+1 sent back:

        G_n* = G_h' (1 - z)(1 - n^2);  G_z* = G_h' (d - n) z (1 - z);  G_r* = G_n* p_n r (1 - r)
        G_q = [G_r*, G_z*, G_n*]
        G_c += (1 - o) (G_q W_x');  G_f = w G_c;  G_history += (1 - w) G_c + (1 - o) (G_f W_f')
        G_p = [G_history, r G_n*, G_r*, G_z*]
        G_d = z G_h' + G_p W_h';  G_rate = -d G_d;  G_h = g G_d

    where * marks a gate before its squashing, ' on a matrix its transpose, and W_x the rows of W_i for the completed
    values. Only this chain runs hour by hour; every weight's gradient is one product over all hours after it, and so
    are those of the inputs.

    Shapes: see `Steps`, `Weights` and `Trace`; first_KBH (K, B, H) is the state before the first hour. All share one
    floating dtype. The observed mask gets no gradient.

    Source: CSAI (arXiv 2312.16713) and BRITS (Cao et al. 2018), equations of the recurrent component.
    """
    return Trace(*_Recurrence.apply(*steps, *weights, first_KBH))


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        steps, weights, first_KBH = Steps(*tensors[:4]), Weights(*tensors[4:10]), tensors[10]
        K, T, B, D = steps.values_KTBD.shape
        H = first_KBH.shape[-1]
        new_empty = first_KBH.new_empty
        history, feature, combined = (new_empty(K, T, B, D) for _ in range(3))
        decayed, new_projected, new, hidden = (new_empty(K, T, B, H) for _ in range(4))
        reset_update, inputs = new_empty(K, T, B, 2 * H), new_empty(K, T, B, 2 * D + 1)
        inputs[..., D:-1] = steps.observed_KTBD
        inputs[..., -1] = 1
        history_bias, new_bias, feature_bias = (
            bias[:, None] for bias in (weights.history_bias_KD, weights.new_bias_KH, weights.feature_bias_KD)
        )
        p = new_empty(K, B, D + 3 * H)
        p_history, p_new, p_reset_update = p.split([D, H, 2 * H], dim=-1)
        h = first_KBH
        # i is [completed values, o, 1] and rz is [r, z]; what the backward pass needs is written where it stays.
        for hour in _by_hour(
            *(steps.values_KTBD, 1 - steps.observed_KTBD, steps.rate_KTBH, steps.weight_KTBD),
            *(inputs, inputs[..., :D], history, feature, combined, decayed, new_projected),
            *(reset_update, *reset_update.split(H, dim=-1), new, hidden),
        ):
            x, missing, rate, w = hour[:4]
            i, completed, history_t, f, c, d, p_n, rz, r, z, n, h_next = hour[4:]
            torch.mul(h, rate.neg().exp_(), out=d)  # the exponential here, not for all hours: it stays in the cache
            torch.bmm(d, weights.hidden_KHO, out=p)
            torch.add(p_history, history_bias, out=history_t)
            torch.add(p_new, new_bias, out=p_n)
            f.copy_(torch.baddbmm(feature_bias, torch.addcmul(x, missing, history_t), weights.feature_KDD))
            torch.lerp(history_t, f, w, out=c)
            torch.addcmul(x, missing, c, out=completed)
            q = torch.bmm(i, weights.input_KIG)
            torch.add(q[..., : 2 * H], p_reset_update, out=rz).sigmoid_()
            torch.addcmul(q[..., 2 * H :], r, p_n, out=n).tanh_()
            h = torch.lerp(n, d, z, out=h_next)
        ctx.save_for_backward(*tensors, history, feature, inputs, decayed, new_projected, reset_update, new)
        ctx.set_materialize_grads(False)
        return history, combined, hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outside: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        steps, weights, first_KBH = Steps(*saved[:4]), Weights(*saved[4:10]), saved[10]
        history, feature, inputs, decayed, new_projected, reset_update, new = saved[11:]
        K, T, B, D = steps.values_KTBD.shape
        H = first_KBH.shape[-1]
        outside_history, outside_combined, outside_hidden = (
            [None] * T if grad is None else grad.unbind(1) for grad in outside
        )
        hidden_KOH, feature_KDD, input_KGD = (
            matrix.transpose(1, 2).contiguous()
            for matrix in (weights.hidden_KHO, weights.feature_KDD, weights.input_KIG[:, :D])
        )
        missing_KTBD = 1 - steps.observed_KTBD
        reset, update = reset_update.split(H, dim=-1)
        # One buffer [history, r new*, reset*, update*, new*] holds G_p (its first D + 3H) and G_q (its last 3H).
        gates = first_KBH.new_empty(K, T, B, D + 4 * H)
        G_p, G_q = gates[..., : D + 3 * H], gates[..., D + H :]
        G_combined, G_feature, G_rate = torch.empty_like(history), torch.empty_like(history), torch.empty_like(decayed)
        by_hour = _by_hour(
            *(missing_KTBD, steps.rate_KTBH, steps.weight_KTBD, decayed, new_projected, reset, update, new),
            *(*gates.split([D, H, H, H, H], dim=-1), G_p, G_q, G_combined, G_feature, G_rate),
        )
        G_h = torch.zeros_like(first_KBH)
        for t, hour in reversed(list(enumerate(by_hour))):
            missing, rate, w, d, p_n, r, z, n = hour[:8]
            g_history, g_gated, g_reset, g_update, g_new, g_p, g_q, g_c, g_f, g_rate = hour[8:]
            if (given := outside_hidden[t]) is not None:
                G_h = G_h + given
            kept = G_h * z
            tanh_backward(G_h - kept, n, grad_input=g_new)
            sigmoid_backward((d - n).mul_(G_h), z, grad_input=g_update)
            sigmoid_backward(g_new * p_n, r, grad_input=g_reset)
            torch.mul(g_new, r, out=g_gated)

            torch.mul(missing, torch.bmm(g_q, input_KGD), out=g_c)
            if (given := outside_combined[t]) is not None:
                g_c += given
            torch.mul(g_c, w, out=g_f)
            torch.addcmul(g_c - g_f, missing, torch.bmm(g_f, feature_KDD), out=g_history)
            if (given := outside_history[t]) is not None:
                g_history += given

            g_d = kept.baddbmm_(g_p, hidden_KOH)
            torch.mul(g_d, d, out=g_rate).neg_()
            G_h = g_d.mul_(rate.neg().exp_())

        G_values = None
        if ctx.needs_input_grad[0]:
            G_values = G_q @ input_KGD[:, None] + G_feature @ feature_KDD[:, None]
        return (
            G_values,
            None,
            G_rate,
            G_combined.mul_(feature - history),
            _over_hours(decayed, G_p),
            gates[..., :D].sum(dim=(1, 2)),
            gates[..., D : D + H].sum(dim=(1, 2)),
            _over_hours(torch.addcmul(steps.values_KTBD, missing_KTBD, history), G_feature),
            G_feature.sum(dim=(1, 2)),
            _over_hours(inputs, G_q),
            G_h,
        )


def _by_hour(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Go through the hours of tensors (K, T, ...) together."""
    return zip(*(tensor.unbind(1) for tensor in tensors), strict=True)


def _over_hours(left_KTBI: torch.Tensor, right_KTBJ: torch.Tensor) -> torch.Tensor:
    """Sum left' @ right over hours and stays, one product per reading; (K, I, J) out."""
    return torch.bmm(left_KTBI.flatten(1, 2).transpose(1, 2), right_KTBJ.flatten(1, 2))
