"""The parts of a model card with scores: folds, subgroups, threshold, recalibration."""

from math import isnan

from imputune.artifacts.model_card import ModelCard
from imputune.evaluation.card_scores import FoldLine, GroupLine, StaysScores
from imputune.evaluation.rows import Spread
from imputune.evaluation.small_groups import GROUP_EVENTS, GROUP_STAYS
from imputune.evaluation.subgroups import Interval
from imputune.protocol.division import Division
from imputune.protocol.outcome_words import OutcomeWords
from imputune.reporting.card_calibration import NOT_KNOWN, number, point_text, points
from imputune.reporting.card_texts import cohort_label, cohort_lines
from imputune.reporting.tables import markdown_table, spread_text

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
TOGETHER = "AUC and slope below differ from these means, because there risks of different fold models are compared."
HIDDEN_TOO = "Counts are also hidden where the hidden group's count could be computed from them."


def small(words: OutcomeWords) -> str:
    """Return which subgroups are too small to be shown."""
    return f"fewer than {GROUP_STAYS} stays, {GROUP_EVENTS} {words.events} or {GROUP_EVENTS} {words.non_events}"


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
        short = "In brackets: 95 % interval. ±: deviation over folds."
        return f"{table}\n\n{short}{f' {TOGETHER}' if card.test else ''}"
    remark = f"{_tested_by(card.division)} Mean: over folds, ± the sample standard deviation."
    if intervals:
        remark += " In brackets: the 95 % bootstrap interval over the fold's test stays."
    if card.test:
        remark += f" {TOGETHER}"
    return f"{table}\n\n{remark}"


def _tested_by(division: Division | None) -> str:
    """Say which model gave a stay's risk."""
    if division is None or division.protocol == "cross_validation":
        return "Every stay is a test stay once, of the fold model that was neither trained nor chosen by it."
    return (
        f"Protocol: {division.label}. {division.sentences} Where test stays are taken together, each stay counts once, "
        "by the first model that tested it. No model was trained or chosen by its test stays."
    )


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


def groups_part(card: ModelCard, *, table: bool) -> str:
    """Return for whom the version does worst; with `table`, also the scores of all subgroups."""
    if card.recalibration is not None:
        where = f"On {cohort_label(card.recalibration.cohort)}, to which the line was fitted:"
        return _groups(card.recalibration.scores, where, card.words, table=table)
    if card.test is None:
        return NOT_KNOWN
    return _groups(card.test, "Over the test stays of all folds together:" if table else "", card.words, table=table)


def threshold_part(card: ModelCard) -> str:
    """Return from which risk on a stay counts as high risk, and what this catches."""
    if card.threshold is None:
        return NOT_KNOWN
    text = f"A stay counts as high risk if its risk is at least {card.threshold:.3f} ({_rule(card.threshold_rule)})."
    scores = card.recalibration.scores if card.recalibration is not None else card.test
    if scores is None:
        return text
    where = f"On {cohort_label(card.recalibration.cohort)}" if card.recalibration is not None else "Among test stays"
    return (
        f"{text} {where}, {scores.sensitivity:.1%} of {card.words.with_it} count as high risk (sensitivity), and "
        f"{scores.specificity:.1%} of {card.words.without_it} do not (specificity)."
    )


def recalibration_part(card: ModelCard, *, with_rules: bool) -> str:
    """Return what a version was recalibrated on, "" for one that was not."""
    found = card.recalibration
    if found is None:
        return ""
    line = found.line
    slope, intercept = (
        f"{name} was {number(found.before[score])} and is {number(found.after[score])}"
        for name, score in (("slope", "calibration_slope"), ("intercept", "calibration_intercept"))
    )
    return (
        f"Version {found.source}, corrected for another cohort: logit(risk) = {number(line.intercept)} + "
        f"{line.slope:.3f} × logit(mean risk of the fold models). The order of the stays is the same. On that cohort, "
        f"to which the line was fitted, the calibration {slope}, the {intercept}.\n\n"
        f"{cohort_lines(found.cohort, {}, with_rules=with_rules)}"
    )


def mean_text(folds: tuple[FoldLine, ...], name: str) -> str:
    """Return a score's mean and deviation over folds, "" unless every fold has it."""
    values = [fold.scores.get(name, float("nan")) for fold in folds]
    return "" if not folds or any(map(isnan, values)) else spread_text(*Spread.of(values))


def _rule(label: str) -> str:
    """Return how the threshold was found, from the rule's label in bundles: youden, or sensitivity and its number."""
    name, _, wanted = label.partition(" ")
    how = "Youden's index" if name == "youden" else f"a sensitivity of at least {wanted}" if wanted else name
    return f"{how} on validation stays"


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
    rows.append(("mean", "", *(mean_text(folds, name) for name in shown)))
    return markdown_table(("fold", "test stays", *shown.values()), rows)


def _score(fold: FoldLine, name: str, with_interval: bool) -> str:
    if isnan(value := fold.scores.get(name, float("nan"))):
        return ""
    if not with_interval or (interval := fold.intervals.get(name)) is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _groups(scores: StaysScores, where: str, words: OutcomeWords, *, table: bool) -> str:
    first, *others = _worst(scores, words)
    parts = [" ".join((where, first, *others) if where else (first[0].upper() + first[1:], *others))]
    if table and len(scores.groups) > 1:
        header = ("group", "stays", words.happened, "AUC", "mean risk", "difference, points")
        parts.append(markdown_table(header, [_group_row(line) for line in scores.groups]))
    if scores.some_left_out:
        parts.append(f"Groups with {small(words)} are left out.{f' {HIDDEN_TOO}' if table else ''}")
    elif table and len(scores.groups) > 1:
        parts.append(f"A group with {small(words)} would be left out; there is none.")
    return "\n\n".join(parts)


def _worst(scores: StaysScores, words: OutcomeWords) -> list[str]:
    """Return the sentences that say for whom the version does worst."""
    ranked, off, every = scores.worst_ranked, scores.furthest_off, scores.all_stays
    if ranked is None or off is None:
        known = "no group is large enough." if scores.some_left_out else "ICU type, sex and age are not known."
        return [f"{known} Nobody can say for whom it is worse."]
    beyond = "it is worse there" if ranked.auc.high < every.auc.value else "this may be chance"
    first = (
        f"discrimination (AUC) is lowest for {_name(ranked)}: {_interval(ranked.auc)}, and {every.auc.value:.3f} for "
        f"all stays ({beyond})."
        if ranked.auc.value < every.auc.value
        else f"discrimination (AUC) is lower for no group shown than for all stays ({_interval(every.auc)})."
    )
    sides = [
        f"too {side} for {', '.join(f'{_name(line)} ({point_text(line.gap.value)})' for line in lines)}"
        for side, lines in _beyond_chance(scores).items()
        if lines
    ]
    if sides:
        return [first, f"Beyond chance, its risks are {'; '.join(sides)}: mean risk minus outcome rate, in points."]
    side = "too high" if off.gap.value > 0 else "too low"
    second = (
        "For no group shown is the mean risk off beyond chance. It is furthest off for "
        f"{_name(off)}: mean risk {off.mean_risk:.1%}, and {off.outcome_rate:.1%} {words.happened}: "
        f"{abs(off.gap.value) * 100:.1f} points {side} (this may be chance)."
    )
    return [first, second]


def _beyond_chance(scores: StaysScores) -> dict[str, list[GroupLine]]:
    """Return the subgroups whose interval of mean risk minus outcome rate is without 0, the furthest off first."""
    lines = sorted(scores.groups[1:], key=lambda line: -abs(line.gap.value))
    return {
        "low": [line for line in lines if line.gap.high < 0],
        "high": [line for line in lines if line.gap.low > 0],
    }


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


def group_name(group: str, level: str) -> str:
    """Return a subgroup's name: age 45 to 64."""
    return f"{group.removesuffix(', years')} {level}"


def _name(line: GroupLine) -> str:
    return group_name(line.group, line.level)


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
