from collections.abc import Callable

import pytest
import torch

from imputune.models.compiled import library
from imputune.models.compiled.library import SETS, Library

Record = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Make standard normal values and an observed mask, both (stays, hours, variables)."""

    def make(stays: int, hours: int = 12, variables: int = 5, seed: int = 0, share: float = 0.4) -> Record:
        generator = torch.Generator().manual_seed(seed)
        shape = (stays, hours, variables)
        observed = (torch.rand(shape, generator=generator) < share).float()
        return torch.randn(shape, generator=generator) * observed, observed

    return make


@pytest.fixture(params=["PyTorch alone", *SETS])
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute with PyTorch alone, then with compiled code for each instruction set; skip what is not here."""
    if request.param == "PyTorch alone":
        monkeypatch.setattr(library, "find_library", lambda: None)
    else:
        use(request.param, monkeypatch)


@pytest.fixture(params=SETS)
def compiled_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Compute with compiled code for each instruction set; skip what is not here."""
    return use(request.param, monkeypatch)


def use(instruction_set: str, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Let the compiled library use an instruction set, or skip the test where it is not here."""
    found = library.find_library()
    if found is None:
        pytest.skip("imputune was installed without a C++ compiler")
    if SETS.index(instruction_set) > found.best_set:
        pytest.skip(f"this processor has no {instruction_set}")
    monkeypatch.setattr(found, "instruction_set", SETS.index(instruction_set))
    return found
