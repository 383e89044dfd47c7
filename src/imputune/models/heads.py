"""Neural heads: small classifiers that read what an imputer gives.

Letters: B stays, T hours, D variables, I input size, H hidden size, R record features, L layers and directions (1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from imputune.models.compiled.gru import compiled_last_state

MLP5_LAYERS = 5


@dataclass(frozen=True, kw_only=True)
class HeadSizes:
    """The numbers that fix a head's shape.

    input_size: numbers per stay that an MLP reads, or that a recurrent head starts from: the size of the imputer's
    hidden state, or hours * variables of a flattened series. variables: of the series that a recurrent head reads.
    mlp_width: width of every hidden layer of an MLP. dropout: probability after each of these layers, 0 to below 1.
    record: record features that the head reads too, 0 for none. input_dropout: their dropout, 0 to below 1.
    """

    input_size: int
    variables: int
    mlp_width: int
    dropout: float = 0.0
    record: int = 0
    input_dropout: float = 0.0


class Mlp(nn.Module):
    """Perceptron of `layers` linear layers, the last one to a single number, with ReLU and dropout between them.

    With input size 108 and width 128, mlp2 has 14,081 parameters and mlp5 63,617. The paper gives no widths of mlp5;
    here its hidden layers are as wide as mlp2's. Shapes: (B, I) in, logits of the outcome (B,) out.

    Source: paper, sections V.A and VI.C (parameter counts).
    """

    def __init__(self, sizes: HeadSizes, layers: int = 2) -> None:
        super().__init__()
        hidden_layers: list[nn.Module] = []
        for inputs in [sizes.input_size, *[sizes.mlp_width] * (layers - 2)]:
            hidden_layers += [nn.Linear(inputs, sizes.mlp_width), nn.ReLU(), nn.Dropout(sizes.dropout)]
        self.layers = nn.Sequential(*hidden_layers, nn.Linear(sizes.mlp_width, 1))

    def forward(self, input_BI: torch.Tensor) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        return self.layers(input_BI).squeeze(-1)


class RecurrentHead(nn.Module):
    """LSTM or GRU over the hours that starts from the imputer's last hidden state; an mlp2 reads its own last state.

    An LSTM's cell state starts from the same hidden state as its output. If it started from 0, the imputer's hidden
    state would reach the gates of the first hour only. With 35 variables, hidden size 108 and MLP width 128, lstm has
    76,721 parameters and gru 61,061.

    Shapes: hidden state (B, H) and series (B, T, D), standardised and 0 where missing, in; logits of the outcome (B,)
    out.

    Source: paper, sections V.A (initial hidden states) and VI.C (parameter counts).
    """

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], sizes: HeadSizes) -> None:
        super().__init__()
        self.recurrence = cell(sizes.variables, sizes.input_size, batch_first=True)
        self.mlp = Mlp(sizes)

    def forward(self, hidden_BH: torch.Tensor, series_BTD: torch.Tensor) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        return self.mlp(last_state(self.recurrence, hidden_BH, series_BTD))


class RecordMlp(nn.Module):
    """An `Mlp` on what an imputer gives, through a LayerNorm, and the features of the record itself, side by side.

    The LayerNorm brings the hidden state to the scale of the record features, which are standardised. Shapes: (B, I)
    and (B, R) in, logits of the outcome (B,) out.
    """

    def __init__(self, sizes: HeadSizes, layers: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(sizes.input_size)
        self.input_dropout = nn.Dropout(sizes.input_dropout)
        self.mlp = Mlp(replace(sizes, input_size=sizes.input_size + sizes.record), layers)

    def forward(self, input_BI: torch.Tensor, record_BR: torch.Tensor) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        return self.mlp(torch.cat([self.norm(input_BI), self.input_dropout(record_BR)], dim=1))


class RecordRecurrentHead(nn.Module):
    """A `RecurrentHead` whose mlp2 reads the features of the record beside the recurrence's last state.

    Shapes: hidden state (B, H), series (B, T, D) and features (B, R) in; logits of the outcome (B,) out.
    """

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], sizes: HeadSizes) -> None:
        super().__init__()
        self.recurrence = cell(sizes.variables, sizes.input_size, batch_first=True)
        self.mlp = RecordMlp(sizes)

    def forward(self, hidden_BH: torch.Tensor, series_BTD: torch.Tensor, record_BR: torch.Tensor) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        return self.mlp(last_state(self.recurrence, hidden_BH, series_BTD), record_BR)


def last_state(recurrence: nn.LSTM | nn.GRU, hidden_BH: torch.Tensor, series_BTD: torch.Tensor) -> torch.Tensor:
    """Return the output after the last hour, (B, H), of a recurrence that starts from a hidden state."""
    compiled_BH = compiled_last_state(recurrence, hidden_BH, series_BTD)
    if compiled_BH is not None:
        return compiled_BH
    first_LBH = hidden_BH.unsqueeze(0)
    first = (first_LBH, first_LBH) if isinstance(recurrence, nn.LSTM) else first_LBH
    states_BTH, _ = recurrence(series_BTD, first)
    return states_BTH[:, -1]


HEAD_BUILDERS: dict[str, Callable[[HeadSizes], nn.Module]] = {
    "mlp2": Mlp,
    "mlp5": partial(Mlp, layers=MLP5_LAYERS),
    "lstm": partial(RecurrentHead, nn.LSTM),
    "gru": partial(RecurrentHead, nn.GRU),
}
"""Builds each neural head, freshly initialised."""
RECORD_HEAD_BUILDERS: dict[str, Callable[[HeadSizes], nn.Module]] = {
    "mlp2": RecordMlp,
    "mlp5": partial(RecordMlp, layers=MLP5_LAYERS),
    "lstm": partial(RecordRecurrentHead, nn.LSTM),
    "gru": partial(RecordRecurrentHead, nn.GRU),
}
"""The same for heads that read record features too."""


def build_head(name: str, sizes: HeadSizes) -> nn.Module:
    """Return a neural head by name, freshly initialised; it reads record features if `sizes` has some."""
    return (RECORD_HEAD_BUILDERS if sizes.record else HEAD_BUILDERS)[name](sizes)
