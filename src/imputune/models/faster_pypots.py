"""PyPOTS made faster, with the same numbers up to rounding: time gaps of all stays at once, and BRITS by `fast_brits`.

PyPOTS computes gaps stay by stay and hour by hour, which takes a third of an epoch of BRITS or GRU-D.

Letters as in `imputune.models.fast_brits`.
"""

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from imputune.models.fast_brits import Hours, Weights, recur

COMPUTE_GAPS = ("brits", "grud", "mrnn")  # of pypots.imputation; US-GAN reads BRITS's
DIRECTIONS = ("forward", "backward")
ALMOST_NOTHING = 1e-12  # added by PyPOTS to a number of cells, which may be 0


def speed_up(network: nn.Module) -> None:
    """Make every BRITS in one of PyPOTS's networks faster: BRITS itself, or US-GAN's generator.

    From then on, PyPOTS also computes the time gaps of all its imputers in this process faster. A BRITS that was built
    with another training loss than PyPOTS's default, the mean absolute error, stays as it is.
    """
    from pypots.nn.modules.brits import BackboneBRITS
    from pypots.nn.modules.loss import MAE

    for name in COMPUTE_GAPS:
        data = importlib.import_module(f"pypots.imputation.{name}.data")
        data._parse_delta_torch = hours_since_observed  # type: ignore[attr-defined]
    for module in network.modules():
        if isinstance(module, BackboneBRITS) and isinstance(module.rits_f.training_loss, MAE):
            # A partial, unlike a closure, is copied and pickled with the module, and then holds the copy. The module
            # refers to itself through it, so Python frees it only when it collects garbage.
            module.forward = partial(_brits, module)


def hours_since_observed(observed: torch.Tensor) -> torch.Tensor:
    """Return the hours since a variable was last observed before each hour, 0 in the first; PyPOTS's time gaps.

    The rule is gap[0] = 0, gap[t] = 1 + (1 - observed[t - 1]) * gap[t - 1]. Shapes: observed 0/1 (..., T, D), the same
    out.
    """
    gaps = [torch.zeros_like(observed[..., 0, :])]
    for in_hour in observed.unbind(-2)[:-1]:
        gaps.append(1 + (1 - in_hour) * gaps[-1])
    return torch.stack(gaps, dim=-2)


def _brits(network: Any, inputs: Mapping[str, Mapping[str, torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    """Return what PyPOTS's `BackboneBRITS.forward` returns.

    inputs: by direction, X (finite), missing_mask (1 where observed) and deltas (hours since observed), (B, T, D) each;
    "backward" holds the same hours in reverse order. What X holds where nothing was observed changes nothing.

    Returns, with hours in the order of "forward": the imputed values and the estimates of the forward and the backward
    direction, (B, T, D) each; their last hidden states, (B, H) each; the consistency and the reconstruction loss.
    PyPOTS reverses not only the hours of the backward direction, but also the units of its hidden state; so does this.
    """
    values, observed, gaps = (
        torch.stack([inputs[direction][name].transpose(0, 1) for direction in DIRECTIONS])
        for name in ("X", "missing_mask", "deltas")
    )
    values = values * observed
    hours, weights = _prepared((network.rits_f, network.rits_b), values, observed, gaps)
    estimates, (hidden_f, hidden_b) = recur(hours, weights, network.rnn_hidden_size)
    combined_f, combined_b = estimates.combined.transpose(1, 2)
    combined_b = combined_b.flip(1)
    values_BTD, observed_BTD = inputs["forward"]["X"], inputs["forward"]["missing_mask"]
    imputed_f, imputed_b = (observed_BTD * values_BTD + (1 - observed_BTD) * each for each in (combined_f, combined_b))
    errors_KT = sum(((estimate - values).abs() * observed).sum(dim=(2, 3)) for estimate in estimates)
    losses_KT = errors_KT / (observed.sum(dim=(2, 3)) + ALMOST_NOTHING)
    T = values.shape[1]
    return (
        (imputed_f + imputed_b) / 2,
        combined_f,
        combined_b,
        hidden_f,
        hidden_b.flip(1),
        (imputed_f - imputed_b).abs().mean() * 0.1,
        losses_KT.sum() / (len(estimates) * T),
    )


def _prepared(
    both: tuple[Any, Any], values: torch.Tensor, observed: torch.Tensor, gaps: torch.Tensor
) -> tuple[Hours, Weights]:
    """Compute for all hours at once what does not depend on the hidden state, and arrange both directions' weights.

    both: PyPOTS's BackboneRITS of each direction. values, observed, gaps: (K, T, B, D).
    """
    rates, combining, hidden, inputs = [], [], [], []
    for rits, observed_TBD, gaps_TBD in zip(both, observed, gaps, strict=True):
        rates.append(linear(gaps_TBD, rits.temp_decay_h.W, rits.temp_decay_h.b).relu())
        decay = rits.temp_decay_x
        decay_TBD = (-(gaps_TBD * decay.W.diagonal() + decay.b).relu()).exp()
        combining.append(rits.combining_weight(torch.cat([decay_TBD, observed_TBD], dim=-1)).sigmoid())
        cell = rits.rnn_cell
        bias_G1 = (cell.bias_ih + cell.bias_hh)[:, None]
        hidden.append(torch.cat([rits.hist_reg.weight, _new_gate_last(cell.weight_hh)]).T)
        inputs.append(_new_gate_last(torch.cat([cell.weight_ih, bias_G1], dim=1)).T)
    hours = Hours(values=values, missing=1 - observed, rate=torch.stack(rates), weight=torch.stack(combining))
    return hours, Weights(
        hidden_KHO=torch.stack(hidden),
        history_bias_KD=torch.stack([rits.hist_reg.bias for rits in both]),
        feature_KDD=torch.stack([(rits.feat_reg.W * rits.feat_reg.m).T for rits in both]),
        feature_bias_KD=torch.stack([rits.feat_reg.b for rits in both]),
        input_KIG=torch.stack(inputs),
    )


def _new_gate_last(of_gates: torch.Tensor) -> torch.Tensor:
    """Arrange rows of weights of an LSTM's gates, which PyTorch has as input, forget, new, output."""
    in_gate, forget, new_gate, out_gate = of_gates.chunk(4)
    return torch.cat([in_gate, forget, out_gate, new_gate])
