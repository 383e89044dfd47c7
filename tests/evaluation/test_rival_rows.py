import pytest

from example_results import variant_row
from imputune.evaluation.rival_rows import HeadCost, RivalComparison, RivalScores, compare_rivals
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.significance import corrected_t_interval, corrected_t_test, holm
from imputune.protocol.rivals import SECONDS_FOR_1000, Rival

AUCS = [0.80, 0.82, 0.81, 0.83, 0.79]
COST = HeadCost(imputer_parameters=1000, pretraining_seconds=100.0, seconds_for_1000_stays=2.0)
ROWS = [
    variant_row("mlp2-frozen-hidden-plateau", AUCS),
    variant_row("mlp2-unfrozen-hidden-plateau", AUCS).model_copy(update={"val_auc_mean": 0.9}),
    variant_row("mlp2-frozen-hidden+static-plateau", AUCS).model_copy(update={"val_auc_mean": 0.85}),
    variant_row("xgboost-frozen-summary-none", [0.99] * 5),
    variant_row("blend-frozen-members-none", [0.95] * 5),
]


def rival(name: str, gains: list[float], input: str = "raw", failures: dict[int, str] | None = None) -> RivalScores:
    """Return a rival whose test AUC by fold is AUCS and these gains."""
    scores = {
        fold: {
            "validation_auc": 0.8 + gain,
            "test_auc": AUCS[fold] + gain,
            "test_auprc": 0.5,
            "test_calibration_error": 0.02,
            SECONDS_FOR_1000: 3.0,
        }
        for fold, gain in enumerate(gains)
    }
    told = Rival.model_validate({"name": name, "input": input})
    return RivalScores(rival=told, num_parameters=500, seconds=300.0, scores=scores, failures=failures or {})


def compared(*rivals: RivalScores, rows: list[VariantRow] = ROWS) -> RivalComparison | None:
    """Compare with the rows above."""
    return compare_rivals(rows, rivals, 1 / 3, cost=COST, references={"mTAN": 0.858})


def test_leads_over_the_best_small_head_by_hand() -> None:
    """The reference is chosen by validation AUC among neural heads; p-values are adjusted for the number of rivals."""
    gains = {"seft": [0.01, 0.02, 0.01, 0.0, 0.02], "mtan": [0.03, 0.02, 0.04, 0.03, 0.03]}
    found = compared(*(rival(name, each) for name, each in gains.items()))
    assert found is not None
    assert found.reference.label == "mlp2-unfrozen-hidden-plateau"
    assert [row.label for row in found.rivals] == ["mTAND-Enc", "SeFT"]  # the best validation AUC first
    assert found.best_rival is found.rivals[0]
    p_values = holm([corrected_t_test(each, 1 / 3) for each in gains.values()])
    leads = [row.lead for row in reversed(found.rivals)]
    for lead, p_value, each in zip(leads, p_values, gains.values(), strict=True):
        assert lead is not None
        assert lead.by_fold == pytest.approx(each)
        assert lead.p_value == pytest.approx(p_value)
        assert (lead.low, lead.high) == pytest.approx(corrected_t_interval(each, 1 / 3))
    assert [row.quoted_auc for row in found.rivals] == [0.858, None]


def test_our_heads_are_those_of_each_part_and_cost_what_csai_costs_too() -> None:
    """Frozen, unfrozen, with static facts, and the blend, whose members are trained apart."""
    found = compared(rival("seft", [0.0] * 5))
    assert found is not None
    assert {row.part: row.label for row in found.heads} == {
        "frozen head": "mlp2-frozen-hidden-plateau",
        "unfrozen head": "mlp2-unfrozen-hidden-plateau",
        "head with static": "mlp2-frozen-hidden+static-plateau",
        "blend": "blend-frozen-members-none",
    }
    head, *_, blend = found.heads
    assert head.num_parameters == 1000 + (ROWS[0].num_parameters or 0)
    assert head.seconds == 100.0 + ROWS[0].seconds
    assert head.seconds_for_1000_stays == 2.0
    assert (blend.seconds, blend.seconds_for_1000_stays) == (None, None)
    assert found.rivals[0].scores["test_auc"] == pytest.approx((0.81, 0.0158), abs=1e-4)


def test_a_rival_with_missing_or_failed_folds_is_not_tested() -> None:
    """It stands in the table, after those with a score if it has none, and takes no part in the adjustment."""
    whole = [0.01, 0.02, 0.01, 0.0, 0.02]
    failed = rival("ipnets", [], failures={0: "training of fold 0 diverged"})
    found = compared(rival("seft", whole), rival("mtan", whole[:2]), failed)
    assert found is not None
    by_label = {row.label: row for row in found.rivals}
    assert (by_label["mTAND-Enc"].lead, by_label["mTAND-Enc"].folds) == (None, 2)
    assert (by_label["IP-Nets"].scores, by_label["IP-Nets"].failure) == ({}, "training of fold 0 diverged")
    assert found.rivals[-1].label == "IP-Nets"
    lead = by_label["SeFT"].lead
    assert lead is not None
    assert lead.p_value == corrected_t_test(lead.by_fold, 1 / 3)


def test_nothing_is_compared_without_a_rival_or_without_a_head() -> None:
    """Gradient boosting and the blend are no small heads."""
    assert compared() is None
    assert compared(rival("seft", [0.0] * 5), rows=ROWS[3:]) is None
