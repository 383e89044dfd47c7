import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from imputune.evaluation.challenge2012 import event_1, event_2
from imputune.evaluation.metrics import reliability, risk_scores
from imputune.evaluation.subgroups import GroupScores, score_cohort

STAYS = 600


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """600 outcomes, risks that predict them in part, and static variables; nobody's sex is known."""
    generator = np.random.default_rng(0)
    risk_N = generator.beta(2, 5, STAYS)
    outcome_N = (generator.random(STAYS) < risk_N).astype(np.int8)
    ages = np.where(np.arange(STAYS) % 10 == 0, np.nan, np.arange(STAYS) % 50 + 40.0)
    icus = np.where(np.arange(STAYS) < 15, 1.0, 3.0)
    return outcome_N, risk_N, pd.DataFrame({"age_years": ages, "icu_type": icus, "gender": np.nan})


def test_scores_are_scikit_learns(cohort) -> None:
    """The numbers are scikit-learn's and inside their intervals; each stay is in one group of the calibration."""
    outcome_N, risk_N, static = cohort
    [every] = score_cohort(outcome_N, risk_N, static * np.nan, threshold=0.3, resamples=60, seed=0)
    assert (every.group, every.stays, every.events) == ("all", STAYS, outcome_N.sum())
    expected = {
        "auc": roc_auc_score(outcome_N, risk_N),
        "auprc": average_precision_score(outcome_N, risk_N),
        "brier": brier_score_loss(outcome_N, risk_N),
    }
    for name, value in expected.items():
        assert every.scores[name].value == pytest.approx(value)
        assert every.scores[name].low < value < every.scores[name].high
    assert every.sensitivity == pytest.approx((risk_N[outcome_N == 1] >= 0.3).mean())
    assert every.specificity == pytest.approx((risk_N[outcome_N == 0] < 0.3).mean())
    assert sum(point.stays for point in every.calibration) == STAYS
    assert all(
        point.outcome_rate.low <= point.outcome_rate.value <= point.outcome_rate.high for point in every.calibration
    )


def test_calibration_and_the_challenges_scores_have_intervals(cohort) -> None:
    """Each is the number of its own function, in its interval, which no score's own bias pushes away from it."""
    outcome_N, risk_N, static = cohort
    [every] = score_cohort(outcome_N, risk_N, static * np.nan, threshold=0.3, resamples=60, seed=0)
    scores = risk_scores(outcome_N, risk_N)
    expected = {name: scores[name] for name in ("auc", "auprc", "brier")}
    expected |= {name: score for name, score in scores.items() if name.startswith("calibration_")}
    expected["challenge_event_1"] = event_1(outcome_N, risk_N, 0.3)
    expected["challenge_event_2"] = event_2(reliability(outcome_N, risk_N))
    assert {name: each.value for name, each in every.scores.items()} == pytest.approx(expected)
    assert all(each.low <= each.value <= each.high for each in every.scores.values())
    assert every.scores["calibration_slope"].low < 1 < every.scores["calibration_slope"].high  # true by construction


def test_results_of_earlier_versions_are_read() -> None:
    """Scores of a group without those that were added later."""
    interval = {"value": 0.8, "low": 0.7, "high": 0.9}
    content = {"group": "all", "level": "all", "stays": 100, "deaths": 20, "scores": {"auc": interval}}
    read = GroupScores(**content, sensitivity=0.8, specificity=0.7, calibration=())
    assert list(read.scores) == ["auc"]


def test_groups_cover_what_is_known(cohort) -> None:
    """Ages and ICU types divide the stays, unknown ages apart; a variable that is known of nobody gives no groups."""
    every, *groups = score_cohort(*cohort, threshold=0.3, resamples=2, seed=0)
    assert (every.group, every.level, every.stays) == ("all", "all", STAYS)
    counts = {name: sum(each.stays for each in groups if each.group == name) for name in ("age, years", "ICU type")}
    assert counts == {"age, years": STAYS, "ICU type": STAYS}
    assert {each.group for each in groups} == set(counts)
    [unknown] = [each for each in groups if each.level == "unknown"]
    assert (unknown.group, unknown.stays) == ("age, years", STAYS // 10)


def test_a_small_group_has_no_scores(cohort) -> None:
    """With fewer than ten deaths or survivors no score is given."""
    [small] = [
        each for each in score_cohort(*cohort, threshold=0.3, resamples=2, seed=0) if each.level == "coronary care"
    ]
    assert small.stays == 15
    assert (small.scores, small.sensitivity, small.calibration) == ({}, None, ())


def test_levels_and_their_bounds(cohort) -> None:
    """Ages from 40 to 89 fall into 40 to 44, 45 to 64, 65 to 79, and 80 and over."""
    groups = score_cohort(*cohort, threshold=0.3, resamples=2, seed=0)
    ages = cohort[2]["age_years"]
    expected = {
        "0 to 44": (ages < 45).sum(),
        "45 to 64": ages.between(45, 64).sum(),
        "65 to 79": ages.between(65, 79).sum(),
        "80 and over": (ages >= 80).sum(),
        "unknown": ages.isna().sum(),
    }
    assert {each.level: each.stays for each in groups if each.group == "age, years"} == expected
    assert [each.level for each in groups if each.group == "ICU type"] == ["coronary care", "medical"]


def test_the_interval_of_a_calibration_point_is_binomial() -> None:
    """Of 200 stays of whom 30 % died, it is about 0.3 ± 1.96 * 0.0324; without deaths it is 0 to 0."""
    outcome_N = np.concatenate([np.zeros(1000, dtype=int), np.arange(1000) % 10 < 3])
    static = pd.DataFrame({name: np.full(2000, np.nan) for name in ("age_years", "icu_type", "gender")})
    risk_N = np.repeat([0.1, 0.3], 1000)
    [every] = score_cohort(outcome_N, risk_N, static, threshold=0.2, resamples=150, seed=0)
    first, last = every.calibration[0], every.calibration[-1]
    assert (first.risk, first.stays) == (pytest.approx(0.1), 200)
    assert (first.outcome_rate.value, first.outcome_rate.low, first.outcome_rate.high) == (0, 0, 0)
    assert (last.risk, last.stays, last.outcome_rate.value) == (pytest.approx(0.3), 200, 0.3)
    margin = 1.96 * (0.3 * 0.7 / 200) ** 0.5
    assert last.outcome_rate.low == pytest.approx(0.3 - margin, abs=0.02)
    assert last.outcome_rate.high == pytest.approx(0.3 + margin, abs=0.02)
    assert (every.sensitivity, every.specificity) == (1.0, pytest.approx(1000 / 1700))
