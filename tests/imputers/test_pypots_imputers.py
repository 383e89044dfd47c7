from collections.abc import Callable

import numpy as np
import pytest
import torch

from imputune.errors import UserError
from imputune.imputers.pypots import NETWORKS, PypotsImputer
from imputune.protocol.imputers import IMPUTERS

pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")

HOURS, VARIABLES, HIDDEN = 24, 4, 8
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
    return PypotsImputer(name, HOURS, VARIABLES, HIDDEN, batch_size=8, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(stays) -> Callable[[str], PypotsImputer]:
    """Give an imputer after an epoch on the stays, each once."""
    made: dict[str, PypotsImputer] = {}

    def give(name: str) -> PypotsImputer:
        if name not in made:
            made[name] = build(name)
            values, observed = stays
            assert np.isfinite(made[name].train_epoch(torch.where(observed > 0, values, torch.nan).numpy(), 11))
        return made[name]

    return give


@pytest.mark.parametrize("name", NETWORKS)
def test_imputes_every_hole_and_leaves_what_was_observed(name, trained, stays):
    """Every number is finite, also in a variable never seen; observed cells stay; hidden states where there are."""
    values, observed = stays
    made = trained(name).represent(values, observed)
    assert torch.isfinite(made.imputed_BTD).all()
    assert torch.equal(made.imputed_BTD[observed > 0], values[observed > 0])
    assert (made.hidden_BH is not None) == IMPUTERS[name].hidden
    if made.hidden_BH is not None:
        assert made.hidden_BH.shape == (12, HIDDEN)
        assert made.hidden_BH.std() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stay_alone_is_the_stay_in_a_batch(name, trained, stays):
    """Nothing of a stay's imputation depends on who stands beside it, but where noise is drawn."""
    values, observed = stays
    together, alone = (trained(name).represent(values[some], observed[some]) for some in (slice(None), slice(3, 4)))
    difference = (together.imputed_BTD[3:4] - alone.imputed_BTD).abs().max()
    assert (difference > 1e-4) == (name in SAMPLED)
    if together.hidden_BH is not None:
        torch.testing.assert_close(together.hidden_BH[3:4], alone.hidden_BH, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stay_with_nothing_observed_gives_numbers(name, trained):
    """There is nothing to go by, and yet no NaN."""
    made = trained(name).represent(torch.full((2, HOURS, VARIABLES), 9.0), torch.zeros(2, HOURS, VARIABLES))
    assert torch.isfinite(made.imputed_BTD).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_weights_give_the_same_imputation(name, trained, stays):
    """A new object with the weights loaded imputes as the one that was trained; the same call gives the same bits."""
    imputer, other = trained(name), build(name)
    other.module.load_state_dict(imputer.module.state_dict())
    first, again, loaded = (each.represent(*stays).imputed_BTD for each in (imputer, imputer, other))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, loaded, rtol=0, atol=1e-6)


def test_training_depends_on_its_seed_alone(stays):
    """Two trainings agree whatever was drawn in between, another seed does not; outer draws go on as before."""
    holed = torch.where(stays[1] > 0, stays[0], torch.nan).numpy()
    losses = []
    for seed in (1, 1, 2):
        imputer = build("saits")
        torch.manual_seed(len(losses))
        expected = torch.rand(3, generator=torch.Generator().manual_seed(len(losses)))
        losses.append(imputer.train_epoch(holed, seed))
        assert torch.equal(torch.rand(3), expected)
    assert losses[0] == losses[1] != losses[2]


def test_says_nothing_on_the_screen(stays, capfd):
    """PyPOTS's banner and log stay out of the user's sight."""
    build("grud").represent(*stays)
    assert capfd.readouterr() == ("", "")


def test_a_failure_of_pypots_is_told_in_its_own_words(monkeypatch, stays):
    """What PyPOTS logs, and does not raise, is in the one line that the user sees."""
    imputer = build("grud")
    monkeypatch.setattr(imputer.module, "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(UserError, match=r"PyPOTS could not train imputer grud .*no memory.*: leave it out"):
        imputer.train_epoch(stays[0].numpy(), 1)
