import numpy as np
import pytest
from scipy import stats

from imputune.evaluation.significance import corrected_t_test
from imputune.evaluation.verdicts import judge

MORE = "more parameters do not help (unfrozen)"


def test_corrected_t_test_by_hand() -> None:
    """Differences 1, 2, 3, 4, 5 have mean 3 and variance 2.5; with test to train 1/3, t = 3 / sqrt(8/15 * 2.5)."""
    p_value = corrected_t_test([1, 2, 3, 4, 5], 1 / 3)
    assert p_value == pytest.approx(2 * stats.t.sf(3 / (8 / 15 * 2.5) ** 0.5, 4))
    assert corrected_t_test([-1, -2, -3, -4, -5], 1 / 3) == pytest.approx(p_value)


def test_without_shared_training_stays_it_is_the_paired_t_test() -> None:
    """A ratio of 0 gives scipy's own p-value; the correction makes it larger."""
    differences = np.random.default_rng(0).normal(0.3, 1, 5)
    plain = stats.ttest_1samp(differences, 0).pvalue
    assert corrected_t_test(differences.tolist(), 0) == pytest.approx(plain)
    assert corrected_t_test(differences.tolist(), 1 / 3) > plain


def test_differences_without_spread() -> None:
    """The same difference in every fold is certain, none at all is no evidence, and one fold says nothing."""
    assert corrected_t_test([0.25, 0.25, 0.25], 1 / 3) == 0
    assert corrected_t_test([0.0, 0.0], 1 / 3) == 1
    with pytest.raises(ValueError, match="two folds at least, got 1"):
        corrected_t_test([0.1], 1 / 3)


def test_verdicts_by_hand(row_of) -> None:
    """Each claim compares what it says, over the schedules that both sides have, fold by fold."""
    rows = [
        row_of("mlp2-frozen-hidden-plateau", [0.80, 0.81, 0.82]),
        row_of("mlp2-frozen-hidden-cyclic", [0.10, 0.10, 0.10]),  # has no counterpart anywhere
        row_of("gru-frozen-raw-plateau", [0.84, 0.82, 0.83]),
        row_of("mlp2-unfrozen-hidden-plateau", [0.90, 0.91, 0.92]),
        row_of("gru-unfrozen-raw-plateau", [0.85, 0.87, 0.88]),
        row_of("xgboost-frozen-hidden-none", [0.99, 0.99, 0.99]),
    ]
    found = {verdict.claim: verdict for verdict in judge(rows, 1 / 3)}
    assert found["unfrozen beats frozen"].differences == pytest.approx(((0.10 + 0.01) / 2, 0.075, 0.075))
    assert found["unfrozen beats frozen"].verdict == "supported"
    assert found["recurrent heads win frozen"].differences == pytest.approx((0.04, 0.01, 0.01))
    assert found["recurrent heads win frozen"].verdict == "undecided"
    assert found["MLPs win unfrozen"].differences == pytest.approx((0.05, 0.04, 0.04))
    assert found["MLPs win unfrozen"].verdict == "supported"
    doublings = np.log2(61_061 / 14_081)
    slope = found[MORE]
    assert slope.differences == pytest.approx(tuple(np.array([0.05, 0.04, 0.04]) / doublings))
    assert slope.verdict == "supported"
    for verdict in found.values():
        assert verdict.difference == pytest.approx(np.mean(verdict.differences))
        assert verdict.p_value == corrected_t_test(verdict.differences, 1 / 3)


@pytest.mark.parametrize(
    ("gru", "verdict"),
    [([0.95, 0.96, 0.97], "contradicted"), ([0.90, 0.95, 0.89], "not contradicted")],
)
def test_more_parameters_that_help_contradict_the_claim(row_of, gru, verdict) -> None:
    """A larger head that is better in every fold contradicts it; one that is so now and then does not."""
    rows = [row_of("mlp2-unfrozen-hidden-plateau", [0.90, 0.91, 0.92]), row_of("gru-unfrozen-raw-plateau", gru)]
    assert {each.claim: each.verdict for each in judge(rows, 1 / 3)}[
        "more parameters do not help (unfrozen)"
    ] == verdict


def test_nothing_to_compare_gives_no_verdict(row_of) -> None:
    """One variant alone, variants of schedules that do not meet, and single folds judge nothing."""
    assert judge([row_of("mlp2-frozen-hidden-plateau", [0.8, 0.9])], 1 / 3) == ()
    apart = [row_of("mlp2-frozen-hidden-plateau", [0.8, 0.9]), row_of("mlp2-unfrozen-hidden-cyclic", [0.8, 0.9])]
    assert judge(apart, 1 / 3) == ()
    single = [row_of("mlp2-frozen-hidden-plateau", [0.8]), row_of("mlp2-unfrozen-hidden-plateau", [0.9])]
    assert judge(single, 1 / 3) == ()
