"""PyPOTS's classifiers as encoders: their networks without the last layer, trained by this package's own loop.

PyPOTS is an optional extra; it is imported when one of its networks is built.

Letters: B stays, T hours, D variables, E numbers of the embedding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from imputune.data.directions import last_observed
from imputune.errors import UserError
from imputune.models.faster_pypots import hours_since_observed, speed_up
from imputune.models.quiet_pypots import quiet
from imputune.settings.names import PypotsRival

Cells = dict[str, torch.Tensor]
Inputs = Mapping[str, torch.Tensor | Cells]


@dataclass(frozen=True, kw_only=True)
class _Network:
    """One of PyPOTS's classifiers.

    class_name: its class in pypots.classification. last_layers: the linear layers that give its logits, and the results
    in which these stand. inputs: makes what it reads of values and observed mask. has_width: whether its width is the
    product of n_heads and d_k.
    """

    class_name: str
    last_layers: Mapping[str, str]
    inputs: Callable[[torch.Tensor, torch.Tensor], Inputs]
    has_width: bool = False


class PypotsEncoder(nn.Module):
    """One of PyPOTS's classifiers, whose last linear layer is left to the readout; see `classifier.Encoder`.

    BRITS also learns to impute: its own two losses are the penalty. GRU-D decays to the training mean, 0. PyPOTS would
    use the mean of the stays in the batch, and a stay's risk would then depend on the other stays.

    Raises UserError, with PyPOTS's message, if it cannot build or use the network.
    """

    def __init__(self, name: PypotsRival, *, hours: int, variables: int, sizes: Mapping[str, int | float]) -> None:
        super().__init__()
        self.name, self.network = name, NETWORKS[name]
        width = {"d_model": sizes["n_heads"] * sizes["d_k"]} if self.network.has_width else {}
        with quiet():
            import pypots.classification

            build = getattr(pypots.classification, self.network.class_name)
            try:
                classifier = build(
                    n_steps=hours, n_features=variables, n_classes=2, **sizes, **width, device="cpu", verbose=False
                )
            except (RuntimeError, ValueError, AssertionError) as error:
                raise self._failure(error) from error
            speed_up(classifier.model)
        self.module: nn.Module = classifier.model
        self.embedding_size = 0
        for layer in self.network.last_layers:
            self.embedding_size += cast(nn.Linear, getattr(self.module, layer)).in_features
            setattr(self.module, layer, nn.Identity())

    def forward(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding (B, E), and BRITS's losses in training."""
        try:
            results = self.module(self.network.inputs(values_BTD, observed_BTD))
        except torch.OutOfMemoryError:  # a RuntimeError too; a smaller batch or another GPU may do
            raise
        except (RuntimeError, ValueError) as error:
            raise self._failure(error) from error
        embedding_BE = torch.cat([results[name] for name in self.network.last_layers.values()], dim=1)
        penalty = values_BTD.new_zeros(())
        if self.training and "reconstruction_loss" in results:
            penalty = results["consistency_loss"] + results["reconstruction_loss"]
        return embedding_BE, penalty

    def _failure(self, error: Exception) -> UserError:
        return UserError(f"PyPOTS cannot use rival {self.name} ({' '.join(str(error).split())})")


def _cells(values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Cells:
    return {"X": values_BTD, "missing_mask": observed_BTD}


def _with_gaps(values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Cells:
    return _cells(values_BTD, observed_BTD) | {"deltas": hours_since_observed(observed_BTD)}


def _both_directions(values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Inputs:
    flipped = values_BTD.flip(1), observed_BTD.flip(1)
    return {"forward": _with_gaps(values_BTD, observed_BTD), "backward": _with_gaps(*flipped)}


def _with_decay(values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Inputs:
    return {
        **_with_gaps(values_BTD, observed_BTD),
        "X_filledLOCF": last_observed(values_BTD, observed_BTD),
        "empirical_mean": values_BTD.new_zeros(values_BTD.shape[2]),
    }


NETWORKS: dict[PypotsRival, _Network] = {
    "brits": _Network(
        class_name="BRITS",
        last_layers={"f_classifier": "f_logits", "b_classifier": "b_logits"},
        inputs=_both_directions,
    ),
    "grud": _Network(class_name="GRUD", last_layers={"classifier": "logits"}, inputs=_with_decay),
    "saits": _Network(class_name="SAITS", last_layers={"classifier": "logits"}, inputs=_cells, has_width=True),
    "itransformer": _Network(
        class_name="iTransformer", last_layers={"output_projection": "logits"}, inputs=_cells, has_width=True
    ),
    "patchtst": _Network(class_name="PatchTST", last_layers={"projection": "logits"}, inputs=_cells, has_width=True),
    "tefn": _Network(class_name="TEFN", last_layers={"output_projection": "logits"}, inputs=_cells),
}
