"""From scores by fold to rows: of fine-tuned cells, and of imputers."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imputune.protocol.imputers import PRETRAINED, known_imputer
from imputune.protocol.published import (
    SCHEDULES,
    Quoted,
    quoted,
)
from imputune.settings.names import ImputerName

SCORES = ("validation_auc", "test_auc", "test_auprc", "test_brier", "test_calibration_error")


@dataclass(frozen=True)
class Row:
    """One fine-tuned cell: scores as mean and sample deviation over folds, seconds summed over folds.

    num_parameters counts the head alone, as the paper does; trainable_parameters all that fine-tuning moves; None
    where a head is no network. paper_from says where the paper has its figure, which may be an average. source says
    what the row was read from: a tracked run, or stage outputs where the run is gone. calibration has the points of
    the calibration curve over all test stays (see `metrics.reliability`); none where only the run is left.
    """

    head: str
    mode: str
    input: str
    schedule: str
    num_parameters: int | None
    trainable_parameters: int | None
    val_auc_mean: float
    val_auc_std: float
    test_auc_mean: float
    test_auc_std: float
    test_auprc_mean: float
    test_auprc_std: float
    test_brier_mean: float
    test_brier_std: float
    test_calibration_error_mean: float
    test_calibration_error_std: float
    paper_test_auc: float | None
    paper_from: str | None
    seconds: float
    run_id: str
    source: str
    folds: tuple[dict[str, Any], ...]
    calibration: tuple[dict[str, float], ...] = ()
    imputer: ImputerName = PRETRAINED

    @property
    def name(self) -> str:
        """The cell's name."""
        return f"{self.head}-{self.mode}-{self.input}-{self.schedule}"

    @property
    def reader(self) -> tuple[str, str]:
        """The head and what it reads: what a line of the paper's tables stands for."""
        return self.head, self.input

    def by_fold(self, score: str) -> dict[int, float]:
        """Return one of SCORES by the number of the fold."""
        return {fold["fold"]: fold[score] for fold in self.folds}


def make_row(
    dataset: str,
    cell: Mapping[str, str],
    counts: Mapping[str, int | None],
    seconds: float,
    folds: Sequence[Mapping[str, Any]],
    run_id: str,
    source: str,
    calibration: Sequence[dict[str, float]] = (),
) -> Row:
    """Aggregate a cell's folds, each a mapping with fold and the names in SCORES.

    `cell` names head, mode, input and schedule, and an imputer other than CSAI; `counts` has num_parameters and
    trainable_parameters.
    """
    spread = {name: mean_and_deviation([float(fold[name]) for fold in folds]) for name in SCORES}
    means: dict[str, Any] = {
        f"{name.replace('validation', 'val')}_{statistic}": value
        for name, pair in spread.items()
        for statistic, value in zip(("mean", "std"), pair, strict=True)
    }
    imputer = known_imputer(cell.get("imputer", PRETRAINED))
    protocol = {part: word for part, word in cell.items() if part != "imputer"}
    paper = (quoted(dataset, **protocol) if imputer == PRETRAINED else None) or Quoted(None, None, None)
    return Row(
        head=cell["head"],
        mode=cell["mode"],
        input=cell["input"],
        schedule=cell["schedule"],
        num_parameters=counts["num_parameters"],
        trainable_parameters=counts["trainable_parameters"],
        **means,
        paper_test_auc=paper.test_auc,
        paper_from=paper.source if paper.test_auc is not None else None,
        seconds=seconds,
        run_id=run_id,
        source=source,
        folds=tuple({"fold": fold["fold"]} | {name: fold[name] for name in SCORES} for fold in folds),
        calibration=tuple(calibration),
        imputer=imputer,
    )


@dataclass(frozen=True)
class ImputerRow:
    """One imputer under one way of hiding cells of one partition: error, mean and sample deviation over folds."""

    imputer: str
    hiding: str
    partition: str
    mae_mean: float
    mae_std: float
    mre_mean: float
    mre_std: float
    mae_by_variable: dict[str, float]
    mre_by_variable: dict[str, float]


def imputer_rows(folds: Sequence[Sequence[Mapping[str, Any]]]) -> list[ImputerRow]:
    """Aggregate the imputation scores of each fold (see `metrics.imputation_scores`), in their order."""
    grouped: dict[tuple[str, str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for fold in folds:
        for row in fold:
            group = grouped.setdefault((row["imputer"], row["hiding"], row["partition"]), {})
            group.setdefault(row["variable"], []).append(row)
    rows = []
    for key, by_variable in grouped.items():
        overall = by_variable.pop("all")
        spreads = [mean_and_deviation([float(row[measure]) for row in overall]) for measure in ("mae", "mre")]
        mae, mre = (
            {name: statistics.fmean(float(row[measure]) for row in rows) for name, rows in by_variable.items()}
            for measure in ("mae", "mre")
        )
        rows.append(ImputerRow(*key, *spreads[0], *spreads[1], mae, mre))
    return rows


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample deviation of values, 0 for a single one."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def schedule_average(rows: Sequence[Row], score: str) -> tuple[float, float] | None:
    """Return mean and deviation over folds of a reader's average over the three schedules; None while one is missing.

    `rows` are those of one head, mode and input.
    """
    if {row.schedule for row in rows} != set(SCHEDULES):
        return None
    by_fold = [row.by_fold(score) for row in rows]
    return mean_and_deviation([sum(each[fold] for each in by_fold) / len(by_fold) for fold in by_fold[0]])
