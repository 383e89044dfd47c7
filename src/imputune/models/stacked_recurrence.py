"""CSAI's recurrence for several folds at once, without gradients; `models.recurrence` defines it.

Letters: J readings, the directions of all folds, each with weights of its own; T hours, B stays, D variables, H hidden
size, G = 3H gates, O = D + G outputs of the decayed hidden state.
"""

import math
from typing import NamedTuple, Self

import numpy as np
import torch
from torch.nn.functional import pad

from imputune.models.csai import Csai
from imputune.models.small_products import product

LOG2_E = math.log2(math.e)
"""exp(x) is taken as the LOG2_E * x-th power of 2, which takes less than half the time."""


class RecurrenceWeights(NamedTuple):
    """The recurrence's weights of J readings, applied from the right (x @ W).

    hidden_JHO: from the decayed hidden state to [history, new, reset, update]. values_JDG, observed_JDG: from completed
    values and mask to the gates [reset, update, new]. decay weights are those of powers of 2, with the sign of the
    exponent.
    """

    hidden_decay_JDH: torch.Tensor
    hidden_decay_bias_JH: torch.Tensor
    input_decay_JD: torch.Tensor
    input_decay_bias_JD: torch.Tensor
    combine_decay_JDD: torch.Tensor
    combine_observed_JDD: torch.Tensor
    combine_bias_JD: torch.Tensor
    hidden_JHO: torch.Tensor
    hidden_bias_JO: torch.Tensor
    feature_JDD: torch.Tensor
    feature_bias_JD: torch.Tensor
    values_JDG: torch.Tensor
    observed_JDG: torch.Tensor
    gate_bias_JG: torch.Tensor

    @classmethod
    def of(cls, imputer: Csai) -> Self:
        """Return the weights of one imputer's two readings."""
        D, H = imputer.sizes.variables, imputer.sizes.hidden_size
        reset_update, new = imputer.gru_hidden.split([2 * H, H], dim=-1)
        reset_update_bias, new_bias = imputer.gru_hidden_bias.split([2 * H, H], dim=-1)
        return cls(
            hidden_decay_JDH=imputer.hidden_decay * -LOG2_E,
            hidden_decay_bias_JH=imputer.hidden_decay_bias * -LOG2_E,
            input_decay_JD=imputer.input_decay * -LOG2_E,
            input_decay_bias_JD=imputer.input_decay_bias * -LOG2_E,
            combine_decay_JDD=imputer.combine[:, :D],
            combine_observed_JDD=imputer.combine[:, D:],
            combine_bias_JD=imputer.combine_bias,
            hidden_JHO=torch.cat([imputer.history, new, reset_update], dim=-1),
            hidden_bias_JO=pad(torch.cat([imputer.history_bias, new_bias], dim=-1), (0, 2 * H)),
            feature_JDD=imputer.feature * (1 - torch.eye(D)),
            feature_bias_JD=imputer.feature_bias,
            values_JDG=imputer.gru_values,
            observed_JDG=imputer.gru_observed,
            gate_bias_JG=imputer.gru_input_bias + pad(reset_update_bias, (0, H)),
        )


def recur_stacked(
    weights: RecurrenceWeights,
    values_JTBD: torch.Tensor,
    observed_JTBD: torch.Tensor,
    gap_JTBD: torch.Tensor,
    first_JBH: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the recurrence over all hours of all readings; return combined estimates and hidden states.

    Shapes: values, standardised and 0 where not observed, mask 0/1 and gaps in hours, each in the reading's own order
    of time; first_JBH, the hidden state before the first hour. (T, J, B, D) and (T, J, B, H) out.

    What does not depend on the hidden state is computed for all hours at once: the decay, the weight of the feature
    regression, and what the gates read of observed values and the mask.
    """
    J, T, B, D = values_JTBD.shape
    H = first_JBH.shape[-1]
    decay_JTBH, weight_JTBD, known_JTBG = _of_all_hours(weights, values_JTBD, observed_JTBD, gap_JTBD)
    combined_TJBD, hidden_TJBH = first_JBH.new_empty(T, J, B, D), first_JBH.new_empty(T, J, B, H)
    decayed, new = torch.empty_like(first_JBH), torch.empty_like(first_JBH)
    completed, feature = first_JBH.new_empty(2, J, B, D)
    outputs, gates = first_JBH.new_empty(J, B, D + 3 * H), first_JBH.new_empty(J, B, 3 * H)
    history, hidden_new, hidden_reset_update = outputs.split([D, H, 2 * H], dim=-1)
    reset_update, input_new = gates.split([2 * H, H], dim=-1)
    reset, update = reset_update.split(H, dim=-1)
    to_outputs = product(decayed, weights.hidden_JHO, outputs)
    to_feature = product(completed, weights.feature_JDD, feature)
    to_gates = product(completed, weights.values_JDG, gates)
    hidden_bias, feature_bias = weights.hidden_bias_JO[:, None], weights.feature_bias_JD[:, None]

    hidden = first_JBH
    known = (decay_JTBH, weight_JTBD, known_JTBG, values_JTBD, 1 - observed_JTBD)
    hours = zip(*(series.unbind(dim=1) for series in known), combined_TJBD, hidden_TJBH, strict=True)
    for decay, weight, known_gates, values, missing, combined, hidden_after in hours:
        torch.mul(hidden, decay, out=decayed)
        to_outputs()
        outputs.add_(hidden_bias)
        torch.addcmul(values, missing, history, out=completed)
        to_feature()
        feature.add_(feature_bias)
        torch.lerp(history, feature, weight, out=combined)
        torch.mul(missing, combined, out=completed)
        to_gates()
        gates.add_(known_gates)
        reset_update.add_(hidden_reset_update).sigmoid_()
        torch.addcmul(input_new, reset, hidden_new, out=new)
        np.tanh(new.numpy(), out=new.numpy())
        hidden = torch.lerp(new, decayed, update, out=hidden_after)
    return combined_TJBD, hidden_TJBH


def _of_all_hours(
    weights: RecurrenceWeights, values_JTBD: torch.Tensor, observed_JTBD: torch.Tensor, gap_JTBD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the decay of the hidden state (H), the weight of the feature regression (D) and the known gates (G)."""
    J, T, B, _ = values_JTBD.shape
    values, observed, gap = (series.flatten(1, 2) for series in (values_JTBD, observed_JTBD, gap_JTBD))
    decay = torch.baddbmm(weights.hidden_decay_bias_JH[:, None], gap, weights.hidden_decay_JDH).clamp_max_(0).exp2_()
    input_decay = torch.addcmul(weights.input_decay_bias_JD[:, None], gap, weights.input_decay_JD[:, None])
    weight = torch.baddbmm(weights.combine_bias_JD[:, None], observed, weights.combine_observed_JDD)
    weight.baddbmm_(input_decay.clamp_max_(0).exp2_(), weights.combine_decay_JDD)
    gates = torch.baddbmm(weights.gate_bias_JG[:, None], observed, weights.observed_JDG)
    gates.baddbmm_(values, weights.values_JDG)
    return decay.view(J, T, B, -1), weight.view(J, T, B, -1), gates.view(J, T, B, -1)
