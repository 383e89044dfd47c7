import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imputune.data.directions import Directions
from imputune.errors import UserError
from imputune.models.attention import attend
from imputune.models.compiled import library
from imputune.models.compiled.attention import compiled_attention
from imputune.models.compiled.gru import compiled_last_state
from imputune.models.compiled.library import SETS, SWITCH, Library, filled, find_library, library_for, name_of_code
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.fast_recurrence import recur
from imputune.models.heads import last_state
from imputune.models.recurrence import Steps, Weights

NAME = "import imputune.models.compiled.library as library; print(library.name_of_code())"


@pytest.fixture
def compiled() -> Library:
    """Return the compiled library, or skip the test where it was not compiled."""
    found = find_library()
    if found is None:
        pytest.skip("imputune was installed without a C++ compiler")
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of the compiled functions that the test has called so far."""
    names, call = set[str](), Library.call

    def noted(self: Library, function: str, *arguments: object) -> None:
        names.add(function.removeprefix("imputune_"))
        call(self, function, *arguments)

    monkeypatch.setattr(Library, "call", noted)
    return names


def results(csai: Csai, make_record: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
    """Return what CSAI gives for seven stays, and the gradient of each of its weights."""
    reconstruction = csai(Directions.of(*make_record(stays=7, hours=27, variables=5)))
    outputs = [reconstruction.combined_KBTD, reconstruction.history_KBTD, reconstruction.hidden_KBTH]
    loss = torch.cat([output.flatten() for output in outputs]).cos().sum()
    return [*(output.detach() for output in outputs), *torch.autograd.grad(loss, list(csai.parameters()))]


# Channels, heads and width of the encoder layer, and hidden size: parts of vectors, whole ones, and several.
@pytest.mark.parametrize("sizes", [(4, 2, 3, 2), (24, 3, 10, 17), (64, 8, 64, 108), (16, 1, 33, 16)])
def test_csai_is_the_same_to_rounding(
    compiled_code: Library,
    make_record: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    calls: set[str],
    sizes: tuple[int, int, int, int],
) -> None:
    """Estimates, hidden states and every gradient are PyTorch's, to 1e-5 of the largest number."""
    channels, heads, feedforward, hidden_size = sizes
    torch.manual_seed(0)
    csai = Csai(
        CsaiSizes(
            variables=5,
            hours=27,
            hidden_size=hidden_size,
            channels=channels,
            attention_heads=heads,
            feedforward=feedforward,
        )
    )
    with torch.no_grad():  # a new layer norm scales by 1 and shifts by 0
        for name, weight in csai.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    ours = results(csai, make_record)
    parts = ("attention", "layer", "recurrence")
    assert calls == {f"{part}_{way}" for part in parts for way in ("forward", "backward")}
    monkeypatch.setattr(library, "find_library", lambda: None)
    for mine, expected in zip(ours, results(csai, make_record), strict=True):
        assert float((mine - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1, 1), (3, 4, 2, 5), (7, 6, 35, 108), (9, 2, 16, 16), *((3, 4, size, size) for size in range(2, 18))],
)
def test_the_gru_head_is_the_same_to_rounding(compiled_code: Library, sizes: tuple[int, int, int, int]) -> None:
    """The last state and every gradient are those of PyTorch's GRU, to 1e-5 of the largest number."""
    B, T, D, H = sizes
    torch.manual_seed(0)
    gru = torch.nn.GRU(D, H, batch_first=True)
    hidden_BH, series_BTD = torch.randn(B, H, requires_grad=True), torch.randn(B, T, D, requires_grad=True)
    inputs = [hidden_BH, series_BTD, *gru.parameters()]
    ours_BH = compiled_last_state(gru, hidden_BH, series_BTD)
    assert ours_BH is not None
    expected_BH = gru(series_BTD, hidden_BH.unsqueeze(0))[0][:, -1]
    torch.testing.assert_close(ours_BH, expected_BH, rtol=1e-5, atol=1e-5)
    ours, expected = (torch.autograd.grad(state.cos().sum(), inputs) for state in (ours_BH, expected_BH))
    for mine, pytorch in zip(ours, expected, strict=True):
        assert float((mine - pytorch).abs().max()) <= 1e-5 * max(1.0, float(pytorch.abs().max()))


def test_too_little_memory_is_an_error(compiled: Library) -> None:
    """Sizes that no memory can hold raise MemoryError; the process goes on."""
    one = torch.zeros(4)
    with pytest.raises(MemoryError, match="imputune_gru_forward: too little memory"):
        compiled.call("imputune_gru_forward", (2**50, 1, 1, 1), one, one, [one] * 4, [one] * 3)


def test_shapes_that_do_not_fit_are_left_to_pytorch(compiled: Library) -> None:
    """A wrong number of variables or hidden units, or other stays, raise PyTorch's error and read no foreign memory."""
    gru = torch.nn.GRU(3, 4, batch_first=True)
    for hidden, series in (((2, 4), (2, 5, 2)), ((2, 3), (2, 5, 3)), ((1, 4), (2, 5, 3))):
        with pytest.raises(RuntimeError):
            last_state(gru, torch.zeros(hidden), torch.zeros(series))
    with pytest.raises(RuntimeError):
        attend(torch.zeros(2, 4, 3), torch.zeros(3, 2, 4, 5), torch.zeros(3, 2, 4, 4))
    steps = Steps(*(torch.zeros(2, 5, 1, 3) for _ in range(4)))
    weights = Weights(*(torch.zeros(2, 4, 4) for _ in range(6)))
    with pytest.raises((RuntimeError, ValueError)):
        recur(steps, weights, torch.zeros(2, 1, 4))


def test_other_recurrences_are_left_to_pytorch(compiled: Library) -> None:
    """An LSTM, two layers, two directions, no biases, or hours first: there is no compiled code."""
    hidden_BH, series_BTD = torch.zeros(2, 3), torch.zeros(2, 4, 3)
    for other in (
        torch.nn.LSTM(3, 3, batch_first=True),
        torch.nn.GRU(3, 3, num_layers=2, batch_first=True),
        torch.nn.GRU(3, 3, bidirectional=True, batch_first=True),
        torch.nn.GRU(3, 3, bias=False, batch_first=True),
        torch.nn.GRU(3, 3),
    ):
        assert compiled_last_state(other, hidden_BH, series_BTD) is None


def exponential_sums(scores_S: torch.Tensor) -> torch.Tensor:
    """Return each key's softmax weight, computed by compiled attention."""
    S = len(scores_S)
    tokens = torch.eye(S)[None]
    maps, places = torch.zeros(3, 1, 16, S), torch.zeros(3, 1, 16, S)
    places[0, 0, 0] = 1.0
    places[1, 0, 0] = scores_S
    places[2, 0, :S] = torch.eye(S)
    result = compiled_attention(tokens, maps, places)
    assert result is not None
    return result[0, :S, 0]


def test_weights_are_a_softmax_over_the_whole_range(compiled_code: Library) -> None:
    """Weights of scores from 0 down to those that single precision rounds to 0 are right to 1e-5 of them."""
    scores = torch.tensor([0.0, -1e-3, -0.5, -5, -17.3, -50, -87, -89, -200, 3.2, 1e-9, 2.0, -3e38])
    expected = torch.softmax(scores.double(), dim=0)
    ours = exponential_sums(scores).double()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-30)


def test_what_is_not_a_number_is_not_hidden(compiled_code: Library) -> None:
    """A score that is not a number makes every weight of its query so."""
    assert exponential_sums(torch.tensor([0.0, float("nan"), 1.0])).isnan().all()


def test_only_single_precision_on_the_processor_is_computed(compiled: Library) -> None:
    """Double precision and other devices are left to PyTorch, and so are heads of channels without compiled code."""
    one = torch.zeros(2)
    assert library_for(one, one) is compiled
    assert library_for(one, one.double()) is None
    assert library_for(one.to("meta")) is None
    assert compiled_attention(torch.zeros(1, 4, 2), torch.zeros(3, 1, 3, 2), torch.zeros(3, 1, 3, 4)) is None


def test_a_switch_turns_compiled_code_off(compiled: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """IMPUTUNE_COMPILED=0 leaves everything to PyTorch, 1 is as without it; another value is an error."""
    assert name_of_code() == SETS[compiled.best_set]
    for value, expected in (("0", "none"), ("1", name_of_code())):
        monkeypatch.setenv(SWITCH, value)
        answer = subprocess.run([sys.executable, "-c", NAME], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == expected
    monkeypatch.setenv(SWITCH, "off")
    with pytest.raises(UserError, match=r"^IMPUTUNE_COMPILED must be 0 or 1, got 'off'$"):
        find_library.__wrapped__()


def test_a_library_of_another_version_is_left_alone(compiled: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the library's functions take other arguments, PyTorch computes, and the version says what to do."""
    monkeypatch.setattr(library, "INTERFACE", library.INTERFACE + 1)
    assert find_library.__wrapped__() is None
    monkeypatch.setattr(library, "find_library", find_library.__wrapped__)
    assert name_of_code() == "none, because it is of another version or system: install imputune again"


def test_every_source_file_is_part_of_the_package() -> None:
    """pyproject.toml names all files of source/, so that archives of the package can be compiled."""
    root = Path(__file__).parents[2]
    extension = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    source = root / "src/imputune/models/compiled/source"
    assert sorted([*extension["sources"], *extension["depends"]]) == sorted(
        path.relative_to(root).as_posix() for path in source.iterdir()
    )
    assert extension["optional"] is True


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_file_that_is_no_library_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """A file compiled on another system does not stop anything."""
    (tmp_path / "_kernels.so").write_bytes(content)
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    assert find_library.__wrapped__() is None


@pytest.mark.parametrize(("numbers", "expected"), [(1, 16), (16, 16), (17, 32), (96, 96)])
def test_rows_are_filled_up_to_whole_vectors(numbers: int, expected: int) -> None:
    """A row's length becomes the next multiple of the longest vector."""
    assert filled(numbers) == expected
