from collections.abc import Callable

import pytest
import torch

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
