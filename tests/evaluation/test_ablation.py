import pytest

from example_results import variant_row
from imputune.evaluation.ablation import Ablation, ablations
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.significance import corrected_t_interval, corrected_t_test, holm

AUCS = [0.80, 0.82, 0.81, 0.83, 0.79]


def row(name: str, gains: list[float] | None = None, **changed: object) -> VariantRow:
    """Return a variant with these gains in test AUC over AUCS by fold, and fields whose words may be of the future."""
    aucs = [auc + gain for auc, gain in zip(AUCS, gains or [0.0] * 5, strict=True)]
    return variant_row(name, aucs).model_copy(update=changed)


def pairs(found: tuple[Ablation, ...]) -> list[tuple[str, str, str]]:
    """Return ingredient, variant without and variant with it."""
    return [(each.ingredient, each.without, each.with_it) for each in found]


def test_differences_by_hand() -> None:
    """Mean, interval and p-value are those of the paired differences, the p-values adjusted for four pairs."""
    static, both = [0.01, 0.02, 0.01, 0.0, 0.02], [0.03, 0.02, 0.04, 0.03, 0.03]
    rows = [
        row("mlp2-frozen-hidden+static+summary-plateau", both),
        row("mlp2-frozen-hidden-plateau"),
        row("mlp2-frozen-hidden+static-plateau", static),
        row("mlp2-unfrozen-hidden+static-plateau", both),
        row("mlp5-frozen-hidden+static-plateau", both),
        row("mlp2-frozen-hidden+summary-plateau"),
    ]
    found = ablations(rows, 1 / 3)
    start = "csai/mlp2-frozen-hidden"
    assert pairs(found) == [
        ("static", f"{start}+summary-plateau", f"{start}+static+summary-plateau"),
        ("static", f"{start}-plateau", f"{start}+static-plateau"),
        ("summary", f"{start}+static-plateau", f"{start}+static+summary-plateau"),
        ("summary", f"{start}-plateau", f"{start}+summary-plateau"),
    ]
    gain = found[1].auc
    assert gain.by_fold == pytest.approx(static)
    assert gain.mean == pytest.approx(0.012)
    assert (gain.low, gain.high) == pytest.approx(corrected_t_interval(static, 1 / 3))
    last = [theirs - ours for theirs, ours in zip(both, static, strict=True)]
    p_values = holm([corrected_t_test(each, 1 / 3) for each in (both, static, last, [0.0] * 5)])
    assert [each.auc.p_value for each in found] == pytest.approx(p_values)
    assert [each.auprc.mean for each in found] == [0.0] * 4
    assert [each.auprc.p_value for each in found] == [1.0] * 4


def test_pooling_extra_stays_and_the_imputer_itself() -> None:
    """A pooled state stands against the last, CSAI on more stays against CSAI; plain inputs depend on no imputer."""
    rows = [
        row("mlp2-frozen-hidden+static-plateau"),
        row("mlp2-frozen-hidden+static-plateau", input="hidden_pooled+static"),
        row("mlp2-frozen-hidden+static-plateau", imputer="csai_more"),
        row("mlp2-frozen-hidden+static-plateau", imputer="csai_untrained"),
        row("mlp2-frozen-hidden+static-plateau", imputer="saits"),
        row("xgboost-frozen-summary+static-none"),
        row("xgboost-frozen-summary+static-none", imputer="csai_more"),
        row("xgboost-frozen-hidden+static+summary-none"),
    ]
    assert pairs(ablations(rows, 1 / 3)) == [
        ("hidden state", "csai/xgboost-frozen-summary+static-none", "csai/xgboost-frozen-hidden+static+summary-none"),
        (
            "further hidden state",
            "csai/mlp2-frozen-hidden+static-plateau",
            "csai/mlp2-frozen-hidden_pooled+static-plateau",
        ),
        ("extra stays", "csai/mlp2-frozen-hidden+static-plateau", "csai_more/mlp2-frozen-hidden+static-plateau"),
    ]


def test_a_blend_stands_against_the_best_by_validation() -> None:
    """The single variant is chosen by validation AUC, though another has the higher test AUC."""
    rows = [
        row("mlp2-frozen-hidden-plateau", [0.1] * 5, val_auc_mean=0.7),
        row("xgboost-frozen-summary-none", val_auc_mean=0.9),
        row("mlp2-frozen-hidden-plateau", [0.02] * 5, head="blend", val_auc_mean=0.95),
        row("mlp2-frozen-hidden-plateau", [0.03] * 5, head="blend", mode="unfrozen", val_auc_mean=0.99),
    ]
    found = ablations(rows, 1 / 3)
    assert {each.without for each in found} == {"csai/xgboost-frozen-summary-none"}
    assert [each.auc.mean for each in found] == pytest.approx([0.02, 0.03])
    assert {each.ingredient for each in found} == {"blend"}


def test_other_folds_or_a_single_fold_are_no_pair() -> None:
    """Without the same folds on both sides, or with one fold, nothing is compared."""
    whole, part = row("mlp2-frozen-hidden-plateau"), row("mlp2-frozen-hidden+static-plateau")
    assert len(ablations([whole, part], 1 / 3)) == 1
    for folds in (part.folds[:4], part.folds[:1]):
        assert ablations([whole, part.model_copy(update={"folds": folds})], 1 / 3) == ()
    one = [each.model_copy(update={"folds": each.folds[:1]}) for each in (whole, part)]
    assert ablations(one, 1 / 3) == ()
