from math import isnan

import pytest

from example_results import variant_row
from imputune.evaluation.imputation import CellErrors, ImputationErrors
from imputune.evaluation.metrics import ReliabilityPoint
from imputune.evaluation.rows import (
    SCORES,
    FoldScores,
    Spread,
    VariantResults,
    VariantRow,
    imputer_rows,
    make_variant_row,
    schedule_average,
)
from imputune.protocol.variants import make_variant

FOLDS = tuple(
    FoldScores(fold=fold, **dict(zip(SCORES, scores, strict=True)))
    for fold, scores in enumerate(
        [(0.70, 0.80, 0.5, 0.10, 0.03), (0.74, 0.82, 0.5, 0.12, 0.04), (0.78, 0.87, 0.5, 0.11, 0.05)]
    )
)
POINT = ReliabilityPoint(risk=0.2, outcome_rate=0.25, stays=40)


def row(dataset: str = "physionet2012", folds: tuple[FoldScores, ...] = FOLDS, imputer: str = "csai") -> VariantRow:
    """Return the row of three hand-made folds."""
    variant = make_variant("mlp2", "frozen", "hidden", "plateau", imputer)
    results = VariantResults(
        num_parameters=14081,
        trainable_parameters=14081,
        seconds=1234.5,
        folds=folds,
        run_id="run7",
        source="tracked run",
        calibration=[POINT],
    )
    return make_variant_row(dataset, variant, results)


def errors(mae: float, mre: float, by_variable: dict[str, tuple[float, float]], **group: str) -> ImputationErrors:
    """Return an imputer's errors on a fold: MAE and MRE, overall and by variable."""
    return ImputationErrors(
        **{"imputer": "csai", "pattern": "uniform", "split": "test"} | group,
        overall=CellErrors(cells=9, mae=mae, rmse=mae, mre=mre),
        by_variable={
            name: CellErrors(cells=9, mae=variable_mae, rmse=variable_mae, mre=variable_mre)
            for name, (variable_mae, variable_mre) in by_variable.items()
        },
    )


IMPUTATION = [
    [errors(0.2, 0.4, {"HR": (0.1, 0.2)}), errors(0.7, 1.0, {}, imputer="mean")],
    [errors(0.4, 0.6, {"HR": (0.3, 0.4), "pH": (0.9, 1.0)}), errors(0.7, 1.0, {}, imputer="mean")],
]


def test_row_by_hand() -> None:
    """Scores are means and sample deviations over folds: 0.80, 0.82, 0.87 give 0.83 and sqrt(0.0013)."""
    made = row()
    assert made.test_auc_mean == pytest.approx(0.83)
    assert made.test_auc_std == pytest.approx((0.0026 / 2) ** 0.5)
    assert (made.val_auc_mean, made.val_auc_std) == (pytest.approx(0.74), pytest.approx(0.04))
    assert (made.test_auprc_mean, made.test_auprc_std) == (0.5, 0)
    assert (made.test_brier_mean, made.test_brier_std) == (pytest.approx(0.11), pytest.approx(0.01))
    error = made.test_calibration_error_mean, made.test_calibration_error_std
    assert error == (pytest.approx(0.04), pytest.approx(0.01))
    assert (made.head, made.mode, made.input, made.schedule) == ("mlp2", "frozen", "hidden", "plateau")
    assert (made.imputer, made.name, made.head_and_input) == ("csai", "mlp2-frozen-hidden-plateau", ("mlp2", "hidden"))
    assert (made.num_parameters, made.trainable_parameters) == (14081, 14081)
    assert (made.seconds, made.run_id, made.source) == (1234.5, "run7", "tracked run")


def test_row_keeps_the_scores_of_each_fold() -> None:
    """The scores of each fold and the calibration curve stay in the row."""
    assert row().folds == FOLDS
    assert row().by_fold("test_auc") == {0: 0.80, 1: 0.82, 2: 0.87}
    assert row().by_fold("validation_auc") == {0: 0.70, 1: 0.74, 2: 0.78}
    assert row().calibration == (POINT,)


def test_the_calibration_slope_needs_every_fold() -> None:
    """0.8, 0.9 and 1.3 have mean 1.0; with one fold from before it was recorded, or without a line, there is none."""
    later = [{"test_calibration_slope": slope, "test_calibration_intercept": 0.1} for slope in (0.8, 0.9, 1.3)]
    recorded = [fold.model_dump(exclude={"fold"}, exclude_none=True) for fold in FOLDS]
    folds = tuple(
        FoldScores.of(fold, {**old, **new, "seconds": 3.0})
        for fold, (old, new) in enumerate(zip(recorded, later, strict=True))
    )
    assert folds[0].test_calibration_slope == 0.8
    made = row(folds=folds)
    assert made.test_calibration_slope_mean == pytest.approx(1.0)
    assert made.test_calibration_slope_std == pytest.approx((0.14 / 2) ** 0.5)
    assert VariantRow.model_validate_json(made.model_dump_json()) == made
    unfit = FoldScores.of(2, {**recorded[2], "test_calibration_slope": float("nan")})
    for last in (FOLDS[2], unfit):
        assert last.test_calibration_slope is None
        assert row(folds=(*folds[:2], last)).test_calibration_slope_mean is None
    with pytest.raises(KeyError, match="test_auc"):
        FoldScores.of(0, {"validation_auc": 0.7})


def test_one_fold_has_no_deviation() -> None:
    """A single fold's mean is its score."""
    made = row(folds=FOLDS[:1])
    assert made.test_auc_mean == 0.8
    assert isnan(made.test_auc_std)


def test_the_papers_figure_stands_with_its_own_dataset_and_imputer_alone() -> None:
    """The paper's frozen mlp2 under plateau reached 0.778 on PhysioNet 2012; it has no figures for other imputers."""
    assert (row("physionet2012").paper_test_auc, row("physionet2012").paper_from) == (0.778, "Table II")
    assert row("mimic3").paper_test_auc == 0.756
    assert (row("synthetic").paper_test_auc, row("synthetic").paper_from) == (None, None)
    assert row(imputer="csai_untrained").paper_test_auc is None


def test_without_a_test_auc_the_paper_is_not_named() -> None:
    """Of the unfrozen lstm the paper has a validation AUC alone."""
    made = variant_row("lstm-unfrozen-raw-plateau", [0.8])
    assert (made.paper_test_auc, made.paper_from) == (None, None)


def test_a_row_survives_json() -> None:
    """Read back from its JSON, a row is equal."""
    assert VariantRow.model_validate_json(row().model_dump_json()) == row()


def test_imputer_rows_by_hand() -> None:
    """Errors are means over folds in the order of the folds; a variable's over the folds that scored it."""
    csai, mean = imputer_rows(IMPUTATION)
    assert (csai.imputer, csai.pattern, csai.split, mean.imputer) == ("csai", "uniform", "test", "mean")
    assert (csai.mae_mean, csai.mae_std) == (pytest.approx(0.3), pytest.approx(0.02**0.5))
    assert (csai.mre_mean, csai.mre_std) == (pytest.approx(0.5), pytest.approx(0.02**0.5))
    assert csai.mae_by_variable == {"HR": pytest.approx(0.2), "pH": 0.9}
    assert csai.mre_by_variable == {"HR": pytest.approx(0.3), "pH": 1}
    assert (mean.mae_mean, mean.mae_std, mean.mae_by_variable, mean.mre_by_variable) == (0.7, 0, {}, {})


def test_patterns_and_splits_have_rows_of_their_own() -> None:
    """One imputer under two masking patterns, or on two splits, makes two rows."""
    fold = [
        errors(0.2, 0.4, {}),
        errors(0.3, 0.5, {}, pattern="non_uniform"),
        errors(0.9, 0.5, {}, split="validation"),
    ]
    assert [(made.pattern, made.split, made.mae_mean) for made in imputer_rows([fold])] == [
        ("uniform", "test", 0.2),
        ("non_uniform", "test", 0.3),
        ("uniform", "validation", 0.9),
    ]


def test_average_over_schedules_needs_all_three() -> None:
    """Averaged fold by fold: 0.83 and 0.85; None while one is missing."""
    aucs = {"optuna": [0.80, 0.82], "cyclic": [0.83, 0.85], "plateau": [0.86, 0.88]}
    rows = [variant_row(f"mlp2-frozen-hidden-{schedule}", each) for schedule, each in aucs.items()]
    assert schedule_average(rows, "test_auc") == (pytest.approx(0.84), pytest.approx(0.0002**0.5))
    assert schedule_average(rows[:2], "test_auc") is None


def test_spread_is_mean_and_sample_deviation() -> None:
    """1, 2 and 6 have mean 3 and variance (4 + 1 + 9) / 2."""
    assert Spread.of([1, 2, 6]) == (3, pytest.approx(7**0.5))
    mean, deviation = Spread.of([0.25])
    assert mean == 0.25
    assert isnan(deviation)
