"""The part of a model card on calibration: a verdict in words, then the numbers."""

from math import isnan

from imputune.artifacts.model_card import ModelCard
from imputune.evaluation.card_scores import StaysScores
from imputune.evaluation.subgroups import Interval
from imputune.protocol.outcome_words import OutcomeWords
from imputune.reporting.card_texts import cohort_label
from imputune.reporting.tables import difference_text

LOWEST_SLOPE, HIGHEST_SLOPE = 0.8, 1.2
"""Between these slopes, rounded as they are shown, the verdict is that risks are neither too extreme nor too moderate.

A card has no interval of the slope. With a few hundred stays chance alone moves it by 0.2.
"""
NOT_KNOWN = "Not recorded for this version."


def calibration_part(card: ModelCard, *, remarks: bool) -> str:
    """Return how well risks fit the outcome rate, over the test stays of all folds.

    remarks: whether it says what each number means.
    """
    if card.recalibration is not None:
        name, scores = cohort_label(card.recalibration.cohort), card.recalibration.scores
        return (
            f"The line was fitted to the stays of {name}. So these scores cannot judge it; `imputune evaluate` does, "
            f"on other stays. On {name}, the {_numbers(scores, card.words, remarks=remarks)} On the test stays of the "
            "training cohort, the calibration of the corrected risks is not recorded."
        )
    if card.test is None:
        return NOT_KNOWN
    where = "Over the test stays of all folds together, the" if remarks else "The"
    return f"{verdict(card.test, card.words)} {where} {_numbers(card.test, card.words, remarks=remarks)}"


def verdict(scores: StaysScores, words: OutcomeWords) -> str:
    """Return in words whether risks are well calibrated, and if not, what is wrong with them.

    Risks are off on average if the interval of mean risk minus outcome rate is without 0. They are too extreme below
    LOWEST_SLOPE, too moderate above HIGHEST_SLOPE.
    """
    gap, slope = scores.all_stays.gap, round(scores.calibration["slope"], 2)
    side = "high" if gap.low > 0 else "low" if gap.high < 0 else ""
    average = f"too {side} on average (mean risk minus outcome rate: {points(gap)} points)" if side else ""
    best = f"{number(slope, 2)}; 1 is best"
    shown = f"slope {best}"
    remedy = "`imputune recalibrate` can correct risks."
    if slope <= 0:
        also = f" They are {average}." if average else ""
        return f"Poorly calibrated: where its risks are higher, no more stays {words.happen} ({shown}).{also}"
    if LOWEST_SLOPE <= slope <= HIGHEST_SLOPE:
        if not average:
            return f"Well calibrated ({shown})."
        return f"Not well calibrated: its risks are {average}. The slope is good ({best}). {remedy}"
    if isnan(slope):
        known = f"Not well calibrated: its risks are {average}." if average else "Its risks fit on average."
        return f"{known} The calibration slope is not defined."
    spread, more = ("moderate", "more") if slope > HIGHEST_SLOPE else ("extreme", "fewer")
    parts = [f"Poorly calibrated: its risks are too {spread} ({shown}){f', and {average}' if average else ''}."]
    if side != {"more": "high", "fewer": "low"}[more]:  # else the average works against it there
        parts.append(f"Among stays of the highest risk {more} {words.happen} than it says.")
    return " ".join((*parts, remedy))


def points(gap: Interval) -> str:
    """Return a difference of two rates in percentage points, with its interval."""
    value, low, high = (point_text(each) for each in (gap.value, gap.low, gap.high))
    return f"{value} ({low} to {high})"


def point_text(difference: float) -> str:
    """Return a difference of two rates in percentage points, with its sign."""
    return difference_text(round(100 * difference, 1) + 0.0, 1)


def number(value: float, places: int = 3) -> str:
    """Return a number with a real minus, and words where no number fits best."""
    return "not defined" if isnan(value) else f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


def _numbers(scores: StaysScores, words: OutcomeWords, *, remarks: bool) -> str:
    every, found = scores.all_stays, scores.calibration
    slope = " (1 is best; below 1, risks are too extreme)" if remarks else ""
    intercept = " (0 is best; below 0, risks are too high)" if remarks else ""
    error = " (the mean difference over ten groups by risk)" if remarks else ""
    return (
        f"mean risk is {every.mean_risk:.1%}, and {every.outcome_rate:.1%} {words.happened}: {points(every.gap)} "
        f"points. Slope {number(found['slope'])}{slope}, intercept {number(found['intercept'])}{intercept}, error "
        f"{found['error']:.3f}{error}."
    )
