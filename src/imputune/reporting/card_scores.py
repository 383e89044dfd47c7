"""The parts of a model card with scores: folds, calibration, subgroups, threshold, recalibration."""

from math import isnan

from imputune.artifacts.model_card import ModelCard
from imputune.evaluation.card_scores import FoldLine, GroupLine, StaysScores
from imputune.evaluation.rows import Spread
from imputune.evaluation.small_groups import GROUP_EVENTS, GROUP_STAYS
from imputune.evaluation.subgroups import Interval
from imputune.reporting.card_texts import cohort_lines
from imputune.reporting.tables import difference_text, markdown_table, spread_text

SCORES = {
    "test_auc": "AUC",
    "test_auprc": "AUPRC",
    "test_brier": "Brier score",
    "test_calibration_error": "calibration error",
    "test_calibration_slope": "calibration slope",
}
ERRORS = {
    "test_mae_uniform": "MAE, uniform",
    "test_mre_uniform": "MRE, uniform",
    "test_mae_non_uniform": "MAE, non-uniform",
    "test_mre_non_uniform": "MRE, non-uniform",
}
NOT_KNOWN = "Not recorded for this version."
SMALL = f"fewer than {GROUP_STAYS} stays, {GROUP_EVENTS} deaths or {GROUP_EVENTS} survivors"
HIDDEN_TOO = "Counts are also hidden where the hidden group's count could be computed from them."


def folds_part(card: ModelCard, *, each_fold: bool, remarks: bool) -> str:
    """Return the scores of every fold with their intervals, and their mean and deviation over folds.

    remarks: whether it says what the numbers are, beyond a few words.
    """
    if not card.folds:
        return NOT_KNOWN
    intervals = any(fold.intervals for fold in card.folds)
    with_interval = tuple(SCORES) if remarks else ("test_auc",)
    table = _fold_table(card.folds, SCORES, each_fold=each_fold, with_interval=with_interval)
    if not remarks:
        return f"{table}\n\nIn brackets: 95 % bootstrap interval over test stays. ±: deviation over folds."
    remark = (
        "Every stay is a test stay once, of the fold model that was neither trained nor chosen by it. Mean: over "
        "folds, ± the sample standard deviation."
    )
    if intervals:
        remark += " In brackets: the 95 % bootstrap interval over the fold's test stays."
    return f"{table}\n\n{remark}"


def errors_part(card: ModelCard, *, each_fold: bool, remarks: bool) -> str:
    """Return the errors of an imputer on held-out cells of test stays, by fold; see `folds_part`."""
    if not card.folds:
        return NOT_KNOWN
    table = _fold_table(card.folds, ERRORS, each_fold=each_fold)
    if not remarks:
        return f"{table}\n\nOn held-out cells of test stays, in training standard deviations. ±: deviation over folds."
    remark = (
        "On observed cells of test stays that were held out, uniformly or more often where a variable is rare. MAE: "
        "mean absolute error in training standard deviations. MRE: the sum of absolute errors over the sum of absolute "
        "true values. Mean: over folds, ± the sample standard deviation."
    )
    return f"{table}\n\n{remark}"


def calibration_part(card: ModelCard, *, remarks: bool) -> str:
    """Return how well risks fit the outcome rate, over the test stays of all folds."""
    if card.recalibration is not None:
        fitted = f"On {card.recalibration.cohort.name}, to which the line was fitted:"
        return (
            f"{fitted} {_calibration(card.recalibration.scores, remarks=remarks)} "
            "On the test stays of the training cohort, the calibration of the corrected risks is not recorded."
        )
    if card.test is None:
        return NOT_KNOWN
    return f"Over the test stays of all folds together: {_calibration(card.test, remarks=remarks)}"


def groups_part(card: ModelCard, *, table: bool) -> str:
    """Return the scores of subgroups, and for whom the version does worst."""
    if card.recalibration is not None:
        where = f"On {card.recalibration.cohort.name}, to which the line was fitted:"
        return _groups(card.recalibration.scores, where, table=table)
    if card.test is None:
        return NOT_KNOWN
    return _groups(card.test, "Over the test stays of all folds together:", table=table)


def threshold_part(card: ModelCard) -> str:
    """Return from which risk on a stay counts as high risk, and what this catches."""
    if card.threshold is None:
        return NOT_KNOWN
    rule = f"rule: {card.threshold_rule}, on validation stays"
    text = f"A stay is of high risk from a risk of {card.threshold:.3f} on ({rule})."
    scores = card.recalibration.scores if card.recalibration is not None else card.test
    if scores is None:
        return text
    where = f"On {card.recalibration.cohort.name}" if card.recalibration is not None else "Among test stays"
    return (
        f"{text} {where}, {scores.sensitivity:.1%} of the stays that died are of high risk (sensitivity), and "
        f"{scores.specificity:.1%} of the survivors are not (specificity)."
    )


def recalibration_part(card: ModelCard, *, with_rules: bool) -> str:
    """Return what a version was recalibrated on, "" for one that was not."""
    found = card.recalibration
    if found is None:
        return ""
    line = found.line
    slope, intercept = (
        f"{name} was {_number(found.before[score])} and is {_number(found.after[score])}"
        for name, score in (("slope", "calibration_slope"), ("intercept", "calibration_intercept"))
    )
    return (
        f"Version {found.source}, corrected for another cohort: logit(risk) = {_number(line.intercept)} + "
        f"{line.slope:.3f} × logit(mean risk of the fold models). The order of the stays is the same. On that cohort, "
        f"to which the line was fitted, the calibration {slope}, the {intercept}.\n\n"
        f"{cohort_lines(found.cohort, {}, with_rules=with_rules)}"
    )


def _fold_table(
    folds: tuple[FoldLine, ...], columns: dict[str, str], *, each_fold: bool, with_interval: tuple[str, ...] = ()
) -> str:
    shown = {name: words for name, words in columns.items() if any(name in fold.scores for fold in folds)}
    rows: list[tuple[str, ...]] = []
    if each_fold:
        rows += [
            (
                str(fold.fold),
                f"{fold.stays:,}" if fold.stays else "",
                *(_score(fold, name, name in with_interval) for name in shown),
            )
            for fold in folds
        ]
    rows.append(("mean", "", *(_mean(folds, name) for name in shown)))
    return markdown_table(("fold", "test stays", *shown.values()), rows)


def _score(fold: FoldLine, name: str, with_interval: bool) -> str:
    if isnan(value := fold.scores.get(name, float("nan"))):
        return ""
    if not with_interval or (interval := fold.intervals.get(name)) is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _mean(folds: tuple[FoldLine, ...], name: str) -> str:
    values = [fold.scores.get(name, float("nan")) for fold in folds]
    return "" if any(map(isnan, values)) else spread_text(*Spread.of(values))


def _calibration(scores: StaysScores, *, remarks: bool) -> str:
    every, found = scores.all_stays, scores.calibration
    slope = " (1 is best; below 1, risks are too extreme)" if remarks else ""
    intercept = " (0 is best; below 0, risks are too high)" if remarks else ""
    error = " (the mean difference over ten groups by risk)" if remarks else ""
    return (
        f"the mean risk is {every.mean_risk:.1%}, and {every.outcome_rate:.1%} died (difference "
        f"in points {points(every.gap)}). Calibration slope {_number(found['slope'])}{slope}, intercept "
        f"{_number(found['intercept'])}{intercept}, error {found['error']:.3f}{error}."
    )


def _number(value: float) -> str:
    """Return a number with three decimal places, a real minus, and words where no number fits best."""
    return "not defined" if isnan(value) else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def _groups(scores: StaysScores, where: str, *, table: bool) -> str:
    parts = [" ".join((where, *_worst(scores)))]
    if table and len(scores.groups) > 1:
        header = ("group", "stays", "died", "AUC", "mean risk", "difference, points")
        parts.append(markdown_table(header, [_group_row(line) for line in scores.groups]))
    if scores.some_left_out:
        parts.append(f"Groups with {SMALL} are left out. {HIDDEN_TOO}")
    elif len(scores.groups) > 1:
        parts.append(f"A group with {SMALL} would be left out; there is none.")
    return "\n\n".join(parts)


def _worst(scores: StaysScores) -> list[str]:
    """Return the sentences that say for whom the version does worst."""
    ranked, off, every = scores.worst_ranked, scores.furthest_off, scores.all_stays
    if ranked is None or off is None:
        known = "no group is large enough." if scores.some_left_out else "ICU type, sex and age are not known."
        return [f"{known} Nobody can say for whom it is worse."]
    beyond = "it is worse there" if ranked.auc.high < every.auc.value else "this may be chance"
    first = (
        f"it orders stays worst for {_name(ranked)}: AUC {_interval(ranked.auc)}, and {every.auc.value:.3f} for all "
        f"stays ({beyond})."
        if ranked.auc.value < every.auc.value
        else f"it orders the stays of no group shown worse than all stays (AUC {_interval(every.auc)})."
    )
    low, high = off.gap.low, off.gap.high
    chance = "this may be chance" if low <= 0 <= high else "beyond chance"
    side = "too high" if off.gap.value > 0 else "too low"
    second = (
        f"Its risks are furthest off for {_name(off)}: mean risk {off.mean_risk:.1%}, and {off.outcome_rate:.1%} died: "
        f"{abs(off.gap.value) * 100:.1f} points {side} ({chance})."
    )
    return [first, second]


def _group_row(line: GroupLine) -> tuple[str, ...]:
    stays = "" if line.stays is None else f"{line.stays:,}"
    return (
        "all stays" if line.group == "all" else _name(line),
        stays,
        f"{line.outcome_rate:.1%}",
        _interval(line.auc),
        f"{line.mean_risk:.1%}",
        points(line.gap),
    )


def points(gap: Interval) -> str:
    """Return a difference of two rates in percentage points, with its interval."""
    value, low, high = (difference_text(round(100 * each, 1) + 0.0, 1) for each in (gap.value, gap.low, gap.high))
    return f"{value} ({low} to {high})"


def group_name(group: str, level: str) -> str:
    """Return a subgroup's name: age 45 to 64."""
    return f"{group.removesuffix(', years')} {level}"


def _name(line: GroupLine) -> str:
    return group_name(line.group, line.level)


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
