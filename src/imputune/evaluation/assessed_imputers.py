"""Imputers alone: what assessing each gave, as rows and tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from imputune.evaluation.imputation import HidingRow, hiding_rows
from imputune.protocol.imputers import IMPUTERS
from imputune.settings.names import Hiding, ImputerName

SAME = 1e-4  # deviations; a stay alone and in a batch may differ by that much through rounding
TARGET: tuple[Hiding, float] = ("non_uniform", 0.1)
"""The way of hiding and the share by which imputers are ranked."""


@dataclass(frozen=True)
class AssessedImputer:
    """One imputer: how close it came, how long it takes, whether it mixes patients.

    seconds_per_1000_stays: to impute them on one core, the mean over folds. pretrain_seconds: of all folds together; 0
    where nothing is learned. epochs: trained at most. batch_difference: the furthest that a stay imputed alone lay from
    the same stay in a batch, in training deviations. mae_by_fold: by TARGET; None where that was not asked for.
    """

    imputer: ImputerName
    label: str
    epochs: int
    pretrain_seconds: float
    seconds_per_1000_stays: float
    batch_difference: float
    mixes_stays: bool
    rows: tuple[HidingRow, ...]
    mae_by_fold: tuple[float, ...] | None
    run_id: str

    def row(self, hiding: Hiding, share: float) -> HidingRow | None:
        """Return the row of a way of hiding and a share, None where there is none."""
        return next((row for row in self.rows if (row.hiding, row.share) == (hiding, share)), None)


def assessed_imputer(result: Mapping[str, Any], pretrained: Mapping[str, Any] | None = None) -> AssessedImputer:
    """Return an assessment's output as a row; `pretrained` is the output of the imputer's pretraining."""
    name: ImputerName = result["imputer"]
    folds = result["folds"]
    trained = [fold for fold in (pretrained or {"folds": []})["folds"] if fold["history"]]
    target = [float(row["mae"]) for fold in folds for row in fold["scores"] if (row["hiding"], row["share"]) == TARGET]
    difference = max(fold["batch_difference"] for fold in folds)
    return AssessedImputer(
        imputer=name,
        label=IMPUTERS[name].label,
        epochs=max((len(fold["history"]) for fold in trained), default=0),
        pretrain_seconds=sum(fold["seconds"] for fold in trained),
        seconds_per_1000_stays=fmean(fold["seconds"] for fold in folds),
        batch_difference=difference,
        mixes_stays=difference > SAME,
        rows=hiding_rows([fold["scores"] for fold in folds]),
        mae_by_fold=tuple(target) or None,
        run_id=result["run_id"],
    )
