"""From scores by fold to rows of results: one for each fine-tuned variant, one for each imputer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean, stdev
from typing import Literal, NamedTuple, Self, get_args

from imputune.evaluation.imputation import ImputationErrors
from imputune.evaluation.metrics import ReliabilityPoint
from imputune.evaluation.stored import Stored
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.protocol.published import SCHEDULES, quoted
from imputune.protocol.variants import PROTOCOL, Variant
from imputune.settings.names import Head, ImputerName, Input, Mode, RandomPattern, ScheduleName

Score = Literal["validation_auc", "test_auc", "test_auprc", "test_brier", "test_calibration_error"]
SCORES: tuple[Score, ...] = get_args(Score)
LaterScore = Literal["test_calibration_slope", "test_calibration_intercept"]
LATER_SCORES: tuple[LaterScore, ...] = get_args(LaterScore)
"""Scores that folds trained by earlier versions do not have."""
PROTOCOL_LABELS = frozenset(variant.label for variant in PROTOCOL)


class FoldScores(Stored):
    """The final scores of a variant on one fold.

    A calibration score is None if the fold was trained before the score was introduced, or if no line fits best.
    """

    fold: int
    validation_auc: float
    test_auc: float
    test_auprc: float
    test_brier: float
    test_calibration_error: float
    test_calibration_slope: float | None = None
    test_calibration_intercept: float | None = None

    @classmethod
    def of(cls, fold: int, scores: Mapping[str, float]) -> Self:
        """Pick the scores of a fold out of all that were recorded; KeyError if one of SCORES is missing."""
        later = {name: scores[name] for name in LATER_SCORES if not isnan(scores.get(name, nan))}
        return cls(fold=fold, **{name: scores[name] for name in SCORES}, **later)


class VariantRow(Stored):
    """One fine-tuned variant: scores as mean and sample standard deviation over folds, seconds summed over folds.

    num_parameters: of the head alone, as the paper counts; trainable_parameters: all that fine-tuning changes; both
    None for a non-neural head. paper_from: where the paper has its test AUC, which may be an average. source: what the
    row was read from: a tracked run, stage outputs if the run is gone, or a results file if these are gone too.
    calibration: the calibration curve over all test stays; empty if only the run is left. test_calibration_slope: None
    unless every fold has one.
    """

    imputer: ImputerName
    head: Head
    mode: Mode
    input: Input
    schedule: ScheduleName
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
    test_calibration_slope_mean: float | None = None
    test_calibration_slope_std: float | None = None
    paper_test_auc: float | None
    paper_from: str | None
    seconds: float
    run_id: str
    source: str
    folds: tuple[FoldScores, ...]
    calibration: tuple[ReliabilityPoint, ...] = ()

    @property
    def name(self) -> str:
        """The variant's name among the variants of its imputer."""
        return f"{self.head}-{self.mode}-{self.input}-{self.schedule}"

    @property
    def label(self) -> str:
        """The variant's name among all variants."""
        return f"{self.imputer}/{self.name}"

    @property
    def short_name(self) -> str:
        """The variant's name: without the imputer if this is CSAI."""
        return self.name if self.imputer == DEFAULT_IMPUTER else self.label

    @property
    def is_of_protocol(self) -> bool:
        """Whether the variant is one of the paper's protocol."""
        return self.label in PROTOCOL_LABELS

    @property
    def head_and_input(self) -> tuple[Head, Input]:
        """The head and what it reads: a line of the paper's tables."""
        return self.head, self.input

    def by_fold(self, score: Score) -> dict[int, float]:
        """Return a score by the number of the fold."""
        return {each.fold: float(getattr(each, score)) for each in self.folds}


@dataclass(frozen=True, kw_only=True)
class VariantResults:
    """What fine-tuning a variant gave; see `VariantRow` for the fields."""

    num_parameters: int | None
    trainable_parameters: int | None
    seconds: float
    folds: Sequence[FoldScores]
    run_id: str
    source: str
    calibration: Sequence[ReliabilityPoint] = ()


class Spread(NamedTuple):
    """The mean of some values and their sample standard deviation, NaN for a single value, which has none."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return mean and deviation of at least one value."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else nan)


def make_variant_row(dataset: str, variant: Variant, results: VariantResults) -> VariantRow:
    """Aggregate a variant's folds; the paper's figure is added for variants of its protocol.

    dataset: in the paper; see `protocol.published.published_dataset`.
    """
    slopes = [fold.test_calibration_slope for fold in results.folds]
    slope = None if None in slopes else Spread.of([each for each in slopes if each is not None])
    spread = {score: Spread.of([float(getattr(fold, score)) for fold in results.folds]) for score in SCORES}
    paper = None
    if variant.label in PROTOCOL_LABELS:
        paper = quoted(dataset, variant.head, mode=variant.mode, input=variant.input, schedule=variant.schedule)
    paper_test_auc = paper.test_auc if paper else None
    return VariantRow(
        imputer=variant.imputer,
        head=variant.head,
        mode=variant.mode,
        input=variant.input,
        schedule=variant.schedule,
        num_parameters=results.num_parameters,
        trainable_parameters=results.trainable_parameters,
        val_auc_mean=spread["validation_auc"].mean,
        val_auc_std=spread["validation_auc"].deviation,
        test_auc_mean=spread["test_auc"].mean,
        test_auc_std=spread["test_auc"].deviation,
        test_auprc_mean=spread["test_auprc"].mean,
        test_auprc_std=spread["test_auprc"].deviation,
        test_brier_mean=spread["test_brier"].mean,
        test_brier_std=spread["test_brier"].deviation,
        test_calibration_error_mean=spread["test_calibration_error"].mean,
        test_calibration_error_std=spread["test_calibration_error"].deviation,
        test_calibration_slope_mean=slope.mean if slope else None,
        test_calibration_slope_std=slope.deviation if slope else None,
        paper_test_auc=paper_test_auc,
        paper_from=paper.source if paper and paper_test_auc is not None else None,
        seconds=results.seconds,
        run_id=results.run_id,
        source=results.source,
        folds=tuple(results.folds),
        calibration=tuple(results.calibration),
    )


class ImputerRow(Stored):
    """One imputer under one masking pattern on one split: errors, mean and sample standard deviation over folds.

    The errors by variable are means over the folds that have held-out cells of the variable.
    """

    imputer: ImputerName
    pattern: RandomPattern
    split: Literal["validation", "test"]
    mae_mean: float
    mae_std: float
    mre_mean: float
    mre_std: float
    mae_by_variable: dict[str, float]
    mre_by_variable: dict[str, float]


def imputer_rows(folds: Sequence[Sequence[ImputationErrors]]) -> list[ImputerRow]:
    """Aggregate the imputation errors over folds, a row for each imputer, pattern and split in the order they come."""
    groups: dict[tuple[ImputerName, RandomPattern, str], list[ImputationErrors]] = {}
    for fold in folds:
        for errors in fold:
            groups.setdefault((errors.imputer, errors.pattern, errors.split), []).append(errors)
    return [_imputer_row(same) for same in groups.values()]


def _imputer_row(folds: Sequence[ImputationErrors]) -> ImputerRow:
    mae, mre = Spread.of([each.overall.mae for each in folds]), Spread.of([each.overall.mre for each in folds])
    variables = dict.fromkeys(name for each in folds for name in each.by_variable)
    scored = {name: [each.by_variable[name] for each in folds if name in each.by_variable] for name in variables}
    return ImputerRow(
        imputer=folds[0].imputer,
        pattern=folds[0].pattern,
        split=folds[0].split,
        mae_mean=mae.mean,
        mae_std=mae.deviation,
        mre_mean=mre.mean,
        mre_std=mre.deviation,
        mae_by_variable={name: fmean(each.mae for each in errors) for name, errors in scored.items()},
        mre_by_variable={name: fmean(each.mre for each in errors) for name, errors in scored.items()},
    )


def schedule_average(rows: Sequence[VariantRow], score: Score) -> Spread | None:
    """Return a score averaged over the three schedules fold by fold, its mean and deviation over folds.

    `rows` belong to one head, mode and input. None while a schedule is missing.
    """
    if {row.schedule for row in rows} != set(SCHEDULES):
        return None
    by_fold = [row.by_fold(score) for row in rows]
    return Spread.of([sum(each[fold] for each in by_fold) / len(by_fold) for fold in by_fold[0]])
