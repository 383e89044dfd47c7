import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from imputune.evaluation.metrics import youden_threshold
from imputune.evaluation.subgroups import score_cohort

STAYS = 600


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Deaths, risks that foretell them somewhat, and static; nobody's sex is known."""
    generator = np.random.default_rng(0)
    risk_N = generator.beta(2, 5, STAYS)
    outcome_N = (generator.random(STAYS) < risk_N).astype(np.int8)
    ages = np.where(np.arange(STAYS) % 10 == 0, np.nan, np.arange(STAYS) % 50 + 40.0)
    icus = np.where(np.arange(STAYS) < 15, 1.0, 3.0)
    return outcome_N, risk_N, pd.DataFrame({"age_years": ages, "icu_type": icus, "gender": np.nan})


def test_all_stays_first_with_the_fields_scores(cohort) -> None:
    """The first row's numbers are scikit-learn's, inside their intervals; calibration groups share the stays."""
    outcome_N, risk_N, static = cohort
    every, *_ = score_cohort(outcome_N, risk_N, static, 0.3, 200, 0)
    assert (every.group, every.stays, every.deaths) == ("all", STAYS, outcome_N.sum())
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
    assert all(point.died.low <= point.died.value <= point.died.high for point in every.calibration)


def test_groups_cover_what_is_known(cohort) -> None:
    """Ages and ICU types split_cohort the stays, the unknown apart; a descriptor nobody has makes no group."""
    groups = score_cohort(*cohort, 0.3, 20, 0)[1:]
    counts = {name: sum(each.stays for each in groups if each.group == name) for name in ("age, years", "ICU type")}
    assert counts == {"age, years": STAYS, "ICU type": STAYS}
    assert {each.group for each in groups} == set(counts)
    [unknown] = [each for each in groups if each.level == "unknown"]
    assert (unknown.group, unknown.stays) == ("age, years", STAYS // 10)


def test_a_small_group_has_no_scores(cohort) -> None:
    """Fewer than ten deaths or survivors say nothing, and no number is given."""
    [small] = [each for each in score_cohort(*cohort, 0.3, 20, 0) if each.level == "coronary care"]
    assert small.stays == 15
    assert (small.scores, small.sensitivity, small.calibration) == ({}, None, ())


def test_youden_threshold_by_hand() -> None:
    """At 0.4 two of two deaths and one of three survivors are called high: 1 + 2/3 - 1, the best there is."""
    assert youden_threshold(np.array([0, 1, 0, 1, 0]), np.array([0.1, 0.4, 0.5, 0.8, 0.2])) == pytest.approx(0.4)
    assert youden_threshold(np.array([0, 1]), np.array([0.9, 0.1])) <= 1
