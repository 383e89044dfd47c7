import numpy as np
import pytest

from imputune.evaluation.card_scores import GroupLine, StaysScores
from imputune.evaluation.subgroups import Interval
from imputune.protocol.outcome_words import DEATH
from imputune.reporting.card_calibration import verdict

REMEDY = " `imputune recalibrate` can correct risks."
RIGHT, LOW, HIGH = (0.001, -0.01, 0.012), (-0.03, -0.04, -0.02), (0.03, 0.02, 0.04)
"""Mean risk minus outcome rate, with its interval."""


def scores_of(slope: float, gap: tuple[float, float, float]) -> StaysScores:
    """Return scores of 1,000 stays without subgroups."""
    value, low, high = gap
    every = GroupLine(
        group="all",
        level="all",
        stays=1000,
        events=150,
        mean_risk=0.15 + value,
        outcome_rate=0.15,
        auc=Interval(value=0.85, low=0.8, high=0.9),
        gap=Interval(value=value, low=low, high=high),
    )
    return StaysScores(
        groups=(every,),
        some_left_out=False,
        calibration={"slope": slope, "intercept": 0.1, "error": 0.02},
        sensitivity=0.8,
        specificity=0.8,
    )


@pytest.mark.parametrize(
    ("slope", "gap", "words"),
    [
        (1.05, RIGHT, "Well calibrated (slope 1.05; 1 is best)."),
        (0.796, RIGHT, "Well calibrated (slope 0.80; 1 is best)."),
        (1.204, RIGHT, "Well calibrated (slope 1.20; 1 is best)."),
        (
            2.41,
            RIGHT,
            "Poorly calibrated: its risks are too moderate (slope 2.41; 1 is best). Among stays of the highest risk "
            f"more die than it says.{REMEDY}",
        ),
        (
            0.79,
            RIGHT,
            "Poorly calibrated: its risks are too extreme (slope 0.79; 1 is best). Among stays of the highest risk "
            f"fewer die than it says.{REMEDY}",
        ),
        (
            1.0,
            HIGH,
            "Not well calibrated: its risks are too high on average (mean risk minus outcome rate: +3.0 (+2.0 to +4.0) "
            f"points). The slope is good (1.00; 1 is best).{REMEDY}",
        ),
        (
            2.41,
            LOW,
            "Poorly calibrated: its risks are too moderate (slope 2.41; 1 is best), and too low on average (mean risk "
            "minus outcome rate: −3.0 (−4.0 to −2.0) points). Among stays of the highest risk more die than it says."
            f"{REMEDY}",
        ),
        (
            2.41,
            HIGH,
            "Poorly calibrated: its risks are too moderate (slope 2.41; 1 is best), and too high on average (mean risk "
            f"minus outcome rate: +3.0 (+2.0 to +4.0) points).{REMEDY}",
        ),
        (
            -0.1,
            RIGHT,
            "Poorly calibrated: where its risks are higher, no more stays die (slope −0.10; 1 is best).",
        ),
        (np.nan, RIGHT, "Its risks fit on average. The calibration slope is not defined."),
        (
            np.nan,
            LOW,
            "Not well calibrated: its risks are too low on average (mean risk minus outcome rate: −3.0 (−4.0 to −2.0) "
            "points). The calibration slope is not defined.",
        ),
    ],
)
def test_a_verdict_tells_what_is_wrong(slope: float, gap: tuple[float, float, float], words: str) -> None:
    """From the slope's margin, rounded as it is shown, and from the interval of the mean; with a remedy."""
    assert verdict(scores_of(slope, gap), DEATH) == words
