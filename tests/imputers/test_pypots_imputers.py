from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from imputune.errors import UserError
from imputune.imputers import pypots
from imputune.imputers.pypots import NETWORKS, PypotsImputer, PypotsSizes
from imputune.protocol.imputers import IMPUTERS
from imputune.settings.file import read_params

pytestmark = pytest.mark.slow

pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")

HOURS, VARIABLES, HIDDEN = 24, 4, 8
PYPOTS = read_params(Path(__file__).parents[2] / "params.yaml").pypots
SAMPLED = {"csdi"}  # draws noise


@pytest.fixture(scope="module")
def stays() -> tuple[torch.Tensor, torch.Tensor]:
    """12 stays; the last variable was never observed."""
    random = torch.Generator().manual_seed(3)
    values = torch.randn(12, HOURS, VARIABLES, generator=random)
    observed = (torch.rand(values.shape, generator=random) < 0.6).float()
    observed[..., -1] = 0
    return values * observed, observed


def build(name: str) -> PypotsImputer:
    """Return a small imputer, always with the same weights."""
    torch.manual_seed(5)
    network = getattr(PYPOTS, name).model_dump() if hasattr(PYPOTS, name) else {}
    sizes = PypotsSizes(hours=HOURS, variables=VARIABLES, hidden_size=HIDDEN, network=network)
    return PypotsImputer(name, sizes, batch_size=8, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(stays) -> Callable[[str], PypotsImputer]:
    """Give an imputer after an epoch on the stays, each once."""
    ready: dict[str, PypotsImputer] = {}

    def give(name: str) -> PypotsImputer:
        if name not in ready:
            ready[name] = build(name)
            values, observed = stays
            assert np.isfinite(ready[name].train_epoch(torch.where(observed > 0, values, torch.nan).numpy(), 11))
        return ready[name]

    return give


@pytest.mark.parametrize("name", NETWORKS)
def test_imputes_every_missing_cell_and_leaves_the_observed_ones(name, trained, stays):
    """Every number is finite, also for a variable never observed; observed cells stay; hidden states as catalogued."""
    values, observed = stays
    representation = trained(name).represent(values, observed)
    assert torch.isfinite(representation.imputed_BTD).all()
    assert torch.equal(representation.imputed_BTD[observed > 0], values[observed > 0])
    assert (representation.hidden_BH is not None) == IMPUTERS[name].has_hidden_state
    if representation.hidden_BH is not None:
        assert representation.hidden_BH.shape == (12, HIDDEN)
        assert representation.hidden_BH.std() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stay_alone_is_the_stay_in_a_batch(name, trained, stays):
    """A stay's imputation does not depend on the other stays of the batch, unless noise is drawn."""
    values, observed = stays
    together, alone = (trained(name).represent(values[some], observed[some]) for some in (slice(None), slice(3, 4)))
    difference = (together.imputed_BTD[3:4] - alone.imputed_BTD).abs().max()
    assert (difference > 1e-4) == (name in SAMPLED)
    if together.hidden_BH is not None:
        torch.testing.assert_close(together.hidden_BH[3:4], alone.hidden_BH, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stay_with_nothing_observed_gives_numbers(name, trained):
    """A stay without observations is imputed without NaN."""
    representation = trained(name).represent(torch.full((2, HOURS, VARIABLES), 9.0), torch.zeros(2, HOURS, VARIABLES))
    assert torch.isfinite(representation.imputed_BTD).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_weights_give_the_same_imputation(name, trained, stays):
    """A new object with the weights loaded imputes like the trained one; the same call gives the same bits."""
    imputer, other = trained(name), build(name)
    other.module.load_state_dict(imputer.module.state_dict())
    first, again, loaded = (each.represent(*stays).imputed_BTD for each in (imputer, imputer, other))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, loaded, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["brits", "grud", "usgan"])
def test_a_faster_network_is_trained_to_the_same_weights(name, stays, monkeypatch):
    """After two epochs it imputes as PyPOTS's own does, but for rounding."""
    values, observed = stays
    with_nan = torch.where(observed > 0, values, torch.nan).numpy()
    imputed = []
    for speed_up in (pypots.speed_up, lambda network: None):
        monkeypatch.setattr(pypots, "speed_up", speed_up)
        imputer = build(name)
        for seed in (1, 2):
            imputer.train_epoch(with_nan, seed)
        imputed.append(imputer.represent(values, observed))
    torch.testing.assert_close(imputed[0].imputed_BTD, imputed[1].imputed_BTD, rtol=0, atol=1e-4)
    torch.testing.assert_close(imputed[0].hidden_BH, imputed[1].hidden_BH, rtol=0, atol=1e-4)


def test_training_depends_on_its_seed_alone(stays):
    """Training depends only on its seed, and leaves the global generator as it was."""
    with_nan = torch.where(stays[1] > 0, stays[0], torch.nan).numpy()
    losses = []
    for seed in (1, 1, 2):
        imputer = build("saits")
        torch.manual_seed(len(losses))
        expected = torch.rand(3, generator=torch.Generator().manual_seed(len(losses)))
        losses.append(imputer.train_epoch(with_nan, seed))
        assert torch.equal(torch.rand(3), expected)
    assert losses[0] == losses[1] != losses[2]


def test_says_nothing_on_the_screen(stays, capfd):
    """PyPOTS's banner and log do not reach the screen."""
    build("grud").represent(*stays)
    assert capfd.readouterr() == ("", "")


def test_a_failure_of_pypots_is_reported_with_its_own_message(monkeypatch, stays):
    """The error line contains the cause, which PyPOTS logs and does not raise."""
    imputer = build("grud")
    monkeypatch.setattr(imputer.module, "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(UserError, match=r"PyPOTS could not train imputer grud .*no memory.*: leave it out"):
        imputer.train_epoch(stays[0].numpy(), 1)
