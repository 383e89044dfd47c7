"""Hand-made results of variants and imputers, for the tests of evaluation and reporting."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from imputune.evaluation.assessed_imputers import AssessedImputer, Assessment, summarise_imputer
from imputune.evaluation.assessment import AssessedFold, HeldOutScores, VariableErrors
from imputune.evaluation.comparison import ImputerComparison
from imputune.evaluation.imputation import CellErrors
from imputune.evaluation.metrics import ReliabilityPoint
from imputune.evaluation.rows import FoldScores, VariantResults, VariantRow, make_variant_row
from imputune.protocol.division import Division
from imputune.protocol.variants import Variant
from imputune.settings.imputer_sections import Ranking
from imputune.settings.names import Head, ImputerName, MaskingPattern

PARAMETERS = {"mlp2": 14_081, "mlp5": 63_617, "lstm": 76_721, "gru": 61_061}
CALIBRATION = (
    ReliabilityPoint(risk=0.1, outcome_rate=0.1, stays=50),
    ReliabilityPoint(risk=0.5, outcome_rate=0.4, stays=50),
)
RANKING = Ranking(pattern="non_uniform", rate=0.1)
IMPUTERS: tuple[ImputerName, ...] = ("csai", "mean", "saits")
HEADS: tuple[Head, ...] = ("mlp2", "xgboost")
Auc = Callable[[int, int, int], float]


def fold_scores(fold: int, test_auc: float) -> FoldScores:
    """Return the scores of a fold; the validation AUC is 0.01 higher than the test AUC."""
    return FoldScores(
        fold=fold,
        validation_auc=test_auc + 0.01,
        test_auc=test_auc,
        test_auprc=0.5,
        test_brier=0.1,
        test_calibration_error=0.03,
        test_calibration_slope=0.9,
    )


def variant_row(
    name: str, test_aucs: Sequence[float], dataset: str = "physionet2012", imputer: ImputerName = "csai"
) -> VariantRow:
    """Return the row of a variant, such as mlp2-frozen-hidden-plateau, with these test AUCs by fold; 60 seconds."""
    variant = Variant.of(name.split("-"), imputer)
    results = VariantResults(
        num_parameters=PARAMETERS.get(variant.head),
        trainable_parameters=PARAMETERS.get(variant.head),
        seconds=60.0,
        folds=[fold_scores(fold, auc) for fold, auc in enumerate(test_aucs)],
        run_id="run",
        source="tracked run",
        calibration=CALIBRATION,
    )
    return make_variant_row(dataset, variant, results)


def matrix_row(imputer: ImputerName, head: Head, test_aucs: Sequence[float]) -> VariantRow:
    """Return the row of an imputer with a head, with these test AUCs by fold."""
    schedule = "plateau" if head in PARAMETERS else "none"
    return variant_row(f"{head}-frozen-imputed-{schedule}", test_aucs, "synthetic", imputer)


def matrix_rows(auc: Auc) -> list[VariantRow]:
    """Return the rows of three imputers with two heads; `auc(i, c, f)` is the test AUC in fold f, of four."""
    return [
        matrix_row(imputer, head, [auc(i, c, f) for f in range(4)])
        for (i, imputer), (c, head) in product(enumerate(IMPUTERS), enumerate(HEADS))
    ]


def noisy_rows(auc: Auc) -> list[VariantRow]:
    """Return the same with a little noise, the same each time, so that there is a residual to test against."""
    noise_ICF = np.random.default_rng(1).normal(0, 0.004, (3, 2, 4))
    return matrix_rows(lambda i, c, f: auc(i, c, f) + noise_ICF[i, c, f])


def held_out_scores_of(mae: float, pattern: MaskingPattern = "non_uniform", rate: float = 0.1) -> HeldOutScores:
    """Return the scores of one fold; all measures follow from the MAE, and there is one variable and one group."""
    errors = CellErrors(cells=9, mae=mae, rmse=2 * mae, mre=3 * mae)
    return HeldOutScores(
        **errors.model_dump(),
        wasserstein=mae / 2,
        pattern=pattern,
        rate=rate,
        correlation_error=None,
        by_variable={"HR": VariableErrors(**errors.model_dump(), wasserstein=mae / 2)},
        by_missing_share={"0": errors},
    )


def assessed_imputer(
    imputer: ImputerName,
    folds: Sequence[Sequence[HeldOutScores]],
    *,
    batch_difference: float = 0.0,
    pretraining: Sequence[tuple[float, int]] = (),
) -> AssessedImputer:
    """Return an imputer assessed on some folds, each with its scores; a fold takes 2 seconds per 1,000 stays."""
    assessed = [
        AssessedFold(fold=fold, seconds=2.0, batch_difference=batch_difference, scores=tuple(scores), example=[])
        for fold, scores in enumerate(folds)
    ]
    return summarise_imputer(
        imputer=imputer,
        ranking=RANKING,
        assessment=Assessment.of(assessed),
        pretraining=pretraining,
        run_id=f"run of {imputer}",
    )


def ranked_imputer(imputer: ImputerName, *maes: float) -> AssessedImputer:
    """Return an imputer with these errors by fold under the ranking's masking."""
    return assessed_imputer(imputer, [[held_out_scores_of(mae)] for mae in maes])


def imputer_comparison(
    matrix: Sequence[VariantRow] = (),
    imputers: Sequence[AssessedImputer] = (),
    protocol: Sequence[VariantRow] = (),
    notes: Sequence[str] = (),
) -> ImputerComparison:
    """Return a comparison of imputers and heads on set-a: 1,100 stays, 154 deaths."""
    return ImputerComparison(
        dataset="set-a",
        stays=1100,
        events=154,
        cohort_hash="a" * 64,
        division=Division(count=5),
        imputers=tuple(imputers),
        edges=(0.5, 0.8, 1.0),
        matrix=tuple(matrix),
        protocol=tuple(protocol),
        notes=tuple(notes),
    )
