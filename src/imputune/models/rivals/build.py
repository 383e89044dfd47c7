"""Building a rival: its encoder by name, with a readout.

Letters: B stays, E numbers of the embedding, R record features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import nn

from imputune.models.heads import HeadSizes, build_head
from imputune.models.rivals.classifier import Encoder, RivalClassifier
from imputune.models.rivals.ipnets import IpNets
from imputune.models.rivals.mtan import Mtan
from imputune.models.rivals.pypots import PypotsEncoder
from imputune.models.rivals.raindrop import Raindrop
from imputune.models.rivals.seft import Seft
from imputune.models.rivals.strats import Strats
from imputune.settings.names import OwnRival, PypotsRival, RivalName

ENCODERS: Mapping[OwnRival, Callable[..., Encoder]] = {
    "seft": Seft,
    "mtan": Mtan,
    "ipnets": IpNets,
    "raindrop": Raindrop,
    "strats": Strats,
}
"""The networks of this package; each takes the numbers of hours and variables, and its sizes by name."""


@dataclass(frozen=True, kw_only=True)
class RivalSizes:
    """The numbers that fix a rival's shape.

    hours, variables: of the cohort. network: the sizes of its encoder, by name. mlp_width, dropout, record and
    input_dropout: of the readout, as `HeadSizes` has them.
    """

    hours: int
    variables: int
    network: Mapping[str, int | float]
    mlp_width: int
    dropout: float
    record: int = 0
    input_dropout: float = 0.0


class LinearReadout(nn.Module):
    """One linear layer on the embedding and the record features side by side.

    Shapes: (B, E) and, if it takes them, (B, R) in; logits (B,) out.
    """

    def __init__(self, size: int, record: int, input_dropout: float) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        self.linear = nn.Linear(size + record, 1)

    def forward(self, embedding_BE: torch.Tensor, record_BR: torch.Tensor | None = None) -> torch.Tensor:
        """Return one logit per stay, (B,)."""
        record = [] if record_BR is None else [self.input_dropout(record_BR)]
        return self.linear(torch.cat([embedding_BE, *record], dim=1))[:, 0]


def build_rival(name: RivalName, sizes: RivalSizes) -> RivalClassifier:
    """Return a rival, freshly initialised: this package's with the head mlp2 as readout, PyPOTS's with a linear one.

    Raises UserError if PyPOTS cannot build its network.
    """
    if name in get_args(PypotsRival):
        theirs = PypotsEncoder(
            cast(PypotsRival, name), hours=sizes.hours, variables=sizes.variables, sizes=sizes.network
        )
        return RivalClassifier(theirs, LinearReadout(theirs.embedding_size, sizes.record, sizes.input_dropout))
    encoder = ENCODERS[cast(OwnRival, name)](sizes.hours, sizes.variables, **sizes.network)
    readout = HeadSizes(
        input_size=encoder.embedding_size,
        variables=sizes.variables,
        mlp_width=sizes.mlp_width,
        dropout=sizes.dropout,
        record=sizes.record,
        input_dropout=sizes.input_dropout,
    )
    return RivalClassifier(encoder, build_head("mlp2", readout))
