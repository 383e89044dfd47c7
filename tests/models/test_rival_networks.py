"""Every rival: shapes, independence of stays, missing cells, gradients, overfitting, its paper's formulas by hand."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.errors import UserError
from imputune.models.rivals import pypots
from imputune.models.rivals.build import RivalSizes, build_rival
from imputune.models.rivals.classifier import RivalClassifier, places_in_stays, sinusoids
from imputune.models.rivals.ipnets import IpNets
from imputune.models.rivals.mtan import Mtan
from imputune.models.rivals.pypots import PypotsEncoder
from imputune.models.rivals.raindrop import Raindrop, strongest_edges
from imputune.models.rivals.seft import Seft
from imputune.models.rivals.strats import Strats

Record = tuple[torch.Tensor, torch.Tensor]
MakeRecord = Callable[..., Record]
HOURS, VARIABLES, STATIC = 12, 5, 3
ATTENTION = {"n_layers": 1, "n_heads": 2, "d_k": 4, "d_v": 4, "d_ffn": 8, "dropout": 0.1, "attn_dropout": 0.0}
SIZES = {
    "seft": {"width": 16, "layers": 2, "heads": 2, "time_channels": 8, "dropout": 0.1},
    "mtan": {"hidden_size": 16, "heads": 2, "time_channels": 8, "reference_points": 6},
    "ipnets": {"hidden_size": 16, "dropout": 0.1, "reconstruction_weight": 0.1},
    "raindrop": {"channels": 4, "time_channels": 8, "attention": 8},
    "strats": {"width": 16, "layers": 2, "heads": 2, "feedforward": 16, "dropout": 0.1},
    "brits": {"rnn_hidden_size": 8},
    "grud": {"rnn_hidden_size": 8},
    "saits": ATTENTION,
    "itransformer": ATTENTION,
    "patchtst": {**ATTENTION, "patch_size": 4, "patch_stride": 2},
    "tefn": {"n_fod": 2, "dropout": 0.1},
}
OWN = ("seft", "mtan", "ipnets", "raindrop", "strats")
needs_pypots = pytest.mark.skipif(
    find_spec("pypots") is None, reason="PyPOTS is not installed: pip install -e '.[pypots]'"
)
RIVALS = [pytest.param(name, marks=() if name in OWN else needs_pypots) for name in SIZES]


def rival(name: str, record: int = 0, hours: int = HOURS, variables: int = VARIABLES) -> RivalClassifier:
    """Build a small rival with the same weights every time, for prediction."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        sizes = RivalSizes(
            hours=hours, variables=variables, network=SIZES[name], mlp_width=16, dropout=0.1, record=record
        )
        return build_rival(name, sizes).eval()  # type: ignore[arg-type]


def logits(model: RivalClassifier, *inputs: torch.Tensor) -> torch.Tensor:
    """Return the logits (B,)."""
    with torch.no_grad():
        return model(*inputs)[0]


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("record", [0, STATIC])
def test_a_rival_gives_one_logit_per_stay(make_record: MakeRecord, name: str, record: int) -> None:
    """Also for one stay, and for no stay that was observed at all."""
    model = rival(name, record)
    for stays in (1, 3):
        static = [torch.randn(stays, STATIC)] if record else []
        values, observed = make_record(stays, HOURS, VARIABLES)
        found = logits(model, values, observed, *static)
        assert found.shape == (stays,)
        assert found.isfinite().all()
        assert logits(model, values * 0, observed * 0, *static).isfinite().all()


@pytest.mark.parametrize("name", OWN)
def test_a_record_may_have_one_hour_and_one_variable(make_record: MakeRecord, name: str) -> None:
    """The smallest record there is."""
    found = logits(rival(name, hours=1, variables=1), *make_record(4, 1, 1))
    assert found.shape == (4,)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", RIVALS)
def test_a_stay_alone_has_the_risk_that_it_has_in_a_batch(make_record: MakeRecord, name: str) -> None:
    """Among the stays of the batch is one without an observation, and one with every cell."""
    model = rival(name)
    values, observed = make_record(8, HOURS, VARIABLES)
    observed[2], observed[3] = 0, 1
    alone = torch.cat([logits(model, values[[stay]], observed[[stay]]) for stay in range(8)])
    torch.testing.assert_close(logits(model, values, observed), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RIVALS)
def test_what_stands_in_missing_cells_changes_nothing(make_record: MakeRecord, name: str) -> None:
    """Numbers where nothing was observed have no effect, to the last bit; those of observed cells do."""
    model = rival(name)
    values, observed = make_record(4, HOURS, VARIABLES)
    expected = logits(model, values, observed)
    assert logits(model, values + 7 * (1 - observed), observed).equal(expected)
    assert not logits(model, values + observed, observed).equal(expected)


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_reads_which_cells_were_observed(make_record: MakeRecord, name: str) -> None:
    """A missing cell is not an observed mean."""
    model = rival(name)
    values, observed = make_record(4, HOURS, VARIABLES)
    assert not logits(model, values, torch.ones_like(observed)).equal(logits(model, values, observed))


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_reads_the_hour_of_an_observation(make_record: MakeRecord, name: str) -> None:
    """A record that runs backwards has another risk."""
    model = rival(name)
    values, observed = make_record(4, HOURS, VARIABLES)
    assert not logits(model, values.flip(1), observed.flip(1)).allclose(logits(model, values, observed), atol=1e-7)


@pytest.mark.parametrize("name", RIVALS)
def test_every_weight_learns(make_record: MakeRecord, name: str) -> None:
    """Each trainable weight gets a gradient, with static facts too."""
    model = rival(name, STATIC).train()
    torch.manual_seed(0)
    found, penalty = model(*make_record(16, HOURS, VARIABLES), torch.randn(16, STATIC))
    (found.sigmoid().mean() + penalty).backward()
    assert [each for each, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("name", RIVALS)
def test_static_facts_change_the_risk(make_record: MakeRecord, name: str) -> None:
    """The readout reads them."""
    model, static = rival(name, STATIC), torch.zeros(4, STATIC)
    record = make_record(4, HOURS, VARIABLES)
    assert not logits(model, *record, static + 1).equal(logits(model, *record, static))


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_overfits_eight_stays(make_record: MakeRecord, name: str) -> None:
    """It learns outcomes that were drawn at random."""
    torch.manual_seed(3)
    model = rival(name)
    values, observed = make_record(8, HOURS, VARIABLES, share=0.6)
    outcome = torch.tensor([0.0, 1, 0, 1, 1, 0, 1, 0])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(model(values, observed)[0], outcome)  # without dropout: in eval
        loss.backward()
        optimizer.step()
        if loss < 0.1:
            break
    assert loss < 0.2


@pytest.mark.parametrize("name", RIVALS)
def test_saved_weights_give_the_same_risks(make_record: MakeRecord, name: str) -> None:
    """A new object with the weights of another predicts the same bits."""
    model, other = rival(name), rival(name)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01
    record = make_record(4, HOURS, VARIABLES)
    assert not logits(other, *record).equal(logits(model, *record))
    other.load_state_dict(model.state_dict())
    assert logits(other, *record).equal(logits(model, *record))


def test_seft_takes_weighted_means_of_what_it_reads(make_record: MakeRecord) -> None:
    """The embedding of each stay, head by head, from a loop over its observations."""
    torch.manual_seed(0)
    network = Seft(HOURS, VARIABLES, **SIZES["seft"]).eval()
    values, observed = make_record(3, HOURS, VARIABLES)
    found, penalty = network(values, observed)
    for stay in range(3):
        encoded, scores = [], []
        for hour, variable in observed[stay].nonzero().tolist():
            one = (values[stay, hour, variable][None], torch.tensor([hour]), torch.tensor([variable]))
            encoded.append(network.further(network.first(network.hour_TC, *one))[0])
            scores.append(network.scores(network.hour_TC, *one)[0])
        weight_MA = torch.stack(scores).softmax(0)
        torch.testing.assert_close(found[stay], (weight_MA.T @ torch.stack(encoded)).flatten())
    assert penalty == 0


def test_mtan_interpolates_by_attention_over_observed_hours(make_record: MakeRecord) -> None:
    """Each variable's attention runs over the hours in which it was observed, and gives 0 without one."""
    torch.manual_seed(0)
    network = Mtan(HOURS, VARIABLES, **SIZES["mtan"])
    values, observed = make_record(2, HOURS, VARIABLES)
    observed[1, :, 2] = 0
    seen: list[torch.Tensor] = []
    network.mixing.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(values * observed, observed)
    found = seen[0].unflatten(2, (2, 2, VARIABLES))  # stay, reference point, head, value or mask, variable
    phi = {
        name: torch.cat([(times * rate + phase)[:1], (times * rate + phase)[1:].sin()])
        for name, times, rate, phase in [("query", 0.2, network.rate_AC[1], network.phase_AC[1])]
    }
    keys = []
    for hour in range(HOURS):
        angle = hour / (HOURS - 1) * network.rate_AC[1] + network.phase_AC[1]
        keys.append(torch.cat([angle[:1], angle[1:].sin()]) @ network.key_ACC[1])
    score_T = torch.stack(keys) @ (phi["query"] @ network.query_ACC[1]) / 8**0.5
    hours = observed[0, :, 1] > 0
    expected = score_T[hours].softmax(0) @ values[0, hours, 1]
    torch.testing.assert_close(found[0, 1, 1, 0, 1], expected, rtol=1e-3, atol=1e-5)  # reference 1 of 6 stands at 0.2
    assert (found[0, :, :, 1] == 1).all()
    assert not found[1, :, :, :, 2].any()


def test_ipnets_interpolate_within_and_across_variables() -> None:
    """By hand, for two variables of three hours: sigma, lambda and chi in the first hour."""
    network = IpNets(3, 2, hidden_size=4, dropout=0.0, reconstruction_weight=1.0).eval()
    with torch.no_grad():
        network.raw_rate_D[:] = torch.tensor([0.5, 1.0]).expm1().log()  # softplus gives rates 0.5 and 1
        network.mixing_DD[:] = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    values = torch.tensor([[[1.0, 0.0], [0.0, 4.0], [3.0, 0.0]]])
    observed = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    seen: list[torch.Tensor] = []
    network.recurrence.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(values, observed)
    first, second = torch.tensor([0.0, -2.0]).exp(), torch.tensor(-1.0).exp()  # weights of the observed hours
    sigma = torch.stack([(first * torch.tensor([1.0, 3.0])).sum() / first.sum(), torch.tensor(4.0)])
    intensity = torch.stack([first.sum(), second])
    shared = intensity * sigma / intensity.sum()
    chi = torch.stack([shared[0] + 0.5 * shared[1], shared[1]])
    sharp = torch.tensor([0.0, -20.0]).exp()
    gamma = torch.stack([(sharp * torch.tensor([1.0, 3.0])).sum() / sharp.sum(), torch.tensor(4.0)])
    torch.testing.assert_close(seen[0][0, 0], torch.cat([chi, gamma - chi, intensity]))


def test_ipnets_learn_to_fill_withheld_cells(make_record: MakeRecord) -> None:
    """In training there is an error on withheld cells, by its weight; in prediction there is none."""
    networks = [IpNets(HOURS, VARIABLES, hidden_size=4, dropout=0.0, reconstruction_weight=weight) for weight in (1, 3)]
    record, penalties = make_record(8, HOURS, VARIABLES), []
    for network in networks:
        torch.manual_seed(0)
        penalties.append(network.train()(*record)[1].item())
        assert network.eval()(*record)[1] == 0
    assert 0.3 < penalties[0] < 3
    assert penalties[1] == pytest.approx(3 * penalties[0])


def test_ipnets_far_from_an_observation_are_at_the_mean() -> None:
    """Weights too small for double precision leave 0, and finite gradients."""
    network = IpNets(48, 1, hidden_size=4, dropout=0.0, reconstruction_weight=1.0).eval()
    with torch.no_grad():
        network.raw_rate_D[:] = 50.0
    observed = torch.zeros(1, 48, 1)
    observed[0, 0] = 1
    seen: list[torch.Tensor] = []
    network.recurrence.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(3 * observed, observed)[0].sum().backward()
    assert seen[0][0, 0].tolist() == [3, 0, 1]
    assert seen[0][0, -1].tolist() == [0, 0, 0]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_raindrop_sends_messages_from_observed_variables() -> None:
    """By hand, in one hour: an observed variable keeps its embedding, the others sum up what reaches them."""
    torch.manual_seed(0)
    layer = Raindrop(1, 3, channels=2, time_channels=2, attention=2).first
    observed, hour = torch.tensor([[[1.0, 0.0, 1.0]]]), sinusoids(1, 2)
    state = torch.rand(1, 1, 3, 2) * observed.unsqueeze(3)
    edges = torch.rand(1, 3, 3)
    found, alpha = layer(state, observed, edges, hour)
    message = torch.zeros(2)
    for sender in (0, 2):
        reading = torch.cat([layer.receiver_DC[1], hour[0]])
        weight = (layer.importance(state[0, 0, sender]) @ reading).sigmoid()
        assert alpha[0, 0, sender, 1].item() == pytest.approx(weight.item(), rel=1e-5)
        strength = (state[0, 0, sender] @ layer.sender_DC[sender]) * weight * edges[0, sender, 1]
        message = message + (strength * layer.direction_DC[1]).relu()
    torch.testing.assert_close(found[0, 0, 1], message)
    torch.testing.assert_close(found[0, 0, [0, 2]], state[0, 0, [0, 2]])
    assert not alpha[0, 0, 1].any()


def test_raindrop_cuts_the_weaker_half_of_the_edges() -> None:
    """An edge is the mean over the hours in which its sender was observed."""
    alpha = torch.zeros(1, 2, 2, 2)
    alpha[0, :, 0] = torch.tensor([[0.9, 0.2], [0.5, 0.4]])
    alpha[0, 0, 1] = torch.tensor([0.6, 0.8])
    observed = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    torch.testing.assert_close(strongest_edges(alpha, observed), torch.tensor([[[0.7, 0.0], [0.0, 0.8]]]))


def test_strats_does_not_depend_on_the_order_of_observations(make_record: MakeRecord) -> None:
    """Variables that stand in another order, with their embeddings, give the same embedding of the stay."""
    torch.manual_seed(0)
    network = Strats(HOURS, VARIABLES, **SIZES["strats"]).eval()
    values, observed = make_record(3, HOURS, VARIABLES)
    expected, _ = network(values, observed)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        network.variable_DW[:] = network.variable_DW[order]
    torch.testing.assert_close(network(values[..., order], observed[..., order])[0], expected)
    assert not network(values * 0, observed * 0)[0].any()


def test_observations_of_a_stay_stand_side_by_side() -> None:
    """A stay without one has empty places alone; no observation at all leaves one place."""
    laid_out = places_in_stays(torch.tensor([0, 0, 2]), 3).laid_out(torch.tensor([[1.0], [2.0], [3.0]]), -1.0)
    assert laid_out[..., 0].tolist() == [[1, 2], [-1, -1], [3, -1]]
    assert places_in_stays(torch.tensor([], dtype=torch.int64), 2).laid_out(torch.zeros(0, 1), 0.0).shape == (2, 1, 1)


def test_strats_keeps_the_order_of_stays_of_other_lengths(make_record: MakeRecord) -> None:
    """Stays of a large batch are computed in groups by length; each has the embedding that it has alone."""
    values, observed = make_record(20, HOURS, VARIABLES)
    observed = observed * (torch.arange(20) % 7 > 0)[:, None, None]  # some without an observation
    observed[::3, HOURS // 2 :] = 0
    network = Strats(HOURS, VARIABLES, width=8, layers=1, heads=2, feedforward=8, dropout=0.0).eval()
    alone = torch.cat([network(values[stay : stay + 1], observed[stay : stay + 1])[0] for stay in range(20)])
    torch.testing.assert_close(network(values, observed)[0], alone, rtol=0, atol=1e-5)


def test_time_channels_must_be_even() -> None:
    """Sines and cosines come in pairs."""
    with pytest.raises(ValueError, match="time channels must be even, got 3"):
        sinusoids(4, 3)


@needs_pypots
def test_a_network_that_mixes_the_stays_of_a_batch_is_found(
    make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRU-D as PyPOTS calls it, with the mean of the batch: a stay alone has another risk."""
    own = pypots.NETWORKS["grud"].inputs

    def with_batch_mean(values: torch.Tensor, observed: torch.Tensor) -> pypots.Inputs:
        mean_D = (values * observed).sum((0, 1)) / observed.sum((0, 1))
        return {**own(values, observed), "empirical_mean": mean_D}

    monkeypatch.setitem(pypots.NETWORKS, "grud", replace(pypots.NETWORKS["grud"], inputs=with_batch_mean))
    model = rival("grud")
    values, observed = make_record(8, HOURS, VARIABLES)
    alone = torch.cat([logits(model, values[[stay]], observed[[stay]]) for stay in range(8)])
    assert not torch.allclose(logits(model, values, observed), alone, rtol=1e-4, atol=1e-6)


@needs_pypots
def test_what_pypots_refuses_is_one_line() -> None:
    """A patch longer than the record."""
    sizes = {**SIZES["patchtst"], "patch_size": 40, "patch_stride": 2}
    with pytest.raises(UserError, match=r"^PyPOTS cannot use rival patchtst \(.+\)$"):
        PypotsEncoder("patchtst", hours=HOURS, variables=VARIABLES, sizes=sizes).eval()(
            torch.zeros(1, HOURS, VARIABLES), torch.zeros(1, HOURS, VARIABLES)
        )


@needs_pypots
def test_a_full_gpu_is_no_failure_of_the_rival(make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the command: a failure would be kept as the rival's result."""
    model = rival("tefn")

    def full(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.encoder.module, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        logits(model, *make_record(2, HOURS, VARIABLES))
