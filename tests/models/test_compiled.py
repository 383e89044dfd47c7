import subprocess
import sys
from pathlib import Path

import pytest
import torch

from imputune.models.compiled import library
from imputune.models.compiled.attention import compiled_attention
from imputune.models.compiled.library import SETS, SWITCH, Library, filled, find_library, library_for, name_of_code

NAME = "import imputune.models.compiled.library as library; print(library.name_of_code())"


@pytest.fixture
def compiled() -> Library:
    """Return the compiled library, or skip the test where it was not compiled."""
    found = find_library()
    if found is None:
        pytest.skip("imputune was installed without a C++ compiler")
    return found


def exponential_sums(scores_S: torch.Tensor) -> torch.Tensor:
    """Let compiled attention compute a softmax over keys with these scores, for each value a channel of 1 key."""
    S = len(scores_S)
    tokens = torch.eye(S)[None]
    maps, places = torch.zeros(3, 1, 16, S), torch.zeros(3, 1, 16, S)
    places[0, 0, 0] = 1.0
    places[1, 0, 0] = scores_S
    places[2, 0, :S] = torch.eye(S)
    result = compiled_attention(tokens, maps, places)
    assert result is not None
    return result[0, :S, 0]


@pytest.mark.usefixtures("code")
def test_weights_are_a_softmax_over_the_whole_range() -> None:
    """Weights of scores from 0 down to those that single precision rounds to 0 are right to 1e-6."""
    if find_library() is None or library.find_library() is None:
        pytest.skip("PyTorch alone has its own softmax")
    scores = torch.tensor([0.0, -1e-3, -0.5, -5, -17.3, -50, -87, -89, -200, 3.2, 1e-9, 2.0, -3e38])
    expected = torch.softmax(scores.double(), dim=0)
    ours = exponential_sums(scores).double()
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-30)


@pytest.mark.usefixtures("code")
def test_what_is_not_a_number_is_not_hidden() -> None:
    """A score that is not a number makes every weight of its query so."""
    if library.find_library() is None:
        pytest.skip("PyTorch alone has its own softmax")
    assert exponential_sums(torch.tensor([0.0, float("nan"), 1.0])).isnan().all()


def test_only_single_precision_on_the_processor_is_computed(compiled: Library) -> None:
    """Double precision and other devices are left to PyTorch, and so are heads of channels without compiled code."""
    one = torch.zeros(2)
    assert library_for(one, one) is compiled
    assert library_for(one, one.double()) is None
    assert library_for(one.to("meta")) is None
    assert compiled_attention(torch.zeros(1, 4, 2), torch.zeros(3, 1, 3, 2), torch.zeros(3, 1, 3, 4)) is None


def test_a_switch_turns_compiled_code_off(compiled: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """IMPUTUNE_COMPILED=0 leaves everything to PyTorch; other values change nothing."""
    assert name_of_code() == f"compiled code for {SETS[compiled.best_set]}"
    for value, expected in (("0", "PyTorch alone"), ("1", name_of_code())):
        monkeypatch.setenv(SWITCH, value)
        answer = subprocess.run([sys.executable, "-c", NAME], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == expected


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
