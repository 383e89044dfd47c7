"""BRITS's recurrence over the hours as PyPOTS defines it, both directions at once, with a hand-written backward pass.

Letters: K = 2 directions, T hours, B stays, D variables, H units of the hidden state, G = 4H gates, I = 2D + 1 inputs
of the gates, O = D + 4H outputs of the decayed hidden state. All hours of a direction lie together in memory, as in
`imputune.models.fast_recurrence`.
"""

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from imputune.models.hour_views import by_hour, product_over_hours, sigmoid_backward, tanh_backward


class Hours(NamedTuple):
    """What the recurrence reads, all of it known before the first hour: (K, T, B, ...), or (K, B, ...) of one hour.

    values (D): standardised, 0 where not observed. missing (D): 0/1, 1 where not observed. rate (H): how fast the
    hidden state decays, at least 0; the decay is exp(-rate). weight (D): weight of the feature regression in the
    combined estimate.
    """

    values: torch.Tensor
    missing: torch.Tensor
    rate: torch.Tensor
    weight: torch.Tensor


class Weights(NamedTuple):
    """The recurrence's weights, one matrix per direction, applied from the right (x @ W).

    hidden_KHO (K, H, D + 4H): from the decayed hidden state to the history regression (D), then the LSTM's input,
    forget, output and new gates (H each). history_bias_KD: the history regression's bias. feature_KDD, feature_bias_KD:
    the feature regression, its diagonal zero. input_KIG (K, 2D + 1, 4H): from [completed values, observed, 1] to the
    same gates; its last row holds their biases.
    """

    hidden_KHO: torch.Tensor
    history_bias_KD: torch.Tensor
    feature_KDD: torch.Tensor
    feature_bias_KD: torch.Tensor
    input_KIG: torch.Tensor


class Estimates(NamedTuple):
    """Estimates of the history regression, the feature regression and both combined: (K, T, B, D)."""

    history: torch.Tensor
    feature: torch.Tensor
    combined: torch.Tensor


class _Kept(NamedTuple):
    """What the forward pass computes and the backward pass needs, beside the estimates: (K, T, B, ...).

    decayed (H): the decayed hidden state. inputs (2D + 1): of the gates; `completed` is a view of the first D. gates
    (4H): after sigmoid and tanh. cell, squashed (H): the cell state after the hour, and its tanh.
    """

    decayed: torch.Tensor
    inputs: torch.Tensor
    completed: torch.Tensor
    gates: torch.Tensor
    cell: torch.Tensor
    squashed: torch.Tensor


class _Gradients(NamedTuple):
    """Gradients that the backward pass computes hour by hour: (K, T, B, ...), or (K, B, ...) of one hour.

    rate (H), combined, feature (D): of these. outputs (O): [history (D), gates (4H) before sigmoid and tanh]; `history`
    and `gates` are views of it.
    """

    rate: torch.Tensor
    combined: torch.Tensor
    feature: torch.Tensor
    outputs: torch.Tensor
    history: torch.Tensor
    gates: torch.Tensor


def recur(hours: Hours, weights: Weights, H: int) -> tuple[Estimates, torch.Tensor]:
    """Run the recurrence over all hours of both directions; return its estimates and the last hidden states (K, B, H).

    `missing` gets no gradient. All tensors share one floating dtype.

    With h and s the hidden and the cell state before an hour, 0 before the first, x its values, u = 1 where nothing was
    observed, w the combination weight and g = exp(-rate), one hour is

        d = g h                                       decayed hidden state
        [p, q] = d W_h;  p += b_h                     history regression, and the hidden state's part in the gates
        f = (x + u p) W_f + b_f                       feature regression
        c = (1 - w) p + w f                           combined estimate
        [i, j, o, n] = q + [x + u c, 1 - u, 1] W_i    input, forget, output gate: sigmoid; new: tanh
        s' = j s + i n;  t = tanh(s');  h' = o t      cell and hidden state after the hour

    Backward, G_v is the gradient of v. G_c, G_f and G_p begin with the loss's own, G_h' and G_s' with what the next
    hour sends back; in the last hour, G_h' is the loss's own and G_s' is 0:

        G_o* = G_h' t o (1 - o);  G_s' += G_h' o (1 - t^2)
        G_n* = G_s' i (1 - n^2);  G_i* = G_s' n i (1 - i);  G_j* = G_s' s j (1 - j);  G_s = j G_s'
        G_q = [G_i*, G_j*, G_o*, G_n*]
        G_c += u (G_q W_x');  G_f += w G_c;  G_p += (1 - w) G_c + u (G_f W_f')
        G_d = [G_p, G_q] W_h';  G_rate = -d G_d;  G_h = g G_d

    where * marks a gate before sigmoid or tanh, ' on a matrix its transpose, and W_x the rows of W_i for the completed
    values. Only this chain runs hour by hour; the other gradients are computed for all hours after it.

    Source: BRITS (Cao et al. 2018), sections 4.1 and 4.3, with the LSTM cell of PyPOTS 1.5.
    """
    *estimates, hidden_KBH = _Recurrence.apply(H, *hours, *weights)
    return Estimates._make(estimates), hidden_KBH


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, H: int, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hours, weights = _named(tensors)
        K, T, B, D = hours.values.shape
        new = hours.values.new_empty
        estimates = Estimates._make(new(K, T, B, D) for _ in Estimates._fields)
        kept = _empty_kept(hours, H, keeps=any(ctx.needs_input_grad))
        history_bias, feature_bias = weights.history_bias_KD[:, None], weights.feature_bias_KD[:, None]
        h, cell = hours.values.new_zeros(K, B, H), hours.values.new_zeros(K, B, H)
        p = new(K, B, D + 4 * H)
        for now, keep, result in zip(by_hour(hours), by_hour(kept), by_hour(estimates), strict=True):
            torch.mul(h, now.rate.neg().exp_(), out=keep.decayed)
            torch.bmm(keep.decayed, weights.hidden_KHO, out=p)
            torch.add(p[..., :D], history_bias, out=result.history)
            completed_by_history = torch.addcmul(now.values, now.missing, result.history)
            result.feature.copy_(torch.baddbmm(feature_bias, completed_by_history, weights.feature_KDD))
            torch.lerp(result.history, result.feature, now.weight, out=result.combined)
            torch.addcmul(now.values, now.missing, result.combined, out=keep.completed)
            gates = torch.baddbmm(p[..., D:], keep.inputs, weights.input_KIG)
            torch.sigmoid(gates[..., : 3 * H], out=keep.gates[..., : 3 * H])
            torch.tanh(gates[..., 3 * H :], out=keep.gates[..., 3 * H :])
            in_gate, forget, out_gate, new_gate = keep.gates.split(H, dim=-1)
            cell = torch.addcmul(in_gate * new_gate, forget, cell, out=keep.cell)
            torch.tanh(cell, out=keep.squashed)
            h = out_gate * keep.squashed
        ctx.save_for_backward(*tensors, *estimates[:2], *kept)
        ctx.set_materialize_grads(False)
        return (*estimates, h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        hours, weights = _named(saved[:9])
        history, feature, kept = saved[9], saved[10], _Kept._make(saved[11:])
        T, D = hours.values.shape[1], hours.values.shape[-1]
        H = kept.cell.shape[-1]
        given_history, given_feature, given_combined = (
            [None] * T if each is None else each.unbind(1) for each in given[:3]
        )
        hidden_KOH, feature_KDD, values_KGD = (
            matrix.transpose(1, 2).contiguous()
            for matrix in (weights.hidden_KHO, weights.feature_KDD, weights.input_KIG[:, :D])
        )
        gradients = _empty_gradients(hours, H)
        each_hour = list(zip(by_hour(hours), by_hour(kept), by_hour(gradients), strict=True))
        first_cell = torch.zeros_like(kept.cell[:, 0])
        G_h = torch.zeros_like(first_cell) if given[3] is None else given[3]
        G_cell = torch.zeros_like(first_cell)
        for t in reversed(range(T)):
            now, keep, G = each_hour[t]
            in_gate, forget, out_gate, new_gate = keep.gates.split(H, dim=-1)
            G_in, G_forget, G_out, G_new = G.gates.split(H, dim=-1)
            cell_before = each_hour[t - 1][1].cell if t else first_cell
            sigmoid_backward(G_h * keep.squashed, out_gate, grad_input=G_out)
            G_cell = G_cell.add_(torch.ops.aten.tanh_backward(G_h * out_gate, keep.squashed))
            tanh_backward(G_cell * in_gate, new_gate, grad_input=G_new)
            sigmoid_backward(G_cell * new_gate, in_gate, grad_input=G_in)
            sigmoid_backward(G_cell * cell_before, forget, grad_input=G_forget)
            G_cell.mul_(forget)

            torch.mul(now.missing, torch.bmm(G.gates, values_KGD), out=G.combined)
            if (G_given := given_combined[t]) is not None:
                G.combined.add_(G_given)
            to_feature = torch.mul(G.combined, now.weight)
            torch.sub(G.combined, to_feature, out=G.history)
            G.feature.copy_(to_feature)
            if (G_given := given_feature[t]) is not None:
                G.feature.add_(G_given)
            G.history.addcmul_(now.missing, torch.bmm(G.feature, feature_KDD))
            if (G_given := given_history[t]) is not None:
                G.history.add_(G_given)

            G_decayed = torch.bmm(G.outputs, hidden_KOH)
            torch.mul(G_decayed, keep.decayed, out=G.rate).neg_()
            G_h = G_decayed.mul_(now.rate.neg().exp_())

        G_values = None
        if ctx.needs_input_grad[1]:
            G_values = gradients.gates @ values_KGD[:, None] + gradients.feature @ feature_KDD[:, None]
        G_weight = gradients.combined.mul_(feature - history)
        completed_by_history = torch.addcmul(hours.values, hours.missing, history)
        return (
            *(None, G_values, None, gradients.rate, G_weight),
            product_over_hours(kept.decayed, gradients.outputs),
            gradients.history.sum(dim=(1, 2)),
            product_over_hours(completed_by_history, gradients.feature),
            gradients.feature.sum(dim=(1, 2)),
            product_over_hours(kept.inputs, gradients.gates),
        )


def _named(tensors: tuple[torch.Tensor, ...]) -> tuple[Hours, Weights]:
    """Return the tensors of `recur`, which torch hands on as one tuple."""
    return Hours._make(tensors[:4]), Weights._make(tensors[4:9])


def _empty_kept(hours: Hours, H: int, *, keeps: bool) -> _Kept:
    """Return memory for the forward pass; unless `keeps`, every hour overwrites what the hour before it left there.

    The gates' inputs have memory of their own for every hour: the observed mask and the 1 are there already.
    """
    K, T, B, D = hours.values.shape
    memory = [hours.values.new_empty(K, T if keeps else 1, B, size) for size in (H, 4 * H, H, H)]
    decayed, gates, cell, squashed = (each.expand(K, T, B, -1) for each in memory)
    inputs = hours.values.new_empty(K, T, B, 2 * D + 1)
    inputs[..., D:-1] = 1 - hours.missing
    inputs[..., -1] = 1
    return _Kept(decayed, inputs, inputs[..., :D], gates, cell, squashed)


def _empty_gradients(hours: Hours, H: int) -> _Gradients:
    K, T, B, D = hours.values.shape
    new = hours.values.new_empty
    outputs = new(K, T, B, D + 4 * H)
    return _Gradients(
        rate=new(K, T, B, H),
        combined=new(K, T, B, D),
        feature=new(K, T, B, D),
        outputs=outputs,
        history=outputs[..., :D],
        gates=outputs[..., D:],
    )
