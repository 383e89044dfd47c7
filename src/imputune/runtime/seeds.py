"""Seeds: one generator for each fold and purpose."""

import torch


def generator_for(seed: int, *purpose: int) -> torch.Generator:
    """Return a generator of its own for a fold and purpose, so that no draw depends on another's count."""
    mixed = seed
    for number in purpose:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63)
    return torch.Generator().manual_seed(mixed)
