"""CSAI of several folds in one pass without gradients: all folds and directions are one batch of products.

`models.csai` defines the network and trains it; tests compare the two. A small batch takes many small operations, whose
overhead is paid once for all folds. A large batch is read fold by fold, because the weights of all folds together leave
the processor's cache.

Letters: F folds, J = 2F readings, both directions of each fold side by side; B stays, T hours, D variables, H hidden
size, S numbers of a stay's hidden state.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from imputune.data.directions import Directions
from imputune.models.csai import Csai
from imputune.models.hidden_states import make_state
from imputune.models.stacked_first_state import FirstStateWeights, first_hidden
from imputune.models.stacked_recurrence import RecurrenceWeights, recur_stacked

SMALL_BATCH = 16  # stays
STAYS_AT_ONCE = 64  # of a large batch
Weights = TypeVar("Weights", RecurrenceWeights, FirstStateWeights)


class Readings(NamedTuple):
    """What each fold's imputer gives: a hidden state (F, B, S), and the imputed series (F, B, T, D)."""

    state_FBS: torch.Tensor
    imputed_FBTD: torch.Tensor


class StackedCsai:
    """The imputers of several folds, of the same sizes. Their weights are copied: do not train them afterwards.

    Shapes: see `read`. A stay alone gives what it gives in any batch, to rounding.
    """

    def __init__(self, imputers: Sequence[Csai]) -> None:
        self.folds, self.sizes = len(imputers), imputers[0].sizes
        with torch.no_grad():
            self.recurrence = _joined([RecurrenceWeights.of(each) for each in imputers])
            self.first_states = _joined([FirstStateWeights.of(each) for each in imputers])

    def read(self, values_FBTD: torch.Tensor, observed_BTD: torch.Tensor, state: str = "hidden") -> Readings:
        """Return what each fold's imputer gives for its own standardised values of the same stays.

        Shapes: values_FBTD float32, anything where not observed; observed_BTD 0/1, float32. state: which hidden state,
        see `hidden_states.make_state`. Raises ValueError for an unknown state, or if folds, hours or variables differ
        from those of the imputers.
        """
        F, B, *each = values_FBTD.shape
        expected = (self.folds, self.sizes.hours, self.sizes.variables)
        if (F, *each) != expected:
            raise ValueError(f"values must have (folds, hours, variables) {expected}, got {(F, *each)}")
        with (
            torch.no_grad(),
            np.errstate(over="ignore", invalid="ignore"),
        ):  # impossible values: NumPy warns, PyTorch not
            if B <= SMALL_BATCH:
                return self._read_folds(slice(0, F), values_FBTD, observed_BTD, state)
            by_fold = [
                [
                    self._read_folds(slice(fold, fold + 1), values[None], observed, state)
                    for values, observed in zip(
                        values_BTD.split(STAYS_AT_ONCE), observed_BTD.split(STAYS_AT_ONCE), strict=True
                    )
                ]
                for fold, values_BTD in enumerate(values_FBTD)
            ]
            of_all_stays = [[torch.cat(parts, dim=1) for parts in zip(*some, strict=True)] for some in by_fold]
            return Readings(*(torch.cat(parts) for parts in zip(*of_all_stays, strict=True)))

    def _read_folds(self, folds: slice, values_FBTD: torch.Tensor, observed_BTD: torch.Tensor, state: str) -> Readings:
        F, B, T, D = values_FBTD.shape
        directions = Directions.of(values_FBTD.flatten(0, 1), observed_BTD.expand(F, -1, -1, -1).flatten(0, 1))
        values, observed, gap, last_observed = (
            series.transpose(1, 2).unflatten(2, (F, B)).permute(2, 0, 1, 3, 4).reshape(2 * F, T, B, D)
            for series in (directions.values, directions.observed, directions.gap_hours, directions.last_observed)
        )
        if self.sizes.bin_hours != 1:
            gap = gap * self.sizes.bin_hours
        first_JBH = first_hidden(
            _chosen(self.first_states, folds),
            last_observed.transpose(1, 2),
            gap.transpose(1, 2),
            self.sizes.attention_heads,
        )
        combined_TJBD, hidden_TJBH = recur_stacked(_chosen(self.recurrence, folds), values, observed, gap, first_JBH)
        forward_TFBD, backward_TFBD = combined_TJBD.unflatten(1, (F, 2)).unbind(2)
        estimate_FBTD = torch.lerp(forward_TFBD, backward_TFBD.flip(0), 0.5).permute(1, 2, 0, 3)
        hidden_FKBTH = hidden_TJBH.unflatten(1, (F, 2)).permute(1, 2, 3, 0, 4)
        return Readings(
            state_FBS=torch.stack([make_state(state, hidden_KBTH) for hidden_KBTH in hidden_FKBTH]),
            imputed_FBTD=torch.where(observed_BTD > 0, values_FBTD, estimate_FBTD),
        )


def _joined(weights: Sequence[Weights]) -> Weights:
    """Return the weights of several folds as those of one batch of readings."""
    return type(weights[0])._make(torch.cat(each).contiguous() for each in zip(*weights, strict=True))


def _chosen(weights: Weights, folds: slice) -> Weights:
    """Return the weights of some folds."""
    return type(weights)._make(each[2 * folds.start : 2 * folds.stop] for each in weights)
