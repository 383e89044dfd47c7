"""PyPOTS's networks, made faster, compute what PyPOTS computes."""

import copy
import io

import pytest
import torch

pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")

from pypots.data.utils import _parse_delta_torch, parse_delta
from pypots.imputation.brits.data import DatasetForBRITS
from pypots.nn.modules.brits import BackboneBRITS
from pypots.nn.modules.loss import RMSE

from imputune.models.faster_pypots import hours_since_observed, speed_up

BRITS_SHAPES = [(4, 48, 35, 108), (1, 1, 1, 1), (3, 2, 4, 1), (1, 7, 1, 5)]  # stays, hours, variables, hidden size
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def records(stays, hours, variables):
    """Return what PyPOTS's BRITS reads in training, of random records with most cells missing."""
    random = torch.Generator().manual_seed(7)
    values = torch.randn(stays, hours, variables, generator=random)
    values[torch.rand(values.shape, generator=random) < 0.6] = torch.nan
    directions = DatasetForBRITS({"X": values.numpy()}, return_X_ori=False, return_y=False).processed_data
    return {
        direction: {"X": cells["X"], "missing_mask": cells["missing_mask"], "deltas": cells["delta"]}
        for direction, cells in directions.items()
    }


def both_brits(shape):
    """Return PyPOTS's BRITS, a faster one with the same weights, and records."""
    stays, hours, variables, hidden_size = shape
    torch.manual_seed(3)
    slow = BackboneBRITS(hours, variables, hidden_size)
    fast = copy.deepcopy(slow)
    speed_up(fast)
    return slow, fast, records(stays, hours, variables)


@pytest.mark.parametrize("shape", BRITS_SHAPES)
def test_brits_is_that_of_pypots(shape):
    """Imputation, estimates, hidden states and both losses are the same, with and without gradients."""
    slow, fast, cells = both_brits(shape)
    expected = slow(cells)
    torch.testing.assert_close(fast(cells), expected, **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(fast(cells), expected, **CLOSE)


@pytest.mark.parametrize("shape", BRITS_SHAPES)
@pytest.mark.parametrize("results", [(0,), (1, 2), (3, 4), (5, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_brits_has_the_gradients_of_pypots(shape, results):
    """The gradients of all weights and of the values are the same, whichever of the results the loss is made of."""
    slow, fast, cells = both_brits(shape)
    of_values = []
    for network in (slow, fast):
        values = cells["forward"]["X"].clone().requires_grad_()
        both = {"forward": cells["forward"] | {"X": values}, "backward": cells["backward"] | {"X": values.flip(1)}}
        outputs = network(both)
        factors = torch.Generator().manual_seed(1)
        sum((outputs[each] * torch.randn(outputs[each].shape, generator=factors)).sum() for each in results).backward()
        of_values.append(values.grad)
    torch.testing.assert_close(of_values[1], of_values[0], rtol=1e-4, atol=1e-5)
    for (name, weight), other in zip(slow.named_parameters(), fast.parameters(), strict=True):
        expected, found = (torch.zeros_like(weight) if each.grad is None else each.grad for each in (weight, other))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_what_stands_in_missing_cells_changes_nothing():
    """The faster BRITS reads observed cells alone."""
    _, fast, cells = both_brits((4, 6, 3, 5))
    expected = fast(cells)
    for direction in cells.values():
        direction["X"] = torch.where(direction["missing_mask"] > 0, direction["X"], 9.0)
    torch.testing.assert_close(fast(cells), expected)


def saved_and_loaded(network):
    """Return the network after torch.save and torch.load, which pickle it."""
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded])
def test_a_copy_computes_with_its_own_weights(copied):
    """A copy stays fast, and follows its own weights alone; so does the network that was copied."""
    slow, fast, cells = both_brits((3, 5, 4, 6))
    expected = fast(cells)
    other = copied(fast)
    torch.testing.assert_close(other(cells), expected, rtol=0, atol=0)
    torch.manual_seed(4)
    changed = BackboneBRITS(5, 4, 6)
    assert list(other.state_dict()) == list(slow.state_dict())
    other.load_state_dict(changed.state_dict())
    torch.testing.assert_close(other(cells), changed(cells), **CLOSE)
    torch.testing.assert_close(fast(cells), expected, rtol=0, atol=0)
    assert other.forward.args == (other,)


def test_brits_with_another_training_loss_stays_that_of_pypots():
    """Our losses are mean absolute errors."""
    network = BackboneBRITS(6, 3, 5, RMSE())
    speed_up(network)
    assert network.forward.__func__ is BackboneBRITS.forward


def test_gaps_count_from_the_hour_after_an_observation():
    """The rule by hand."""
    observed = torch.tensor([[[0.0], [1.0], [0.0], [0.0], [1.0], [0.0]]])
    assert hours_since_observed(observed).flatten().tolist() == [0, 1, 1, 2, 3, 1]


def test_gaps_are_those_of_pypots():
    """PyPOTS computes them with PyTorch and with NumPy; of many stays, or of one."""
    observed = (torch.rand(5, 9, 4, generator=torch.Generator().manual_seed(2)) < 0.4).float()
    gaps = hours_since_observed(observed)
    assert torch.equal(gaps, _parse_delta_torch(observed))
    assert torch.equal(hours_since_observed(observed[0]), _parse_delta_torch(observed[0]))
    assert torch.equal(gaps, torch.stack([torch.as_tensor(parse_delta(each)) for each in observed.numpy()]).float())
