import numpy as np
import pytest

from example_results import variant_row
from imputune.evaluation.significance import corrected_t_test
from imputune.evaluation.verdicts import judge

MORE = "more parameters do not help (unfrozen)"
RECORDED = (
    (-0.000496688594011263, 0.9826323668374348),
    (0.002833662344382315, 0.9471552972429131),
    (-0.043336934808617486, 0.05405736021581676),
    (-0.02047574093286534, 0.05405736021581756),
)
"""Difference and p-value of each verdict, from the code as it was first written."""


def test_verdicts_by_hand() -> None:
    """Each claim compares what it says, over the schedules that both sides have, fold by fold."""
    rows = [
        variant_row("mlp2-frozen-hidden-plateau", [0.80, 0.81, 0.82]),
        variant_row("mlp2-frozen-hidden-cyclic", [0.10, 0.10, 0.10]),  # no other head has this schedule
        variant_row("gru-frozen-raw-plateau", [0.84, 0.82, 0.83]),
        variant_row("mlp2-unfrozen-hidden-plateau", [0.90, 0.91, 0.92]),
        variant_row("gru-unfrozen-raw-plateau", [0.85, 0.87, 0.88]),
        variant_row("xgboost-frozen-hidden-none", [0.99, 0.99, 0.99]),
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
    assert (slope.variants, slope.compared_variants) == (2, None)
    counts = {claim: (verdict.variants, verdict.compared_variants) for claim, verdict in found.items()}
    assert counts["unfrozen beats frozen"] == (2, 2)
    assert counts["recurrent heads win frozen"] == counts["MLPs win unfrozen"] == (1, 1)
    for verdict in found.values():
        assert verdict.difference == pytest.approx(np.mean(verdict.differences))
        assert verdict.p_value == corrected_t_test(verdict.differences, 1 / 3)


@pytest.mark.parametrize(
    ("gru", "verdict"),
    [([0.95, 0.96, 0.97], "contradicted"), ([0.90, 0.95, 0.89], "not contradicted")],
)
def test_more_parameters_that_help_contradict_the_claim(gru, verdict) -> None:
    """A larger head that is better in every fold contradicts it; one that is better in some folds does not."""
    rows = [
        variant_row("mlp2-unfrozen-hidden-plateau", [0.90, 0.91, 0.92]),
        variant_row("gru-unfrozen-raw-plateau", gru),
    ]
    assert {each.claim: each.verdict for each in judge(rows, 1 / 3)}[MORE] == verdict


def test_nothing_to_compare_gives_no_verdict() -> None:
    """One variant alone, variants of schedules that do not meet, and single folds judge nothing."""
    assert judge([variant_row("mlp2-frozen-hidden-plateau", [0.8, 0.9])], 1 / 3) == ()
    apart = [
        variant_row("mlp2-frozen-hidden-plateau", [0.8, 0.9]),
        variant_row("mlp2-unfrozen-hidden-cyclic", [0.8, 0.9]),
    ]
    assert judge(apart, 1 / 3) == ()
    single = [variant_row("mlp2-frozen-hidden-plateau", [0.8]), variant_row("mlp2-unfrozen-hidden-plateau", [0.9])]
    assert judge(single, 1 / 3) == ()


def test_verdicts_are_those_recorded() -> None:
    """Random AUCs give the differences and p-values that were recorded."""
    aucs = np.random.default_rng(7).uniform(0.75, 0.85, (4, 5)).tolist()
    names = (
        "mlp2-frozen-hidden-plateau",
        "gru-frozen-raw-plateau",
        "mlp2-unfrozen-hidden-plateau",
        "gru-unfrozen-raw-plateau",
    )
    found = judge([variant_row(name, each) for name, each in zip(names, aucs, strict=True)], 1 / 3)
    assert [(each.difference, each.p_value) for each in found] == [pytest.approx(pair, rel=1e-12) for pair in RECORDED]
