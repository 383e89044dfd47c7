import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from imputune.data.directions import Directions
from imputune.models.csai import (
    Csai,
    CsaiSizes,
    Reconstruction,
    sinusoidal_positions,
)

Record = tuple[torch.Tensor, torch.Tensor]
MakeRecord = Callable[..., Record]
GOLDEN = Path(__file__).parents[1] / "golden" / "csai.json"
SIZES = CsaiSizes(variables=5, hours=12, hidden_size=7, channels=8, attention_heads=2, feedforward=16)
OUTPUTS = ("combined_KBTD", "history_KBTD", "imputed_BTD", "hidden_KBTH", "last_BH")


def build(sizes: CsaiSizes = SIZES, seed: int = 0) -> Csai:
    """Build a seeded CSAI with median gaps that no record's gaps are equal to."""
    torch.manual_seed(seed)
    imputer = Csai(sizes)
    imputer.median_gap_hours_D += 1.25 + 0.5 * torch.arange(sizes.variables)
    return imputer


def outputs(reconstruction: Reconstruction) -> dict[str, torch.Tensor]:
    """Return every output of a CSAI by name."""
    return {name: getattr(reconstruction, name) for name in OUTPUTS}


def train(imputer: Csai, record: Record, steps: int) -> list[float]:
    """Fit the combined estimates to the values of every cell, observed or not; return the loss of each step."""
    directions, optimizer, losses = Directions.of(*record), torch.optim.Adam(imputer.parameters(), 0.01), []
    for _ in range(steps):
        loss = (imputer(directions).combined_KBTD - record[0]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("stays", "hours", "variables"), [(4, 12, 5), (1, 12, 5), (4, 1, 5), (4, 12, 1), (1, 1, 1)])
def test_shapes(make_record: MakeRecord, stays: int, hours: int, variables: int) -> None:
    """Every output has its documented shape and is finite, for one stay, one hour and one variable too."""
    imputer = build(replace(SIZES, hours=hours, variables=variables))
    shapes = {
        "combined_KBTD": (2, stays, hours, variables),
        "history_KBTD": (2, stays, hours, variables),
        "imputed_BTD": (stays, hours, variables),
        "hidden_KBTH": (2, stays, hours, SIZES.hidden_size),
        "last_BH": (stays, SIZES.hidden_size),
    }
    for name, output in outputs(imputer(Directions.of(*make_record(stays, hours, variables)))).items():
        assert output.shape == shapes[name], name
        assert torch.isfinite(output).all(), name


@pytest.mark.parametrize(("hours", "variables"), [(11, 5), (13, 5), (1, 5), (12, 4), (12, 1)])
def test_other_hours_or_variables_are_refused(make_record: MakeRecord, hours: int, variables: int) -> None:
    """A record of another shape than the imputer's sizes is an error that names both, also if it could be broadcast."""
    with pytest.raises(ValueError, match=rf"\(hours, variables\) \(12, 5\), got \({hours}, {variables}\)"):
        build()(Directions.of(*make_record(4, hours, variables)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
def test_stay_alone_gives_the_same_as_in_any_batch(make_record: MakeRecord, training: bool, gradient: bool) -> None:
    """A stay's outputs are the same alone, in a batch, and beside stays with extreme values, in every mode of torch."""
    imputer = build().train(training)
    (values, observed), (others, others_observed) = make_record(6), make_record(9, seed=1, share=0.8)
    with torch.set_grad_enabled(gradient):
        batch = outputs(imputer(Directions.of(values, observed)))
        for i in range(6):
            alone = outputs(imputer(Directions.of(values[[i]], observed[[i]])))
            larger = torch.cat([100 * others, values[[i]]]), torch.cat([others_observed, observed[[i]]])
            mixed = outputs(imputer(Directions.of(*larger)))
            for name in OUTPUTS:
                stays = 1 if name.endswith(("KBTD", "KBTH")) else 0
                row = batch[name].narrow(stays, i, 1)
                torch.testing.assert_close(alone[name], row, rtol=0, atol=1e-5, msg=name)
                torch.testing.assert_close(mixed[name].narrow(stays, 9, 1), row, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e6])
def test_numbers_in_missing_cells_change_nothing(make_record: MakeRecord, junk: float) -> None:
    """NaN and any number in missing cells leave every output and gradient bit-equal."""
    imputer, (values, observed) = build(), make_record(4)
    results = []
    for cells in (values, torch.where(observed > 0, values, junk)):
        given = outputs(imputer(Directions.of(cells, observed)))
        loss = given["combined_KBTD"].square().mean() + given["last_BH"].square().mean()
        results.append([*given.values(), *torch.autograd.grad(loss, list(imputer.parameters()))])
    assert all(torch.equal(clean, junky) for clean, junky in zip(*results, strict=True))


def test_observed_cells_pass_through(make_record: MakeRecord) -> None:
    """Observed cells stay bit-equal, and each missing cell is the mean of both directions' estimates."""
    values, observed = make_record(4)
    given = build()(Directions.of(values, observed))
    seen = observed > 0
    assert torch.equal(given.imputed_BTD[seen], values[seen])
    forward, backward = given.combined_KBTD
    torch.testing.assert_close(given.imputed_BTD[~seen], ((forward + backward) / 2)[~seen], rtol=0, atol=1e-6)


def test_later_values_do_not_reach_the_regressions_of_an_earlier_hour(make_record: MakeRecord) -> None:
    """With the first state fixed, the forward direction's estimates up to hour 5 do not depend on hours 6 and later."""
    imputer, (values, observed) = build(), make_record(4)
    for state in imputer.first_states:
        torch.nn.init.zeros_(state.output.weight)
    before = imputer(Directions.of(values, observed)).combined_KBTD
    values[:, 6:] += 10 * observed[:, 6:]
    after = imputer(Directions.of(values, observed)).combined_KBTD
    assert torch.equal(before[0, :, :6], after[0, :, :6])
    assert not torch.equal(before[0, :, 6:], after[0, :, 6:])
    assert not torch.equal(before[1, :, :6], after[1, :, :6])


def test_own_value_does_not_reach_its_history_regression(make_record: MakeRecord) -> None:
    """With the first state fixed, a cell's history regression does not depend on the cell itself."""
    imputer, (values, observed) = build(), make_record(2, share=1.0)
    for state in imputer.first_states:
        torch.nn.init.zeros_(state.output.weight)
    before = imputer(Directions.of(values, observed)).history_KBTD
    values[:, 5, 2] += 10
    after = imputer(Directions.of(values, observed)).history_KBTD
    assert torch.equal(before[:, :, 5], after[:, :, 5])
    assert not torch.equal(before[0, :, 6], after[0, :, 6])


def test_backward_is_forward_of_the_flipped_record(make_record: MakeRecord) -> None:
    """With both directions' weights swapped, every estimate of the flipped record is the flipped estimate."""
    imputer, (values, observed) = build(), make_record(4)
    swapped = build(seed=1)
    first, second = "first_states.0.", "first_states.1."
    state = imputer.state_dict()
    for name in state:
        if name.startswith(first):
            other = second + name.removeprefix(first)
            state[name], state[other] = state[other], state[name]
        elif not name.startswith(second) and name != "median_gap_hours_D":
            state[name] = state[name].flip(0)
    swapped.load_state_dict(state)
    given, flipped = imputer(Directions.of(values, observed)), swapped(Directions.of(values.flip(1), observed.flip(1)))
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(flipped.imputed_BTD, given.imputed_BTD.flip(1), **close)
    torch.testing.assert_close(flipped.combined_KBTD, given.combined_KBTD.flip(0, 2), **close)
    torch.testing.assert_close(flipped.history_KBTD, given.history_KBTD.flip(0, 2), **close)
    torch.testing.assert_close(flipped.hidden_KBTH, given.hidden_KBTH.flip(0), **close)
    torch.testing.assert_close(flipped.last_BH, given.last_BH, **close)


def test_each_weight_gets_gradient(make_record: MakeRecord) -> None:
    """Every weight tensor of each direction gets finite gradients that are not all 0.

    Two parts have no effect by construction and get none: the diagonal of the feature regression, and the attention's
    key bias, which adds the same to every score of a softmax.
    """
    imputer = build()
    given = imputer(Directions.of(*make_record(6)))
    (given.combined_KBTD.square().mean() + given.last_BH.square().mean()).backward()
    for name, parameter in imputer.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        by_direction = [parameter.grad] if name.startswith("first_states") else parameter.grad
        assert all((gradient != 0).any() for gradient in by_direction), name
    assert (imputer.feature.grad.diagonal(dim1=1, dim2=2) == 0).all()
    for state in imputer.first_states:
        query, key, value = state.attention.self_attn.in_proj_bias.grad.chunk(3)
        assert key.abs().max() < 1e-3 * min(query.abs().max(), value.abs().max())


def test_head_alone_trains_through_the_last_state(make_record: MakeRecord) -> None:
    """A loss on the last hidden state alone, as of an unfrozen head, gives every weight a gradient."""
    imputer = build()
    imputer(Directions.of(*make_record(6))).last_BH.square().sum().backward()
    for name, parameter in imputer.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_overfits_eight_stays(make_record: MakeRecord) -> None:
    """Eight stays of noise are overfitted: the error on all their cells, observed or not, falls below a sixth."""
    _, observed = make_record(8)
    truth, _ = make_record(8, seed=1, share=1.0)
    losses = train(build(replace(SIZES, hidden_size=32, channels=16, feedforward=32)), (truth, observed), steps=200)
    assert losses[0] > 0.7
    assert losses[-1] < losses[0] / 6


def test_same_seed_same_bits(make_record: MakeRecord) -> None:
    """The same seed gives bit-equal weights before and after training; another seed gives other weights."""
    imputers = [build(seed=seed) for seed in (0, 0, 1)]
    for imputer in imputers:
        train(imputer, make_record(4), steps=3)
    first, again, other = (imputer.state_dict() for imputer in imputers)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["history"], other["history"])


def test_saved_and_loaded_into_a_new_object(make_record: MakeRecord, tmp_path: Path) -> None:
    """Weights through safetensors give a differently seeded CSAI the same outputs, bit for bit."""
    imputer, loaded, directions = build(), Csai(SIZES), Directions.of(*make_record(4))
    train(imputer, make_record(4), steps=2)
    save_file(imputer.state_dict(), tmp_path / "csai.safetensors")
    assert not torch.equal(loaded(directions).imputed_BTD, imputer(directions).imputed_BTD)
    loaded.load_state_dict(load_file(tmp_path / "csai.safetensors"))
    expected = outputs(imputer(directions))
    for name, output in outputs(loaded(directions)).items():
        assert torch.equal(output, expected[name]), name


def test_golden_numbers(request: pytest.FixtureRequest) -> None:
    """A small seeded case gives the stored numbers; `pytest tests/models/test_csai.py --regenerate` rewrites them."""
    sizes = CsaiSizes(variables=3, hours=4, hidden_size=2, channels=4, attention_heads=2, feedforward=3)
    imputer = build(sizes, seed=2012)
    cells = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)
    given = imputer(Directions.of(torch.sin(cells), (cells % 5 < 3).float()))
    numbers = {name: [round(x, 7) for x in output.flatten().tolist()] for name, output in outputs(given).items()}
    if request.config.getoption("--regenerate"):
        GOLDEN.write_text(json.dumps(numbers, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert golden.keys() == numbers.keys()
    for name, expected in golden.items():
        assert numbers[name] == pytest.approx(expected, abs=1e-5), name


def test_first_hour_by_the_formulas(make_record: MakeRecord) -> None:
    """At each direction's first hour, both estimates follow from the weights by the paper's equations."""
    imputer, directions = build(), Directions.of(*make_record(4))
    given = imputer(directions)
    for k, hour in ((0, 0), (1, -1)):
        x, observed, gap = (
            tensor[k, :, 0] for tensor in (directions.values, directions.observed, directions.gap_hours)
        )
        h = imputer.first_states[k](directions.last_observed[k], directions.gap_hours[k] - imputer.median_gap_hours_D)
        h = h * torch.exp(-torch.relu(gap @ imputer.hidden_decay[k] + imputer.hidden_decay_bias[k]))
        history = h @ imputer.history[k] + imputer.history_bias[k]
        others = imputer.feature[k] - torch.diag(imputer.feature[k].diagonal())
        feature = (observed * x + (1 - observed) * history) @ others + imputer.feature_bias[k]
        input_decay = torch.exp(-torch.relu(gap * imputer.input_decay[k] + imputer.input_decay_bias[k]))
        weight = torch.cat([input_decay, observed], dim=-1) @ imputer.combine[k] + imputer.combine_bias[k]
        combined = weight * feature + (1 - weight) * history
        torch.testing.assert_close(given.history_KBTD[k, :, hour], history, rtol=0, atol=1e-6)
        torch.testing.assert_close(given.combined_KBTD[k, :, hour], combined, rtol=0, atol=1e-5)


def test_diagonal_of_the_feature_regression_has_no_effect(make_record: MakeRecord) -> None:
    """A variable is not estimated from itself: the outputs are bit-equal for any diagonal."""
    imputer, directions = build(), Directions.of(*make_record(4))
    before = outputs(imputer(directions))
    with torch.no_grad():
        imputer.feature.diagonal(dim1=1, dim2=2).fill_(100.0)
    for name, output in outputs(imputer(directions)).items():
        assert torch.equal(output, before[name]), name


def test_median_gaps_reach_the_first_state(make_record: MakeRecord) -> None:
    """The conditional decay depends on the gap minus the median, so other medians give other estimates."""
    imputer, directions = build(), Directions.of(*make_record(4))
    before = imputer(directions).imputed_BTD
    imputer.median_gap_hours_D += 3
    assert not torch.equal(imputer(directions).imputed_BTD, before)


@pytest.mark.parametrize("nothing", ["variable", "stay", "record"])
def test_nothing_observed_gives_no_nan(make_record: MakeRecord, nothing: str) -> None:
    """A variable never observed, a stay with no observation, and a batch with none give finite numbers."""
    imputer, (values, observed) = build(), make_record(4)
    part = {"variable": (..., 2), "stay": (1,), "record": (...,)}[nothing]
    observed[part] = 0
    values[part] = float("nan")
    given = imputer(Directions.of(values, observed))
    for name, output in outputs(given).items():
        assert torch.isfinite(output).all(), name
    torch.testing.assert_close(given.imputed_BTD[part], given.combined_KBTD.mean(dim=0)[part], rtol=0, atol=0)
    (given.combined_KBTD.square().mean() + given.last_BH.square().mean()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in imputer.parameters())


@pytest.mark.parametrize("stays", [1, 6])
def test_first_state_equals_the_encoder_layer(make_record: MakeRecord, stays: int) -> None:
    """The first state and the gradients of its weights are those of torch's own encoder layer."""
    state, (values, observed) = build().first_states[0], make_record(stays)
    for bias in (state.attention.self_attn.in_proj_bias, state.attention.self_attn.out_proj.bias):
        torch.nn.init.normal_(bias)
    gap_excess = observed * 3 - 1.5
    sign = torch.sign(gap_excess)
    decay = 0.5 * (1 - torch.tanh(sign * state.decay(gap_excess).abs()))
    tokens = [state.project(cells) + state.positions_TC for cells in (values, decay)]
    encoded = state.attention(torch.cat(tokens, dim=1))
    expected, given = state.output(torch.einsum("bsc,s->bc", encoded, state.contract)), state(values, gap_excess)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)
    weights = list(state.parameters())
    ours, theirs = (torch.autograd.grad(output.square().sum(), weights) for output in (given, expected))
    for mine, torchs in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-4 * float(torchs.abs().max()))


def test_positions_by_hand() -> None:
    """Channel pairs are sine and cosine of the hour at frequencies 1 and 1 / 100."""
    expected = [[0, 1, 0, 1], [0.8414710, 0.5403023, 0.0099998, 0.9999500], [0.9092974, -0.4161468, 0.0199987, 0.9998]]
    torch.testing.assert_close(sinusoidal_positions(3, 4), torch.tensor(expected), rtol=0, atol=1e-6)
