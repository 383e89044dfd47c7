"""CSAI's recurrence over the hours, both directions at once, in plain operations.

`imputune.models.fast_recurrence` gives the same results several times faster, and tests compare it with this module.

Letters: K the two directions, T hours, B stays, D variables, H hidden size, I = 2D + 1 inputs of the gates.
"""

from typing import NamedTuple

import torch


class Steps(NamedTuple):
    """What the recurrence reads, all of it known before the first hour: (K, T, B, ...), or (K, B, ...) of one hour.

    values (D): standardised, 0 where not observed. observed (D): 0/1. rate (H): how fast the hidden state decays, at
    least 0; the decay is exp(-rate). weight (D): weight of the feature regression in the combined estimate.
    """

    values: torch.Tensor
    observed: torch.Tensor
    rate: torch.Tensor
    weight: torch.Tensor


class Weights(NamedTuple):
    """The recurrence's weights, one matrix per direction, applied from the right (x @ W).

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
    """What the recurrence gives: (K, T, B, ...), or (K, B, ...) of one hour.

    history (D): the history regression's estimate of every cell. combined (D): its combination with the feature
    regression's. hidden (H): the hidden state after the hour.
    """

    history: torch.Tensor
    combined: torch.Tensor
    hidden: torch.Tensor


def recur_plainly(steps: Steps, weights: Weights, first_KBH: torch.Tensor) -> Trace:
    """Run the recurrence hour by hour over all hours of both directions; autograd gives the gradients.

    Shapes: see `Steps`, `Weights` and `Trace`; first_KBH is the hidden state before the first hour. All share one
    floating dtype.
    """
    hidden_KBH, trace = first_KBH, []
    for values, observed, rate, weight in zip(*(series.unbind(dim=1) for series in steps), strict=True):
        trace.append(one_hour(Steps(values, observed, rate, weight), weights, hidden_KBH))
        hidden_KBH = trace[-1].hidden
    return Trace(*(torch.stack(series, dim=1) for series in zip(*trace, strict=True)))


def one_hour(hour: Steps, weights: Weights, hidden_KBH: torch.Tensor) -> Trace:
    """Estimate the values of one hour, complete the missing ones, and update the hidden state.

    Source: CSAI (arXiv 2312.16713) and BRITS (Cao et al. 2018), equations of the recurrent component.
    """
    D, H = hour.values.shape[-1], hidden_KBH.shape[-1]
    missing_KBD = 1 - hour.observed
    decayed_KBH = torch.exp(-hour.rate) * hidden_KBH
    history_KBD, hidden_new, hidden_reset, hidden_update = (decayed_KBH @ weights.hidden_KHO).split([D, H, H, H], -1)
    history_KBD = history_KBD + weights.history_bias_KD[:, None]
    hidden_new = hidden_new + weights.new_bias_KH[:, None]

    feature_KBD = (hour.values + missing_KBD * history_KBD) @ weights.feature_KDD + weights.feature_bias_KD[:, None]
    combined_KBD = (1 - hour.weight) * history_KBD + hour.weight * feature_KBD
    completed_KBD = hour.values + missing_KBD * combined_KBD

    inputs_KBI = torch.cat([completed_KBD, hour.observed, torch.ones_like(completed_KBD[..., :1])], dim=-1)
    input_reset, input_update, input_new = (inputs_KBI @ weights.input_KIG).split(H, dim=-1)
    reset = torch.sigmoid(input_reset + hidden_reset)
    update = torch.sigmoid(input_update + hidden_update)
    new = torch.tanh(input_new + reset * hidden_new)
    return Trace(history_KBD, combined_KBD, (1 - update) * new + update * decayed_KBH)
