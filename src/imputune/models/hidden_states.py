"""The hidden state that a head reads, made from the hourly hidden states of both directions.

Letters: B stays, T hours, H hidden size, K the two directions (0 forward, 1 backward).
"""

from collections.abc import Callable

import torch

_MAKERS: dict[str, tuple[int, Callable[[torch.Tensor], tuple[torch.Tensor, ...]]]] = {
    "hidden": (1, lambda hidden_KBTH: (hidden_KBTH[:, :, -1].mean(dim=0),)),
    "hidden_both": (2, lambda hidden_KBTH: hidden_KBTH[:, :, -1].unbind(0)),
    "hidden_pooled": (4, lambda hidden_KBTH: (*hidden_KBTH[:, :, -1].unbind(0), *hidden_KBTH.mean(dim=2).unbind(0))),
}
STATES = tuple(_MAKERS)
"""The hidden states that a head can read, by their names as inputs of a variant."""


def state_size(state: str, hidden_size: int) -> int:
    """Return how many numbers a stay's hidden state has: H, 2H or 4H; ValueError for an unknown state."""
    return _maker(state)[0] * hidden_size


def make_state(state: str, hidden_KBTH: torch.Tensor) -> torch.Tensor:
    """Return a hidden state of each stay, (B, `state_size`), from the hidden states of every hour, (K, B, T, H).

    `hidden`: representation `last`, the mean of both directions' final hidden states. `hidden_both`: the two final
    hidden states side by side, forward first. `hidden_pooled`: these two, then each direction's mean over the hours.
    The hours of a direction are in its own order, so that its last is the final one.

    Raises ValueError for an unknown state.

    Source: `hidden`, the paper. The others: concat pooling of ULMFiT (Howard and Ruder 2018, arXiv 1801.06146, section
    3.3), for both directions and without its maximum.
    """
    parts = _maker(state)[1](hidden_KBTH)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _maker(state: str) -> tuple[int, Callable[[torch.Tensor], tuple[torch.Tensor, ...]]]:
    if state not in _MAKERS:
        raise ValueError(f"state must be one of {STATES}, got {state!r}")
    return _MAKERS[state]
