"""Imputers alone: the assessment of each one, summarised over folds."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, Self, get_args

from imputune.evaluation.assessment import AssessedFold, HeldOutScores
from imputune.evaluation.imputation import CellErrors
from imputune.evaluation.rows import Spread
from imputune.evaluation.stored import Stored
from imputune.protocol.imputers import imputer_kind
from imputune.settings.imputer_sections import Ranking
from imputune.settings.names import ImputerName, MaskingPattern

ROUNDING = 1e-4  # training standard deviations; rounding alone can make this difference between batches
Measure = Literal["mae", "rmse", "mre", "wasserstein", "correlation_error"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
GROUP_MEASURES: tuple[Measure, ...] = ("mae", "rmse", "mre")
VARIABLE_MEASURES: tuple[Measure, ...] = (*GROUP_MEASURES, "wasserstein")


class PatternScores(Stored):
    """An imputer under one masking pattern at one rate: measures as mean and sample standard deviation over folds.

    mean and deviation hold MEASURES, mre and correlation_error without a unit, the others in training standard
    deviations; a measure that no fold has is left out. by_variable and by_missing_share hold means over the folds that
    have such cells, by the variable's name and by the group's number.
    """

    pattern: MaskingPattern
    rate: float
    mean: dict[Measure, float]
    deviation: dict[Measure, float]
    by_variable: dict[str, dict[Measure, float]]
    by_missing_share: dict[str, dict[Measure, float]]


class AssessedImputer(Stored):
    """One imputer: its errors, its time, and whether stays of a batch influence each other.

    epochs: the most that a fold trained. pretrain_seconds: all folds together; 0 if nothing is learned.
    seconds_per_1000_stays: to impute them on one core, mean over folds. batch_difference: the largest difference
    between a stay imputed alone and the same stay in a batch, in training standard deviations. ranking: the masking by
    which imputers are ranked; mae_by_fold: the errors under it, None if it was not assessed.
    """

    imputer: ImputerName
    label: str
    epochs: int
    pretrain_seconds: float
    seconds_per_1000_stays: float
    batch_difference: float
    mixes_stays: bool
    rows: tuple[PatternScores, ...]
    ranking: Ranking
    mae_by_fold: tuple[float, ...] | None
    run_id: str

    @property
    def ranked(self) -> PatternScores | None:
        """The scores by which imputers are ranked, None if that masking was not assessed."""
        return self.row(self.ranking.pattern, self.ranking.rate)

    def row(self, pattern: MaskingPattern, rate: float) -> PatternScores | None:
        """Return the scores of a masking pattern at a rate, None if they were not assessed."""
        return next((row for row in self.rows if (row.pattern, row.rate) == (pattern, rate)), None)


class Assessment(Stored):
    """What the folds of an assessment come to.

    seconds_per_1000_stays and batch_difference as in `AssessedImputer`. rows: the scores of each masking pattern and
    rate; mae_by_fold: the MAE of each fold, for each of the rows.
    """

    seconds_per_1000_stays: float
    batch_difference: float
    rows: tuple[PatternScores, ...]
    mae_by_fold: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, folds: Sequence[AssessedFold]) -> Self:
        """Summarise the folds of one imputer."""
        return cls(
            seconds_per_1000_stays=fmean(fold.seconds for fold in folds),
            batch_difference=max(fold.batch_difference for fold in folds),
            rows=pattern_scores([fold.scores for fold in folds]),
            mae_by_fold=tuple(zip(*([scores.mae for scores in fold.scores] for fold in folds), strict=True)),
        )


def summarise_imputer(
    *,
    imputer: ImputerName,
    ranking: Ranking,
    assessment: Assessment,
    pretraining: Sequence[tuple[float, int]],
    run_id: str,
) -> AssessedImputer:
    """Summarise an imputer; `pretraining` holds seconds and epochs of each fold that learned."""
    ranked = [
        errors
        for row, errors in zip(assessment.rows, assessment.mae_by_fold, strict=True)
        if (row.pattern, row.rate) == (ranking.pattern, ranking.rate)
    ]
    return AssessedImputer(
        imputer=imputer,
        label=imputer_kind(imputer).label,
        epochs=max((epochs for _, epochs in pretraining), default=0),
        pretrain_seconds=sum(seconds for seconds, _ in pretraining),
        seconds_per_1000_stays=assessment.seconds_per_1000_stays,
        batch_difference=assessment.batch_difference,
        mixes_stays=assessment.batch_difference > ROUNDING,
        rows=assessment.rows,
        ranking=ranking,
        mae_by_fold=ranked[0] if ranked else None,
        run_id=run_id,
    )


def pattern_scores(folds: Sequence[Sequence[HeldOutScores]]) -> tuple[PatternScores, ...]:
    """Aggregate the scores of each masking pattern and rate over the folds, in their order."""
    return tuple(_pattern_scores(same) for same in zip(*folds, strict=True))


def _pattern_scores(folds: Sequence[HeldOutScores]) -> PatternScores:
    values = {measure: [getattr(each, measure) for each in folds] for measure in MEASURES}
    defined = {measure: [each for each in values[measure] if each is not None] for measure in MEASURES}
    spread = {measure: Spread.of(numbers) for measure, numbers in defined.items() if numbers}
    return PatternScores(
        pattern=folds[0].pattern,
        rate=folds[0].rate,
        mean={measure: each.mean for measure, each in spread.items()},
        deviation={measure: each.deviation for measure, each in spread.items()},
        by_variable=_means([each.by_variable for each in folds], VARIABLE_MEASURES),
        by_missing_share=_means([each.by_missing_share for each in folds], GROUP_MEASURES),
    )


def _means(folds: Sequence[Mapping[str, CellErrors]], measures: Sequence[Measure]) -> dict[str, dict[Measure, float]]:
    """Return the measures of each variable or group as means over the folds that have it."""
    by_name: dict[str, list[CellErrors]] = {}
    for fold in folds:
        for name, errors in fold.items():
            by_name.setdefault(name, []).append(errors)
    return {
        name: {measure: fmean(float(getattr(each, measure)) for each in same) for measure in measures}
        for name, same in by_name.items()
    }
