"""CSAI's recurrence as `imputune.models.recurrence` defines it, with a hand-written backward pass.

Letters as there, and O = D + 3H outputs of the decayed hidden state, G = 3H gates. All hours of a direction lie
together in memory, so that a weight's gradient is one product over hours and stays without a copy.
"""

from typing import Any, NamedTuple

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from imputune.models.compiled.recurrence import compiled_recurrence
from imputune.models.hour_views import by_hour, product_over_hours, sigmoid_backward, tanh_backward
from imputune.models.recurrence import Steps, Trace, Weights


class Kept(NamedTuple):
    """What the forward pass computes and the backward pass needs: (K, T, B, ...), or (K, B, ...) of one hour.

    decayed (H): the decayed hidden state. hidden_new (H): its part in the new gate. feature (D): the feature
    regression. inputs (2D + 1): of the gates; `completed` is a view of the first D. reset_update (2H): these two gates
    side by side; `reset` and `update` are views of its halves. new (H): the new gate.
    """

    decayed: torch.Tensor
    hidden_new: torch.Tensor
    feature: torch.Tensor
    inputs: torch.Tensor
    completed: torch.Tensor
    reset_update: torch.Tensor
    reset: torch.Tensor
    update: torch.Tensor
    new: torch.Tensor


class Gradients(NamedTuple):
    """Gradients that the backward pass computes hour by hour: (K, T, B, ...), or (K, B, ...) of one hour.

    rate (H), combined and feature (D): of these. One tensor holds [history (D), hidden_new, reset, update, new (H
    each)], the gates' gradients before sigmoid and tanh; its first D + 3H columns are `hidden_outputs`, the gradient of
    the product with the decayed hidden state, and its last 3H are `gates`, the gradient of the product with the inputs.
    """

    rate: torch.Tensor
    combined: torch.Tensor
    feature: torch.Tensor
    history: torch.Tensor
    hidden_new: torch.Tensor
    reset: torch.Tensor
    update: torch.Tensor
    new: torch.Tensor
    hidden_outputs: torch.Tensor
    gates: torch.Tensor


def recur(steps: Steps, weights: Weights, first_KBH: torch.Tensor) -> Trace:
    """Run the recurrence over all hours of both directions; see `imputune.models.recurrence.recur_plainly`.

    The observed mask gets no gradient.

    With h the hidden state before an hour, x its values, o the observed mask, w the combination weight and
    g = exp(-rate), one hour is

        d = g h                                   decayed hidden state
        p = d W_h + b_h                           = [history, new, reset, update]; b_h = 0 for the last two
        f = (x + (1 - o) history) W_f + b_f       feature regression
        c = (1 - w) history + w f                 combined estimate
        q = [x + (1 - o) c, o, 1] W_i             = [reset, update, new]
        r = sigmoid(q_r + p_r);  z = sigmoid(q_z + p_z);  n = tanh(q_n + r p_n)
        h' = (1 - z) n + z d                      hidden state after the hour

    Backward, G_v is the gradient of v. G_h' is the loss's own plus what the next hour sends back:

        G_n* = G_h' (1 - z)(1 - n^2);  G_z* = G_h' (d - n) z (1 - z);  G_r* = G_n* p_n r (1 - r)
        G_q = [G_r*, G_z*, G_n*]
        G_c += (1 - o) (G_q W_x');  G_f = w G_c;  G_history += (1 - w) G_c + (1 - o) (G_f W_f')
        G_p = [G_history, r G_n*, G_r*, G_z*]
        G_d = z G_h' + G_p W_h';  G_rate = -d G_d;  G_h = g G_d

    where * marks a gate before sigmoid or tanh, ' on a matrix its transpose, and W_x the rows of W_i for the completed
    values. Only this chain runs hour by hour. Each weight's gradient is one product over all hours after it, and so are
    the inputs' gradients.
    """
    trace = compiled_recurrence(steps, weights, first_KBH)
    return Trace(*_Recurrence.apply(*steps, *weights, first_KBH)) if trace is None else trace


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        steps, weights, h = _named(tensors)
        K, T, B, D = steps.values.shape
        H = h.shape[-1]
        trace, kept = _empty_trace(h, T, D), _empty_kept(h, steps.observed)
        history_bias, new_bias, feature_bias = (
            bias[:, None] for bias in (weights.history_bias_KD, weights.new_bias_KH, weights.feature_bias_KD)
        )
        p = h.new_empty(K, B, D + 3 * H)
        p_history, p_new, p_reset_update = p.split([D, H, 2 * H], dim=-1)
        missing_by_hour = (1 - steps.observed).unbind(dim=1)
        hours = zip(by_hour(steps), missing_by_hour, by_hour(kept), by_hour(trace), strict=True)
        for now, missing, keep, result in hours:
            # The exponential is taken here, not for all hours at once: so it stays in the cache.
            torch.mul(h, now.rate.neg().exp_(), out=keep.decayed)
            torch.bmm(keep.decayed, weights.hidden_KHO, out=p)
            torch.add(p_history, history_bias, out=result.history)
            torch.add(p_new, new_bias, out=keep.hidden_new)
            completed_by_history = torch.addcmul(now.values, missing, result.history)
            keep.feature.copy_(torch.baddbmm(feature_bias, completed_by_history, weights.feature_KDD))
            torch.lerp(result.history, keep.feature, now.weight, out=result.combined)
            torch.addcmul(now.values, missing, result.combined, out=keep.completed)
            q = torch.bmm(keep.inputs, weights.input_KIG)
            torch.add(q[..., : 2 * H], p_reset_update, out=keep.reset_update).sigmoid_()
            torch.addcmul(q[..., 2 * H :], keep.reset, keep.hidden_new, out=keep.new).tanh_()
            h = torch.lerp(keep.new, keep.decayed, keep.update, out=result.hidden)
        ctx.save_for_backward(*tensors, trace.history, *kept)
        ctx.set_materialize_grads(False)
        return tuple(trace)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        steps, weights, first_KBH = _named(saved[:11])
        history, kept = saved[11], Kept._make(saved[12:])
        T, D = steps.values.shape[1], steps.values.shape[-1]
        given_history, given_combined, given_hidden = ([None] * T if g is None else g.unbind(1) for g in given)
        hidden_KOH, feature_KDD, values_KGD = (
            matrix.transpose(1, 2).contiguous()
            for matrix in (weights.hidden_KHO, weights.feature_KDD, weights.input_KIG[:, :D])
        )
        missing = 1 - steps.observed
        gradients = _empty_gradients(first_KBH, T, D)
        hours = list(zip(by_hour(steps), missing.unbind(dim=1), by_hour(kept), by_hour(gradients), strict=True))
        G_h = torch.zeros_like(first_KBH)
        for t in reversed(range(T)):
            now, missing_now, keep, G = hours[t]
            if (G_given := given_hidden[t]) is not None:
                G_h = G_h + G_given
            through_update = G_h * keep.update
            tanh_backward(G_h - through_update, keep.new, grad_input=G.new)
            sigmoid_backward((keep.decayed - keep.new).mul_(G_h), keep.update, grad_input=G.update)
            sigmoid_backward(G.new * keep.hidden_new, keep.reset, grad_input=G.reset)
            torch.mul(G.new, keep.reset, out=G.hidden_new)

            torch.mul(missing_now, torch.bmm(G.gates, values_KGD), out=G.combined)
            if (G_given := given_combined[t]) is not None:
                G.combined.add_(G_given)
            torch.mul(G.combined, now.weight, out=G.feature)
            to_history = torch.bmm(G.feature, feature_KDD)
            torch.addcmul(G.combined - G.feature, missing_now, to_history, out=G.history)
            if (G_given := given_history[t]) is not None:
                G.history.add_(G_given)

            G_decayed = through_update.baddbmm_(G.hidden_outputs, hidden_KOH)
            torch.mul(G_decayed, keep.decayed, out=G.rate).neg_()
            G_h = G_decayed.mul_(now.rate.neg().exp_())

        G_values = None
        if ctx.needs_input_grad[0]:
            G_values = gradients.gates @ values_KGD[:, None] + gradients.feature @ feature_KDD[:, None]
        G_weight = gradients.combined.mul_(kept.feature - history)
        completed_by_history = torch.addcmul(steps.values, missing, history)
        return (
            *(G_values, None, gradients.rate, G_weight),
            *_weight_gradients(gradients, kept, completed_by_history),
            G_h,
        )


def _weight_gradients(gradients: Gradients, kept: Kept, completed_by_history: torch.Tensor) -> Weights:
    """Return the gradients of the weights, each summed over hours and stays."""
    return Weights(
        hidden_KHO=product_over_hours(kept.decayed, gradients.hidden_outputs),
        history_bias_KD=gradients.history.sum(dim=(1, 2)),
        new_bias_KH=gradients.hidden_new.sum(dim=(1, 2)),
        feature_KDD=product_over_hours(completed_by_history, gradients.feature),
        feature_bias_KD=gradients.feature.sum(dim=(1, 2)),
        input_KIG=product_over_hours(kept.inputs, gradients.gates),
    )


def _named(tensors: tuple[torch.Tensor, ...]) -> tuple[Steps, Weights, torch.Tensor]:
    """Return the arguments of `recur`, which torch hands on as one tuple of tensors."""
    return Steps._make(tensors[:4]), Weights._make(tensors[4:10]), tensors[10]


def _empty_trace(first_KBH: torch.Tensor, T: int, D: int) -> Trace:
    K, B, H = first_KBH.shape
    history, combined, hidden = (first_KBH.new_empty(K, T, B, size) for size in (D, D, H))
    return Trace(history, combined, hidden)


def _empty_kept(first_KBH: torch.Tensor, observed: torch.Tensor) -> Kept:
    """Return memory for the forward pass; of the gates' inputs, the observed mask and the 1 are there already."""
    K, T, B, D = observed.shape
    H = first_KBH.shape[-1]
    decayed, hidden_new, new = (first_KBH.new_empty(K, T, B, H) for _ in range(3))
    reset_update = first_KBH.new_empty(K, T, B, 2 * H)
    inputs = first_KBH.new_empty(K, T, B, 2 * D + 1)
    inputs[..., D:-1] = observed
    inputs[..., -1] = 1
    reset, update = reset_update.split(H, dim=-1)
    return Kept(
        decayed=decayed,
        hidden_new=hidden_new,
        feature=torch.empty_like(observed),
        inputs=inputs,
        completed=inputs[..., :D],
        reset_update=reset_update,
        reset=reset,
        update=update,
        new=new,
    )


def _empty_gradients(first_KBH: torch.Tensor, T: int, D: int) -> Gradients:
    K, B, H = first_KBH.shape
    joined = first_KBH.new_empty(K, T, B, D + 4 * H)
    history, hidden_new, reset, update, new = joined.split([D, H, H, H, H], dim=-1)
    return Gradients(
        rate=first_KBH.new_empty(K, T, B, H),
        combined=first_KBH.new_empty(K, T, B, D),
        feature=first_KBH.new_empty(K, T, B, D),
        history=history,
        hidden_new=hidden_new,
        reset=reset,
        update=update,
        new=new,
        hidden_outputs=joined[..., : D + 3 * H],
        gates=joined[..., D + H :],
    )
