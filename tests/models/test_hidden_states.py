import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imputune.data.directions import Directions
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.hidden_states import STATES, make_state, state_size

Record = tuple[torch.Tensor, torch.Tensor]
MakeRecord = Callable[..., Record]
GOLDEN = Path(__file__).parents[1] / "golden" / "hidden_states.json"
SIZES = CsaiSizes(variables=5, hours=12, hidden_size=7, channels=8, attention_heads=2, feedforward=16)
TIMES = {"hidden": 1, "hidden_both": 2, "hidden_pooled": 4}


def build(sizes: CsaiSizes = SIZES) -> Csai:
    """Build a seeded CSAI."""
    torch.manual_seed(0)
    return Csai(sizes)


def test_states_by_hand() -> None:
    """Two directions, one stay, three hours, hidden size 2: last, mean of lasts, and means over hours by hand."""
    forward, backward = [[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]], [[0.0, 0.0], [9.0, 3.0], [3.0, 9.0]]
    hidden_KBTH = torch.tensor([[forward], [backward]])
    assert make_state("hidden", hidden_KBTH).tolist() == [[4.0, 5.0]]
    assert make_state("hidden_both", hidden_KBTH).tolist() == [[5.0, 1.0, 3.0, 9.0]]
    assert make_state("hidden_pooled", hidden_KBTH).tolist() == [[5.0, 1.0, 3.0, 9.0, 3.0, 3.0, 4.0, 4.0]]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("stays", "hours"), [(4, 12), (1, 12), (4, 1), (1, 1)])
def test_shapes(make_record: MakeRecord, state: str, stays: int, hours: int) -> None:
    """A state has the size that is said of it, for one stay and one hour too, and is finite."""
    sizes = CsaiSizes(variables=5, hours=hours, hidden_size=7, channels=8, attention_heads=2, feedforward=16)
    given = build(sizes)(Directions.of(*make_record(stays, hours))).state(state)
    assert given.shape == (stays, state_size(state, 7)) == (stays, 7 * TIMES[state])
    assert torch.isfinite(given).all()


def test_an_unknown_state_is_refused() -> None:
    """The error names the states that there are."""
    for make in (lambda: make_state("last", torch.zeros(2, 1, 3, 4)), lambda: state_size("last", 4)):
        with pytest.raises(ValueError, match=r"state must be one of \('hidden', .*got 'last'"):
            make()


@pytest.mark.parametrize("state", STATES)
def test_stay_alone_has_the_same_state_as_in_a_batch(make_record: MakeRecord, state: str) -> None:
    """A stay's state does not depend on the other stays of its batch."""
    imputer, (values, observed) = build(), make_record(6)
    batch = imputer(Directions.of(values, observed)).state(state)
    alone = torch.cat([imputer(Directions.of(values[[i]], observed[[i]])).state(state) for i in range(6)])
    torch.testing.assert_close(alone, batch, rtol=0, atol=1e-5)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("junk", [float("nan"), 1e6])
def test_numbers_in_missing_cells_change_nothing(make_record: MakeRecord, state: str, junk: float) -> None:
    """NaN and any number in missing cells leave a state bit-equal."""
    imputer, (values, observed) = build(), make_record(4)
    clean, junky = (
        imputer(Directions.of(cells, observed)).state(state)
        for cells in (values, torch.where(observed > 0, values, junk))
    )
    assert torch.equal(clean, junky)


@pytest.mark.parametrize("state", STATES)
def test_the_flipped_record_swaps_the_directions(make_record: MakeRecord, state: str) -> None:
    """With equal weights in both directions, the flipped record's state is the same with its directions swapped."""
    imputer, (values, observed) = build(), make_record(4)
    content = imputer.state_dict()
    for name in content:
        if name.startswith("first_states.1."):
            content[name] = content[name.replace("first_states.1.", "first_states.0.")]
        elif not name.startswith("first_states.") and name != "median_gap_hours_D":
            content[name] = content[name][[0, 0]]
    imputer.load_state_dict(content)
    given = imputer(Directions.of(values, observed)).state(state)
    flipped = imputer(Directions.of(values.flip(1), observed.flip(1))).state(state)
    parts = flipped.split(7, dim=-1)
    swapped = parts if state == "hidden" else [parts[place ^ 1] for place in range(len(parts))]
    torch.testing.assert_close(torch.cat(list(swapped), dim=-1), given, rtol=0, atol=1e-6)


@pytest.mark.parametrize("state", STATES)
def test_a_loss_on_the_state_alone_trains_every_weight(make_record: MakeRecord, state: str) -> None:
    """As of an unfrozen head: every weight of the imputer gets a finite gradient that is not all 0."""
    imputer = build()
    imputer(Directions.of(*make_record(6))).state(state).square().sum().backward()
    for name, parameter in imputer.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_golden_numbers(request: pytest.FixtureRequest) -> None:
    """A small seeded case gives the stored numbers; `--regenerate` with this file rewrites them."""
    sizes = CsaiSizes(variables=3, hours=4, hidden_size=2, channels=4, attention_heads=2, feedforward=3)
    cells = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)
    given = build(sizes)(Directions.of(torch.sin(cells), (cells % 5 < 3).float()))
    numbers = {state: [round(x, 7) for x in given.state(state).flatten().tolist()] for state in STATES}
    if request.config.getoption("--regenerate"):
        GOLDEN.write_text(json.dumps(numbers, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert golden.keys() == numbers.keys()
    for name, expected in golden.items():
        assert numbers[name] == pytest.approx(expected, abs=1e-5), name
