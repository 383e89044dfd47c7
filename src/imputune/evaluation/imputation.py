"""How close imputed values come on held-out cells: overall and by variable.

Letters: B stays, T hours, D variables, M held-out cells. Values are standardised, so errors are in training standard
deviations.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from imputune.evaluation.stored import Stored
from imputune.settings.names import ImputerName, RandomPattern

ImputedBatch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Estimates and true values of some stays, and which cells are held out, 0/1 or boolean, (B, T, D) each."""


class CellErrors(Stored):
    """Errors over some held-out cells.

    mae, rmse: mean absolute and root mean square error, in training standard deviations. mre: sum of absolute errors
    over sum of absolute true values. All are 0 where there is no cell.
    """

    cells: int
    mae: float
    rmse: float
    mre: float


class ImputationErrors(Stored):
    """An imputer's errors on the held-out cells of a split, overall and for each variable that has such cells."""

    imputer: ImputerName
    pattern: RandomPattern
    split: Literal["validation", "test"]
    overall: CellErrors
    by_variable: dict[str, CellErrors]


@dataclass(frozen=True, kw_only=True)
class _ErrorSums:
    cells: int
    absolute: float
    square: float
    magnitude: float

    @classmethod
    def of(cls, estimate_M: np.ndarray, truth_M: np.ndarray) -> Self:
        """Add up the errors of some cells, in double precision."""
        error_M = estimate_M - truth_M
        return cls(
            cells=len(truth_M),
            absolute=np.abs(error_M).sum(dtype=np.float64),
            square=np.square(error_M).sum(dtype=np.float64),
            magnitude=np.abs(truth_M).sum(dtype=np.float64),
        )

    @classmethod
    def total(cls, sums: Iterable[Self]) -> Self:
        each = list(sums)
        return cls(
            cells=sum(one.cells for one in each),
            absolute=sum(one.absolute for one in each),
            square=sum(one.square for one in each),
            magnitude=sum(one.magnitude for one in each),
        )

    def errors(self) -> CellErrors:
        cells = max(self.cells, 1)
        return CellErrors(
            cells=self.cells,
            mae=float(self.absolute / cells),
            rmse=float(np.sqrt(self.square / cells)),
            mre=float(self.absolute / max(self.magnitude, 1e-12)),
        )


def cell_errors(batches: Iterable[ImputedBatch], variables: Sequence[str]) -> tuple[CellErrors, dict[str, CellErrors]]:
    """Return the errors over all held-out cells of some batches, and by variable for those that have such cells.

    Only the held-out cells are kept of a batch; values that are not held out have no effect.
    """
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in variables}
    for estimate_BTD, truth_BTD, held_out_BTD in batches:
        for number, name in enumerate(variables):
            held_out_BT = held_out_BTD[..., number].astype(bool)
            parts[name].append((estimate_BTD[..., number][held_out_BT], truth_BTD[..., number][held_out_BT]))
    sums = {name: _ErrorSums.of(*map(np.concatenate, zip(*pairs, strict=True))) for name, pairs in parts.items()}
    by_variable = {name: each.errors() for name, each in sums.items() if each.cells}
    return _ErrorSums.total(sums.values()).errors(), by_variable
