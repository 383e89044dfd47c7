import json

import pytest

from imputune.evaluation.comparison import (
    CELL_HEADER,
    IMPUTER_HEADER,
    Comparison,
    Row,
    cell_lines,
    imputer_lines,
    imputer_rows,
    make_row,
    to_markdown,
)

FOLDS = [
    {"fold": 0, "validation_auc": 0.70, "test_auc": 0.80, "test_auprc": 0.5, "test_brier": 0.10, "best_epoch": 3},
    {"fold": 1, "validation_auc": 0.74, "test_auc": 0.82, "test_auprc": 0.5, "test_brier": 0.12, "best_epoch": 5},
    {"fold": 2, "validation_auc": 0.78, "test_auc": 0.87, "test_auprc": 0.5, "test_brier": 0.11, "best_epoch": 4},
]
CELL = {"head": "mlp2", "mode": "frozen", "input": "last", "schedule": "plateau"}
COUNTS = {"num_parameters": 14081, "trainable_parameters": 14081}


def row(dataset: str = "physionet2012", folds: list[dict[str, float]] = FOLDS) -> Row:
    """Aggregate three made-up folds."""
    return make_row(dataset, CELL, COUNTS, 1234.5, folds, "run7", "tracked run")


def score(
    imputer: str, variable: str, mae: float, mre: float, hiding: str = "uniform", partition: str = "test"
) -> dict[str, str | float]:
    """Return one row of an imputer's scores."""
    group = {"imputer": imputer, "hiding": hiding, "partition": partition}
    return group | {"variable": variable, "cells": 9, "mae": mae, "mre": mre}


IMPUTATION = [
    [score("csai", "all", 0.2, 0.4), score("csai", "HR", 0.1, 0.2), score("mean", "all", 0.7, 1.0)],
    [
        score("csai", "all", 0.4, 0.6),
        score("csai", "HR", 0.3, 0.4),
        score("csai", "pH", 0.9, 1),
        score("mean", "all", 0.7, 1.0),
    ],
]


def comparison() -> Comparison:
    """Return a comparison of one cell and two imputers."""
    rows, imputers = (row(),), tuple(imputer_rows(IMPUTATION))
    return Comparison("physionet2012", 3997, 554, "abc", rows, imputers, ("one cell is unfinished",))


def test_row_by_hand() -> None:
    """Scores are means and sample deviations over folds: 0.80, 0.82, 0.87 give 0.83 and sqrt(0.0013)."""
    made = row()
    assert made.test_auc_mean == pytest.approx(0.83)
    assert made.test_auc_std == pytest.approx((0.0026 / 2) ** 0.5)
    assert (made.val_auc_mean, made.val_auc_std) == (pytest.approx(0.74), pytest.approx(0.04))
    assert (made.test_auprc_mean, made.test_auprc_std) == (0.5, 0)
    assert (made.test_brier_mean, made.test_brier_std) == (pytest.approx(0.11), pytest.approx(0.01))
    assert (made.head, made.mode, made.input, made.schedule) == ("mlp2", "frozen", "last", "plateau")
    assert (made.num_parameters, made.trainable_parameters) == (14081, 14081)
    assert (made.seconds, made.run_id, made.source) == (1234.5, "run7", "tracked run")


def test_row_keeps_the_scores_of_each_fold() -> None:
    """Beside the means stands what each fold scored."""
    assert row().folds[2] == {
        "fold": 2,
        "validation_auc": 0.78,
        "test_auc": 0.87,
        "test_auprc": 0.5,
        "test_brier": 0.11,
    }


def test_one_fold_has_deviation_0() -> None:
    """A single fold's mean is its score."""
    made = row(folds=FOLDS[:1])
    assert (made.test_auc_mean, made.test_auc_std) == (0.8, 0)


def test_the_papers_figure_stands_beside_its_own_dataset_alone() -> None:
    """The paper's frozen mlp2 reached 0.779 on PhysioNet 2012; of generated records it says nothing."""
    assert row("physionet2012").paper_test_auc == 0.779
    assert row("synthetic").paper_test_auc is None


def test_imputer_rows_by_hand() -> None:
    """Errors are averaged over folds in the order met; a variable is averaged over the folds that scored it."""
    csai, mean = imputer_rows(IMPUTATION)
    assert (csai.imputer, csai.hiding, csai.partition, mean.imputer) == ("csai", "uniform", "test", "mean")
    assert (csai.mae_mean, csai.mae_std) == (pytest.approx(0.3), pytest.approx(0.02**0.5))
    assert (csai.mre_mean, csai.mre_std) == (pytest.approx(0.5), pytest.approx(0.02**0.5))
    assert csai.mae_by_variable == {"HR": pytest.approx(0.2), "pH": 0.9}
    assert csai.mre_by_variable == {"HR": pytest.approx(0.3), "pH": 1}
    assert (mean.mae_mean, mean.mae_std, mean.mae_by_variable, mean.mre_by_variable) == (0.7, 0, {}, {})


def test_imputer_rows_keep_ways_of_hiding_apart() -> None:
    """One imputer scored under two ways of hiding makes two rows."""
    fold = [score("csai", "all", 0.2, 0.4), score("csai", "all", 0.3, 0.5, "non_uniform")]
    assert [(made.hiding, made.mae_mean) for made in imputer_rows([fold])] == [("uniform", 0.2), ("non_uniform", 0.3)]


def test_validation_scores_are_rows_of_their_own_and_no_test_scores() -> None:
    """An imputer scored on validation too makes a second row; tables headed test leave it out, metrics name it."""
    fold = [score("csai", "all", 0.2, 0.4), score("csai", "all", 0.9, 0.5, partition="validation")]
    rows = imputer_rows([fold])
    assert [(made.partition, made.mae_mean) for made in rows] == [("test", 0.2), ("validation", 0.9)]
    assert imputer_lines(rows) == [("csai", "uniform", "0.200 ± 0.000", "0.400 ± 0.000")]
    compared = Comparison("physionet2012", 3997, 554, "abc", (row(),), tuple(rows), ())
    assert compared.metrics()["imputer_mae"] == {"csai-uniform-test": 0.2, "csai-uniform-validation": 0.9}


def test_lines_by_hand() -> None:
    """Each line has a text per column of its header; a cell the paper has no figure for stays empty."""
    ours, generated = (
        dict(zip(CELL_HEADER, cell_lines([row(dataset)])[0], strict=True)) for dataset in ("physionet2012", "synthetic")
    )
    assert ours == {
        "head": "mlp2",
        "mode": "frozen",
        "input": "last",
        "schedule": "plateau",
        "params": "14,081",
        "val AUC": "0.740 ± 0.040",
        "test AUC": "0.830 ± 0.036",
        "paper": "0.779",
        "seconds": "1,234",
    }
    assert generated == {**ours, "paper": ""}
    assert dict(zip(IMPUTER_HEADER, imputer_lines(imputer_rows(IMPUTATION))[0], strict=True)) == {
        "imputer": "csai",
        "cells hidden": "uniform",
        "test MAE": "0.300 ± 0.141",
        "test MRE": "0.500 ± 0.141",
    }


def test_markdown_contains_the_rows() -> None:
    """The page has the dataset's counts, a row per cell with its further scores and per imputer, and the notes."""
    lines = to_markdown(comparison()).splitlines()
    assert lines[0] == "# physionet2012: 3,997 stays, 554 deaths"
    header = lines.index("| " + " | ".join((*CELL_HEADER, "test AUPRC", "test Brier")) + " |")
    assert lines[header + 1].count("---") == len(CELL_HEADER) + 2
    assert lines[header + 2] == "| " + " | ".join(cell_lines([row()])[0]) + " | 0.500 ± 0.000 | 0.110 ± 0.010 |"
    assert "| csai | uniform | 0.300 ± 0.141 | 0.500 ± 0.141 |" in lines
    assert "| mean | uniform | 0.700 ± 0.000 | 1.000 ± 0.000 |" in lines
    assert lines[-1] == "Note: one cell is unfinished"


def test_metrics_leave_out_times_and_run_ids() -> None:
    """The scores by cell and imputer, rounded to six digits, and nothing that differs from run to run."""
    assert comparison().metrics() == {
        "cells": {
            "mlp2-frozen-last-plateau": {
                "val_auc_mean": 0.74,
                "val_auc_std": 0.04,
                "test_auc_mean": 0.83,
                "test_auc_std": 0.036056,
                "test_auprc_mean": 0.5,
                "test_auprc_std": 0.0,
                "test_brier_mean": 0.11,
                "test_brier_std": 0.01,
            }
        },
        "imputer_mae": {"csai-uniform-test": 0.3, "mean-uniform-test": 0.7},
    }


def test_json_holds_everything() -> None:
    """All of a comparison survives JSON."""
    content = json.loads(json.dumps(comparison().as_json()))
    assert content["rows"][0]["folds"][1]["test_auc"] == 0.82
    assert content["rows"][0]["run_id"] == "run7"
    assert content["imputers"][0]["mae_by_variable"]["pH"] == 0.9
    assert content["notes"] == ["one cell is unfinished"]
