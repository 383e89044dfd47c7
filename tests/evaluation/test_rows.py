import json

import pytest

from imputune.evaluation.rows import Row, imputer_rows, make_row
from imputune.reporting.comparison import Comparison
from imputune.reporting.tables import imputers_table, variants_table

SCORES = ("validation_auc", "test_auc", "test_auprc", "test_brier", "test_calibration_error")
FOLDS = [
    {"fold": fold, "best_epoch": 3} | dict(zip(SCORES, scores, strict=True))
    for fold, scores in enumerate(
        [(0.70, 0.80, 0.5, 0.10, 0.03), (0.74, 0.82, 0.5, 0.12, 0.04), (0.78, 0.87, 0.5, 0.11, 0.05)]
    )
]
VARIANT = {"head": "mlp2", "mode": "frozen", "input": "hidden", "schedule": "plateau"}
POINT = {"risk": 0.2, "died": 0.25, "stays": 40}
COUNTS = {"num_parameters": 14081, "trainable_parameters": 14081}


def row(dataset: str = "physionet2012", folds: list[dict[str, float]] = FOLDS) -> Row:
    """Aggregate three made-up folds."""
    return make_row(dataset, VARIANT, COUNTS, 1234.5, folds, "run7", "tracked run", [POINT])


def score(
    imputer: str, variable: str, mae: float, mre: float, pattern: str = "uniform", split: str = "test"
) -> dict[str, str | float]:
    """Return one row of an imputer's scores."""
    group = {"imputer": imputer, "pattern": pattern, "split": split}
    return group | {"variable": variable, "variants": 9, "mae": mae, "mre": mre}


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
    """Return a comparison of one variant and two imputers."""
    rows, imputers = (row(),), tuple(imputer_rows(IMPUTATION))
    return Comparison("physionet2012", 3997, 554, "abc", 1 / 3, rows, imputers, ("one variant is unfinished",))


def test_row_by_hand() -> None:
    """Scores are means and sample deviations over folds: 0.80, 0.82, 0.87 give 0.83 and sqrt(0.0013)."""
    made = row()
    assert made.test_auc_mean == pytest.approx(0.83)
    assert made.test_auc_std == pytest.approx((0.0026 / 2) ** 0.5)
    assert (made.val_auc_mean, made.val_auc_std) == (pytest.approx(0.74), pytest.approx(0.04))
    assert (made.test_auprc_mean, made.test_auprc_std) == (0.5, 0)
    assert (made.test_brier_mean, made.test_brier_std) == (pytest.approx(0.11), pytest.approx(0.01))
    assert (made.head, made.mode, made.input, made.schedule) == ("mlp2", "frozen", "hidden", "plateau")
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
        "test_calibration_error": 0.05,
    }


def test_one_fold_has_deviation_0() -> None:
    """A single fold's mean is its score."""
    made = row(folds=FOLDS[:1])
    assert (made.test_auc_mean, made.test_auc_std) == (0.8, 0)


def test_the_papers_figure_stands_beside_its_own_dataset_alone() -> None:
    """The paper's frozen mlp2 under plateau reached 0.778 on PhysioNet 2012; of generated records it says nothing."""
    assert (row("physionet2012").paper_test_auc, row("physionet2012").paper_from) == (0.778, "Table II")
    assert row("mimic3").paper_test_auc == 0.756
    assert (row("synthetic").paper_test_auc, row("synthetic").paper_from) == (None, None)


def test_imputer_rows_by_hand() -> None:
    """Errors are averaged over folds in the order met; a variable is averaged over the folds that scored it."""
    csai, mean = imputer_rows(IMPUTATION)
    assert (csai.imputer, csai.pattern, csai.split, mean.imputer) == ("csai", "uniform", "test", "mean")
    assert (csai.mae_mean, csai.mae_std) == (pytest.approx(0.3), pytest.approx(0.02**0.5))
    assert (csai.mre_mean, csai.mre_std) == (pytest.approx(0.5), pytest.approx(0.02**0.5))
    assert csai.mae_by_variable == {"HR": pytest.approx(0.2), "pH": 0.9}
    assert csai.mre_by_variable == {"HR": pytest.approx(0.3), "pH": 1}
    assert (mean.mae_mean, mean.mae_std, mean.mae_by_variable, mean.mre_by_variable) == (0.7, 0, {}, {})


def test_imputer_rows_keep_ways_of_hiding_apart() -> None:
    """One imputer scored under two masking patterns makes two rows."""
    fold = [score("csai", "all", 0.2, 0.4), score("csai", "all", 0.3, 0.5, "non_uniform")]
    assert [(made.pattern, made.mae_mean) for made in imputer_rows([fold])] == [("uniform", 0.2), ("non_uniform", 0.3)]


def test_validation_scores_are_rows_of_their_own_and_no_test_scores() -> None:
    """An imputer scored on validation too makes a second row; tables headed test leave it out, metrics name it."""
    fold = [score("csai", "all", 0.2, 0.4), score("csai", "all", 0.9, 0.5, split="validation")]
    rows = imputer_rows([fold])
    assert [(made.split, made.mae_mean) for made in rows] == [("test", 0.2), ("validation", 0.9)]
    assert imputers_table(rows).lines == (("csai", "uniform", "0.200 ± 0.000", "0.400 ± 0.000"),)
    compared = Comparison("physionet2012", 3997, 554, "abc", 1 / 3, (row(),), tuple(rows), ())
    assert compared.metrics()["imputer_mae"] == {"csai-uniform-test": 0.2, "csai-uniform-validation": 0.9}


def test_lines_by_hand() -> None:
    """Each line has a text per column of its header; a variant the paper has no figure for stays empty."""
    tables = [variants_table([row(dataset)]) for dataset in ("physionet2012", "synthetic")]
    ours, generated = (dict(zip(table.header, table.lines[0], strict=True)) for table in tables)
    assert ours == {
        "head": "mlp2",
        "mode": "frozen",
        "input": "hidden",
        "schedule": "plateau",
        "params": "14,081",
        "val AUC": "0.740 ± 0.040",
        "test AUC": "0.830 ± 0.036",
        "paper": "0.778",
        "test AUPRC": "0.500 ± 0.000",
        "test Brier": "0.110 ± 0.010",
        "calibration error": "0.040 ± 0.010",
        "seconds": "1,234",
    }
    assert generated == {**ours, "paper": ""}
    table = imputers_table(imputer_rows(IMPUTATION))
    assert dict(zip(table.header, table.lines[0], strict=True)) == {
        "imputer": "csai",
        "cells masked": "uniform",
        "test MAE": "0.300 ± 0.141",
        "test MRE": "0.500 ± 0.141",
    }


def test_markdown_contains_the_rows() -> None:
    """The page has the dataset's counts, every table with its title and lines, and the notes."""
    page = comparison()
    lines = page.to_markdown().splitlines()
    assert lines[0] == "# physionet2012: 3,997 stays, 554 deaths"
    for table in page.tables():
        header = lines.index("| " + " | ".join(table.header) + " |")
        assert lines[header - 2] == f"## {table.title}"
        assert lines[header + 1].count("---") == len(table.header)
        assert lines[header + 2 : header + 2 + len(table.lines)] == [f"| {' | '.join(line)} |" for line in table.lines]
    assert "| csai | uniform | 0.300 ± 0.141 | 0.500 ± 0.141 |" in lines
    assert lines[-1] == "Note: one variant is unfinished."


def test_metrics_leave_out_times_and_run_ids() -> None:
    """The scores by variant and imputer, rounded to six digits, and nothing that differs from run to run."""
    assert comparison().metrics() == {
        "variants": {
            "mlp2-frozen-hidden-plateau": {
                "val_auc_mean": 0.74,
                "val_auc_std": 0.04,
                "test_auc_mean": 0.83,
                "test_auc_std": 0.036056,
                "test_auprc_mean": 0.5,
                "test_auprc_std": 0.0,
                "test_brier_mean": 0.11,
                "test_brier_std": 0.01,
                "test_calibration_error_mean": 0.04,
                "test_calibration_error_std": 0.01,
            }
        },
        "imputer_mae": {"csai-uniform-test": 0.3, "mean-uniform-test": 0.7},
    }


def test_json_holds_everything() -> None:
    """All of a comparison survives JSON, with the claims and, apart, the figures of other protocols."""
    content = json.loads(json.dumps(comparison().as_json()))
    assert content["rows"][0]["folds"][1]["test_auc"] == 0.82
    assert content["rows"][0]["run_id"] == "run7"
    assert content["rows"][0]["calibration"] == [POINT]
    assert content["imputers"][0]["mae_by_variable"]["pH"] == 0.9
    assert content["notes"] == ["one variant is unfinished"]
    assert content["references_of_other_protocols"]["mTAN"] == 0.858
    assert content["claims"]["verdicts"] == []
