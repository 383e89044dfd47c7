from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from imputune.data.directions import Directions
from imputune.models.csai import Csai, CsaiSizes

pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")

from pypots.data.utils import parse_delta
from pypots.imputation.csai.data import compute_last_obs
from pypots.nn.modules.csai.backbone import BackboneBCSAI, BackboneCSAI

# Stays, hours, variables, hidden size.
SHAPES = [(4, 48, 35, 108), (1, 1, 1, 1), (1, 6, 3, 5), (5, 7, 1, 4), (3, 5, 4, 1)]
CHANNELS = 16
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@dataclass(frozen=True)
class PypotsDirection:
    """One direction of a batch as PyPOTS prepares it, each tensor (B, T, D)."""

    values: torch.Tensor
    observed: torch.Tensor
    gaps: torch.Tensor
    last_observed: torch.Tensor


class FixedState(nn.Module):
    """Replaces the computation of an imputer's first hidden state by a given one."""

    def __init__(self, first_BH: torch.Tensor) -> None:
        super().__init__()
        self.first_BH = first_BH

    def forward(self, *_: torch.Tensor) -> torch.Tensor:
        """Return the given state."""
        return self.first_BH


class OverHours(nn.Module):
    """PyPOTS's attention, which runs over stays by mistake, made to run over the hours of each stay."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, data_BSC: torch.Tensor) -> torch.Tensor:
        """Attend along the second axis."""
        return self.layer(data_BSC.transpose(0, 1)).transpose(0, 1)


def read(shape: tuple[int, ...], share: float = 0.4) -> tuple[PypotsDirection, PypotsDirection]:
    """Draw records; return both directions with PyPOTS's own time gaps and last observations."""
    stays, hours, variables, _ = shape
    random = np.random.default_rng(0)
    observed = random.random((stays, hours, variables)) < share
    values = np.where(observed, random.normal(size=observed.shape), np.nan)
    directions = []
    for step in (1, -1):
        x, o = values[:, ::step], observed[:, ::step]
        last = np.array([compute_last_obs(each, seen) for each, seen in zip(x, o, strict=True)])
        arrays = (x, o, parse_delta(o.astype(float)), last)
        directions.append(PypotsDirection(*(torch.from_numpy(np.nan_to_num(array)).float() for array in arrays)))
    return directions[0], directions[1]


def as_directions(directions: tuple[PypotsDirection, PypotsDirection]) -> Directions:
    """Return PyPOTS's directions as ours."""

    def both(name: str) -> torch.Tensor:
        stacked_KBTD = torch.stack([getattr(direction, name) for direction in directions])
        return stacked_KBTD.transpose(1, 2).contiguous().transpose(1, 2)  # memory hour by hour

    return Directions(
        values=both("values"),
        observed=both("observed"),
        gap_hours=both("gaps"),
        last_observed=both("last_observed"),
    )


def twins(shape: tuple[int, ...], medians: torch.Tensor) -> tuple[BackboneBCSAI, Csai]:
    """Return PyPOTS's CSAI and ours with its weights, both without dropout."""
    _, hours, variables, hidden_size = shape
    torch.manual_seed(0)
    theirs = BackboneBCSAI(hours, variables, hidden_size, CHANNELS).eval()
    sizes = CsaiSizes(
        variables=variables,
        hours=hours,
        hidden_size=hidden_size,
        channels=CHANNELS,
        attention_heads=8,
        feedforward=64,
    )
    ours = Csai(sizes).eval()
    ours.median_gap_hours_D.copy_(medians)
    for k, backbone in enumerate((theirs.model_f, theirs.model_b)):
        copy_recurrence(backbone, ours, k)
        copy_attention(backbone, ours.first_states[k])
    return theirs, ours


@torch.no_grad()
def copy_recurrence(theirs: BackboneCSAI, ours: Csai, k: int) -> None:
    """Copy the recurrence's weights; PyPOTS multiplies from the left and stores a diagonal as a matrix."""
    D = ours.sizes.variables
    for to, source in (
        (ours.hidden_decay, theirs.temp_decay_h.W.t()),
        (ours.hidden_decay_bias, theirs.temp_decay_h.b),
        (ours.input_decay, theirs.temp_decay_x.W.diagonal()),
        (ours.input_decay_bias, theirs.temp_decay_x.b),
        (ours.history, theirs.hist.weight.t()),
        (ours.history_bias, theirs.hist.bias),
        (ours.feature, theirs.feat_reg_v.W.t()),
        (ours.feature_bias, theirs.feat_reg_v.b),
        (ours.combine, theirs.weight_combine.weight.t()),
        (ours.combine_bias, theirs.weight_combine.bias),
        (ours.gru_values, theirs.gru.weight_ih[:, :D].t()),
        (ours.gru_observed, theirs.gru.weight_ih[:, D:].t()),
        (ours.gru_input_bias, theirs.gru.bias_ih),
        (ours.gru_hidden, theirs.gru.weight_hh.t()),
        (ours.gru_hidden_bias, theirs.gru.bias_hh),
    ):
        to[k].copy_(source)


@torch.no_grad()
def copy_attention(theirs: BackboneCSAI, ours: nn.Module) -> None:
    """Copy the weights of the first hidden state; our contraction over tokens comes before the projection."""
    over_tokens, over_channels = theirs.output_projection2.conv, theirs.output_projection1.conv
    contract = over_tokens.weight[0, :, 0]
    ours.decay.load_state_dict(theirs.weighted_obs.linear.state_dict())
    ours.attention.load_state_dict(theirs.time_layer.transformer_encoder.layers[0].state_dict())
    for to, source in (
        (ours.project.weight, theirs.input_projection.conv.weight[..., 0]),
        (ours.project.bias, theirs.input_projection.conv.bias),
        (ours.contract, contract),
        (ours.output.weight, over_channels.weight[..., 0]),
        (ours.output.bias, over_channels.bias * contract.sum() + over_tokens.bias),
    ):
        to.copy_(source)


@torch.no_grad()
def check_equal(
    theirs: BackboneBCSAI,
    ours: Csai,
    directions: tuple[PypotsDirection, PypotsDirection],
    medians: torch.Tensor,
    given: tuple[torch.Tensor | None, ...] = (None, None),
) -> None:
    """Check each direction's estimates and final hidden state, and the imputation, against PyPOTS's."""
    intervals = dict(enumerate(medians.tolist()))
    imputed = []
    reconstruction = ours(as_directions(directions))
    for k, (backbone, direction) in enumerate(zip((theirs.model_f, theirs.model_b), directions, strict=True)):
        one, estimate, last, _ = backbone(
            direction.values, direction.observed, direction.gaps, direction.last_observed, intervals, given[k]
        )
        imputed.append(one.flip(1) if k else one)
        torch.testing.assert_close(reconstruction.combined_KBTD[k], estimate.flip(1) if k else estimate, **CLOSE)
        torch.testing.assert_close(reconstruction.hidden_KBTH[k, :, -1], last, **CLOSE)
    torch.testing.assert_close(reconstruction.imputed_BTD, (imputed[0] + imputed[1]) / 2, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_recurrence_equals_pypots(shape):
    """With PyPOTS's weights and a given first hidden state, each direction gives what PyPOTS's recurrence gives."""
    stays, _, variables, hidden_size = shape
    medians = torch.zeros(variables)
    theirs, ours = twins(shape, medians)
    given = torch.randn(2, stays, hidden_size, generator=torch.Generator().manual_seed(1)).unbind()
    ours.first_states = nn.ModuleList(FixedState(first) for first in given)
    check_equal(theirs, ours, read(shape), medians, given)


@pytest.mark.parametrize("shape", [(4, 48, 35, 108), (3, 1, 2, 4), (5, 7, 3, 6)])
def test_first_state_equals_pypots_with_attention_over_hours(shape):
    """With attention over hours, all of PyPOTS's CSAI gives what ours gives, the first hidden state included.

    Some gaps are equal to the variable's median; there the conditional decay is one half.
    """
    directions = read(shape)
    medians = torch.arange(shape[2]).float() % 3
    assert (directions[0].gaps == medians).any()
    theirs, ours = twins(shape, medians)
    for backbone in (theirs.model_f, theirs.model_b):
        backbone.time_layer = OverHours(backbone.time_layer)
    check_equal(theirs, ours, directions, medians)


@torch.no_grad()
def test_other_stays_change_a_stay_in_pypots_only():
    """PyPOTS attends across the stays of a batch, so that a stay's first state depends on the others; ours does not."""
    shape = (6, 12, 4, 8)
    medians = torch.ones(4)
    theirs, ours = twins(shape, medians)
    imputations = {"theirs": [], "ours": []}
    for batch in ([0, 1, 2], [0, 4, 5]):
        directions = tuple(
            PypotsDirection(*(tensor[batch] for tensor in vars(direction).values())) for direction in read(shape)
        )
        one = directions[0]
        imputed, *_ = theirs.model_f(
            one.values, one.observed, one.gaps, one.last_observed, dict(enumerate(medians.tolist()))
        )
        imputations["theirs"].append(imputed[0])
        imputations["ours"].append(ours(as_directions(directions)).imputed_BTD[0])
    assert (imputations["theirs"][0] - imputations["theirs"][1]).abs().max() > 1e-3
    torch.testing.assert_close(*imputations["ours"], rtol=0, atol=1e-6)
