"""From scores by fold to the tables people read."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from imputune.evaluation.paper import TEST_AUC

SCORES = ("validation_auc", "test_auc", "test_auprc", "test_brier")


@dataclass(frozen=True)
class Row:
    """One fine-tuned cell: scores as mean and sample deviation over folds, seconds summed over folds.

    num_parameters counts the head alone, as the paper does; trainable_parameters all that fine-tuning moves.
    source says what the row was read from: a tracked run, or stage outputs where the run is gone.
    """

    head: str
    mode: str
    input: str
    schedule: str
    num_parameters: int
    trainable_parameters: int
    val_auc_mean: float
    val_auc_std: float
    test_auc_mean: float
    test_auc_std: float
    test_auprc_mean: float
    test_auprc_std: float
    test_brier_mean: float
    test_brier_std: float
    paper_test_auc: float | None
    seconds: float
    run_id: str
    source: str
    folds: tuple[dict[str, Any], ...]


def make_row(
    dataset: str,
    cell: Mapping[str, str],
    counts: Mapping[str, int],
    seconds: float,
    folds: Sequence[Mapping[str, Any]],
    run_id: str,
    source: str,
) -> Row:
    """Aggregate a cell's folds, each a mapping with fold and the names in SCORES.

    `cell` names head, mode, input and schedule; `counts` has num_parameters and trainable_parameters.
    """
    spread = {name: _mean_and_deviation([float(fold[name]) for fold in folds]) for name in SCORES}
    means: dict[str, Any] = {
        f"{name.replace('validation', 'val')}_{statistic}": value
        for name, pair in spread.items()
        for statistic, value in zip(("mean", "std"), pair, strict=True)
    }
    return Row(
        head=cell["head"],
        mode=cell["mode"],
        input=cell["input"],
        schedule=cell["schedule"],
        num_parameters=counts["num_parameters"],
        trainable_parameters=counts["trainable_parameters"],
        **means,
        paper_test_auc=TEST_AUC.get((dataset, cell["head"], cell["mode"])),
        seconds=seconds,
        run_id=run_id,
        source=source,
        folds=tuple({"fold": fold["fold"]} | {name: fold[name] for name in SCORES} for fold in folds),
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
        spreads = [_mean_and_deviation([float(row[measure]) for row in overall]) for measure in ("mae", "mre")]
        mae, mre = (
            {name: statistics.fmean(float(row[measure]) for row in rows) for name, rows in by_variable.items()}
            for measure in ("mae", "mre")
        )
        rows.append(ImputerRow(*key, *spreads[0], *spreads[1], mae, mre))
    return rows


@dataclass(frozen=True)
class Comparison:
    """All that compare reports of one dataset; notes say what was left out, or read from where."""

    dataset: str
    stays: int
    deaths: int
    cohort_hash: str
    rows: tuple[Row, ...]
    imputers: tuple[ImputerRow, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def metrics(self) -> dict[str, Any]:
        """Return the scores alone, without times and run ids: equal for equal code, data and parameters."""
        cells = {
            f"{row.head}-{row.mode}-{row.input}-{row.schedule}": {
                name: round(value, 6)
                for name, value in asdict(row).items()
                if name.endswith(("_mean", "_std")) and isinstance(value, float)
            }
            for row in self.rows
        }
        imputers = {f"{row.imputer}-{row.hiding}-{row.partition}": round(row.mae_mean, 6) for row in self.imputers}
        return {"cells": cells, "imputer_mae": imputers}


CELL_HEADER = ("head", "mode", "input", "schedule", "params", "val AUC", "test AUC", "paper", "seconds")
MORE_HEADER = ("test AUPRC", "test Brier")
IMPUTER_HEADER = ("imputer", "cells hidden", "test MAE", "test MRE")


def cell_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the cells as text, one tuple per row, in the order of CELL_HEADER."""
    return [
        (
            row.head,
            row.mode,
            row.input,
            row.schedule,
            f"{row.num_parameters:,}",
            _spread(row.val_auc_mean, row.val_auc_std),
            _spread(row.test_auc_mean, row.test_auc_std),
            f"{row.paper_test_auc:.3f}" if row.paper_test_auc is not None else "",
            f"{row.seconds:,.0f}",
        )
        for row in rows
    ]


def _more_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (_spread(row.test_auprc_mean, row.test_auprc_std), _spread(row.test_brier_mean, row.test_brier_std))
        for row in rows
    ]


def imputer_lines(rows: Sequence[ImputerRow]) -> list[tuple[str, ...]]:
    """Return the imputers' test scores as text, one tuple per row, in the order of IMPUTER_HEADER."""
    return [
        (row.imputer, row.hiding, _spread(row.mae_mean, row.mae_std), _spread(row.mre_mean, row.mre_std))
        for row in rows
        if row.partition == "test"
    ]


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown page."""
    parts = [
        f"# {comparison.dataset}: {comparison.stays:,} stays, {comparison.deaths:,} deaths",
        "Mean ± sample deviation over the test folds; the kept epoch of each fold was chosen on its validation stays. "
        "Seconds are the folds' training times added up; paper is the paper's test AUC, averaged over its schedules.",
        "## In-hospital death",
        _markdown_table(
            CELL_HEADER + MORE_HEADER,
            [line + more for line, more in zip(cell_lines(comparison.rows), _more_lines(comparison.rows), strict=True)],
        ),
        "## Imputation of hidden cells, in training standard deviations",
        _markdown_table(IMPUTER_HEADER, imputer_lines(comparison.imputers)),
        *(f"Note: {note}" for note in comparison.notes),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _spread(mean: float, deviation: float) -> str:
    return f"{mean:.3f} ± {deviation:.3f}"


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
