"""Heads: small classifiers that read what an imputer hands on.

Letters: B stays, T hours, D variables, H width of the imputer's hidden state, L layers and directions (1).
"""

from collections.abc import Callable

import torch
from torch import nn

MLP_WIDTH = 128
MLP5_LAYERS = 5


class Mlp(nn.Module):
    """Perceptron of `layers` linear maps, H -> 128 -> ... -> 1, ReLU and dropout between them.

    At H = 108, mlp2 has 14,081 parameters. The paper gives no widths of mlp5; here its hidden layers are as wide as
    mlp2's, 63,617 parameters. Shapes: hidden state (B, H) in, logits of in-hospital death (B,) out.

    Source: paper, sections V.A and VI.C (parameter counts).
    """

    def __init__(self, width: int, layers: int = 2, hidden: int = MLP_WIDTH, dropout: float = 0.0) -> None:
        super().__init__()
        inner: list[nn.Module] = []
        for inputs in [width, *[hidden] * (layers - 2)]:
            inner += [nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*inner, nn.Linear(hidden, 1))

    def forward(self, hidden_BH: torch.Tensor) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        return self.layers(hidden_BH).squeeze(-1)


class RecurrentHead(nn.Module):
    """LSTM or GRU over the hours, begun in the imputer's last hidden state, its own last one read by an mlp2.

    An LSTM's cell state begins in the same hidden state as its output: begun at 0, what the imputer knows would reach
    the first hour's gates alone. At D = 35 and H = 108, lstm has 76,721 parameters and gru 61,061.

    Shapes: hidden state (B, H) and series (B, T, D), standardised and 0 where it has holes, in; logits of in-hospital
    death (B,) out.

    Source: paper, sections V.A (initial hidden states) and VI.C (parameter counts).
    """

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], width: int, variables: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.recurrence = cell(variables, width, batch_first=True)
        self.mlp = Mlp(width, dropout=dropout)

    def forward(self, hidden_BH: torch.Tensor, series_BTD: torch.Tensor) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        first_LBH = hidden_BH.unsqueeze(0)
        lstm = isinstance(self.recurrence, nn.LSTM)
        states_BTH, _ = self.recurrence(series_BTD, (first_LBH, first_LBH) if lstm else first_LBH)
        return self.mlp(states_BTH[:, -1])


HEADS: dict[str, Callable[[int, int, float], nn.Module]] = {
    "mlp2": lambda width, variables, dropout: Mlp(width, dropout=dropout),
    "mlp5": lambda width, variables, dropout: Mlp(width, MLP5_LAYERS, dropout=dropout),
    "lstm": lambda width, variables, dropout: RecurrentHead(nn.LSTM, width, variables, dropout),
    "gru": lambda width, variables, dropout: RecurrentHead(nn.GRU, width, variables, dropout),
}
"""How to build each head from the hidden state's width H, the number of variables D, and a share of dropout."""
