"""CSAI's recurrence over the hours, both readings at once, with a hand-written backward pass.

Letters: T hours, K the two readings, B stays, D variables, H hidden. Time comes first, so that an hour is one slice.
"""

from typing import Any, NamedTuple

import torch
from torch.autograd.function import FunctionCtx, once_differentiable


class Steps(NamedTuple):
    """What the recurrence reads at each hour, all of it known before the first step.

    values_TKBD: standardised, 0 where not observed. missing_TKBD: 1 - observed. decay_TKBH: the temporal decay of
    the hidden state. weight_TKBD: share of the feature regression in the combination. gates_TKBG: the observed
    mask's part of the GRU input, bias included, gates in the order reset, update, new (G = 3H).
    """

    values_TKBD: torch.Tensor
    missing_TKBD: torch.Tensor
    decay_TKBH: torch.Tensor
    weight_TKBD: torch.Tensor
    gates_TKBG: torch.Tensor


class Weights(NamedTuple):
    """The recurrence's weights, one matrix per reading, applied from the right (x @ W).

    hidden_KHO (K, H, D + 3H) and hidden_bias_KO: from the decayed hidden state to the history regression (D), then
    the GRU's new, reset and update gates (H each). feature_KDD, feature_bias_KD: the feature regression, its
    diagonal zero. input_KDG: from the completed values to the gates reset, update, new.
    """

    hidden_KHO: torch.Tensor
    hidden_bias_KO: torch.Tensor
    feature_KDD: torch.Tensor
    feature_bias_KD: torch.Tensor
    input_KDG: torch.Tensor


class Trace(NamedTuple):
    """What the recurrence leaves: three estimates of every cell (T, K, B, D) and the hidden states (T, K, B, H)."""

    history_TKBD: torch.Tensor
    feature_TKBD: torch.Tensor
    combined_TKBD: torch.Tensor
    hidden_TKBH: torch.Tensor


def recur(steps: Steps, weights: Weights, first_KBH: torch.Tensor) -> Trace:
    """Run the recurrence over all hours of both readings.

    With h the hidden state before hour t, x the values, o the observed mask, and g, w, u the hour's decay,
    combination weight and mask gates, one hour is

        d = g * h                                 decayed hidden state
        p = d W_h + b_h                           = [history, new, reset, update]
        f = (x + (1 - o) history) W_f + b_f       feature regression, zero diagonal
        c = (1 - w) history + w f                 learned combination
        q = (x + (1 - o) c) W_x + u               = [reset, update, new]
        r = sigmoid(q_r + p_r);  z = sigmoid(q_z + p_z);  n = tanh(q_n + r p_n)
        h' = (1 - z) n + z d

    Backward, writing G_v for the gradient of v and starting from G_h' = its outside part + what hour t+1 sent back:

        G_n* = G_h' (1 - z)(1 - n^2);  G_z* = G_h' (d - n) z (1 - z);  G_r* = G_n* p_n r (1 - r)
        G_q = [G_r*, G_z*, G_n*]
        G_c += (1 - o) (G_q W_x');  G_f += w G_c;  G_history += (1 - w) G_c + (1 - o) (G_f W_f')
        G_p = [G_history, r G_n*, G_r*, G_z*]
        G_d = z G_h' + G_p W_h';  G_h = g G_d

    where * marks a gate before its squashing and ' on a matrix its transpose. Only this chain runs hour by hour;
    every weight's gradient is one product over all hours after it, and so are those of the inputs.

    Shapes: see `Steps`, `Weights` and `Trace`; first_KBH (K, B, H) is the state before the first hour. All share one
    floating dtype.

    Source: CSAI (arXiv 2312.16713) and BRITS (Cao et al. 2018), equations of the recurrent component.
    """
    return Trace(*_Recurrence.apply(*steps, *weights, first_KBH))


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        steps, weights, first_KBH = Steps(*tensors[:5]), Weights(*tensors[5:10]), tensors[10]
        T, K, B, D = steps.values_TKBD.shape
        H = first_KBH.shape[-1]
        new = first_KBH.new_empty
        decayed, hidden = new(T, K, B, H), new(T, K, B, H)
        projected, squashed = new(T, K, B, D + 3 * H), new(T, K, B, 3 * H)
        feature, combined = new(T, K, B, D), new(T, K, B, D)
        hidden_bias_K1O, feature_bias_K1D = weights.hidden_bias_KO[:, None], weights.feature_bias_KD[:, None]
        h = first_KBH
        for t in range(T):
            x, missing = steps.values_TKBD[t], steps.missing_TKBD[t]
            d = torch.mul(h, steps.decay_TKBH[t], out=decayed[t])
            p = torch.baddbmm(hidden_bias_K1O, d, weights.hidden_KHO, out=projected[t])
            history = p[..., :D]
            filled = torch.addcmul(x, missing, history)
            f = torch.baddbmm(feature_bias_K1D, filled, weights.feature_KDD, out=feature[t])
            c = torch.lerp(history, f, steps.weight_TKBD[t], out=combined[t])
            complete = torch.addcmul(x, missing, c)
            q = torch.baddbmm(steps.gates_TKBG[t], complete, weights.input_KDG)
            reset_update = squashed[t, ..., : 2 * H]
            torch.add(q[..., : 2 * H], p[..., D + H :], out=reset_update).sigmoid_()
            n = squashed[t, ..., 2 * H :]
            torch.addcmul(q[..., 2 * H :], reset_update[..., :H], p[..., D : D + H], out=n).tanh_()
            h = torch.lerp(n, d, reset_update[..., H:], out=hidden[t])
        history = projected[..., :D].clone()
        ctx.save_for_backward(
            *tensors, decayed, projected[..., D : D + H], squashed, history, feature, combined, hidden
        )
        ctx.set_materialize_grads(False)
        return history, feature, combined, hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outside: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        steps, weights, first_KBH = Steps(*saved[:5]), Weights(*saved[5:10]), saved[10]
        decayed, new_projected, squashed, history, feature, combined, hidden = saved[11:]
        outside_history, outside_feature, outside_combined, outside_hidden = outside
        T, K, B, D = steps.values_TKBD.shape
        H = first_KBH.shape[-1]
        r, z, n = squashed.split(H, dim=-1)

        reset_slope = new_projected * r * (1 - r)
        update_slope = (decayed - n) * z * (1 - z)
        new_slope = (1 - z) * (1 - n * n)
        weight_rest = 1 - steps.weight_TKBD
        hidden_KOH = weights.hidden_KHO.transpose(1, 2).contiguous()
        feature_KDD = weights.feature_KDD.transpose(1, 2).contiguous()
        input_KGD = weights.input_KDG.transpose(1, 2).contiguous()

        # One buffer [history, r * new*, reset*, update*, new*] holds G_p (its first D + 3H) and G_q (its last 3H).
        grads = first_KBH.new_empty(T, K, B, D + 4 * H)
        G_p, G_q = grads[..., : D + 3 * H], grads[..., D + H :]
        G_feature, G_combined = torch.empty_like(combined), torch.empty_like(combined)
        G_decayed = torch.empty_like(hidden)
        G_h = torch.zeros_like(first_KBH)
        for t in reversed(range(T)):
            missing = steps.missing_TKBD[t]
            if outside_hidden is not None:
                G_h = G_h + outside_hidden[t]
            g_history, g_gated, g_reset, g_update, g_new = grads[t].split([D, H, H, H, H], dim=-1)
            torch.mul(G_h, new_slope[t], out=g_new)
            torch.mul(G_h, update_slope[t], out=g_update)
            torch.mul(g_new, reset_slope[t], out=g_reset)
            torch.mul(g_new, r[t], out=g_gated)

            g_complete = torch.bmm(G_q[t], input_KGD)
            g_combined = torch.mul(missing, g_complete, out=G_combined[t])
            if outside_combined is not None:
                g_combined += outside_combined[t]
            g_feature = torch.mul(g_combined, steps.weight_TKBD[t], out=G_feature[t])
            if outside_feature is not None:
                g_feature += outside_feature[t]
            g_filled = torch.bmm(g_feature, feature_KDD)
            torch.mul(g_combined, weight_rest[t], out=g_history)
            g_history.addcmul_(missing, g_filled)
            if outside_history is not None:
                g_history += outside_history[t]

            torch.baddbmm(G_h * z[t], G_p[t], hidden_KOH, out=G_decayed[t])
            G_h = G_decayed[t] * steps.decay_TKBH[t]

        before = torch.cat([first_KBH[None], hidden[:-1]])
        filled = torch.addcmul(steps.values_TKBD, steps.missing_TKBD, history)
        complete = torch.addcmul(steps.values_TKBD, steps.missing_TKBD, combined)
        G_values = None
        if ctx.needs_input_grad[0]:
            G_values = G_q @ input_KGD + G_feature @ feature_KDD
        return (
            G_values,
            None,
            G_decayed * before,
            G_combined * (feature - history),
            G_q.contiguous(),
            _over_hours(decayed, G_p),
            G_p.sum(dim=(0, 2)),
            _over_hours(filled, G_feature),
            G_feature.sum(dim=(0, 2)),
            _over_hours(complete, G_q),
            G_h,
        )


def _over_hours(left_TKBI: torch.Tensor, right_TKBJ: torch.Tensor) -> torch.Tensor:
    """Sum left' @ right over hours and stays, one product per reading; (K, I, J) out."""
    left_KIN = left_TKBI.permute(1, 3, 0, 2).flatten(2)
    right_KNJ = right_TKBJ.transpose(0, 1).flatten(1, 2)
    return torch.bmm(left_KIN, right_KNJ)
