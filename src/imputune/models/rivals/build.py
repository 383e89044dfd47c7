"""Building a rival: its encoder by name, with a readout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from imputune.models.heads import HeadSizes, build_head
from imputune.models.rivals.classifier import Encoder, RivalClassifier
from imputune.models.rivals.seft import Seft
from imputune.settings.names import RivalName

Sizes = Mapping[str, int | float]
"""The sizes of one network by name, as params.yaml has them."""
ENCODERS: Mapping[RivalName, Callable[..., Encoder]] = {"seft": Seft}
"""The networks of this package; each takes the numbers of hours and variables, and its sizes by name."""


@dataclass(frozen=True, kw_only=True)
class RivalSizes:
    """The numbers that fix a rival's shape.

    hours, variables: of the cohort. network: the sizes of its encoder. readout: of the readout; its input size is
    replaced by the encoder's embedding size.
    """

    hours: int
    variables: int
    network: Sizes
    mlp_width: int
    dropout: float
    record: int = 0
    input_dropout: float = 0.0


def build_rival(name: RivalName, sizes: RivalSizes) -> RivalClassifier:
    """Return a rival with a readout that is the head mlp2, freshly initialised; ValueError for an unknown name."""
    encoder = ENCODERS[name](sizes.hours, sizes.variables, **sizes.network)
    return RivalClassifier(encoder, _readout(encoder, sizes))


def _readout(encoder: Encoder, sizes: RivalSizes) -> nn.Module:
    readout = HeadSizes(
        input_size=encoder.embedding_size,
        variables=sizes.variables,
        mlp_width=sizes.mlp_width,
        dropout=sizes.dropout,
        record=sizes.record,
        input_dropout=sizes.input_dropout,
    )
    return build_head("mlp2", readout)
