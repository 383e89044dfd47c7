import json

import pytest

from example_results import imputer_comparison, matrix_row, matrix_rows, ranked_imputer, variant_row
from imputune.evaluation.comparison import MATRIX_FIELDS, VariantComparison, learned, without_controls
from imputune.evaluation.rows import ImputerRow
from imputune.evaluation.stored import rounded
from imputune.evaluation.variance import decompose
from imputune.protocol.division import Division

NAME = "mlp2-frozen-hidden-plateau"


def imputer_row(imputer: str, split: str, mae: float) -> ImputerRow:
    """Return an imputer's row with this mean MAE."""
    return ImputerRow(
        imputer=imputer,
        pattern="uniform",
        split=split,
        mae_mean=mae,
        mae_std=0.01,
        mre_mean=0.4,
        mre_std=0.02,
        mae_by_variable={"HR": 0.2, "pH": 0.9},
        mre_by_variable={"HR": 0.3, "pH": 1.0},
    )


def variants(dataset: str = "physionet2012") -> VariantComparison:
    """Return a comparison of one variant in two folds, and of two imputers."""
    return VariantComparison(
        dataset=dataset,
        stays=3997,
        events=554,
        cohort_hash="abc",
        division=Division(count=5),
        rows=(variant_row(NAME, [0.80, 0.85], dataset),),
        imputers=(
            imputer_row("csai", "test", 0.2000004),
            imputer_row("csai", "validation", 0.9),
            imputer_row("mean", "test", 0.7),
        ),
        notes=("one variant is unfinished",),
    )


def test_metrics_are_few_and_the_same_for_every_run() -> None:
    """They hold four scores of each variant, rounded to four places: no time and no run id."""
    assert variants().metrics() == {NAME: {"AUC": 0.825, "AUPRC": 0.5, "ECE": 0.03, "val_AUC": 0.835}}


def test_json_holds_everything() -> None:
    """All of a comparison survives JSON, with the claims and, apart, the AUCs of other protocols."""
    content = json.loads(json.dumps(variants().as_json()))
    assert content["rows"][0]["folds"][1]["test_auc"] == 0.85
    assert content["rows"][0]["run_id"] == "run"
    assert content["rows"][0]["calibration"][1] == {"risk": 0.5, "outcome_rate": 0.4, "stays": 50}
    assert content["imputers"][0]["mae_by_variable"]["pH"] == 0.9
    assert content["notes"] == ["one variant is unfinished"]
    assert content["references_of_other_protocols"]["mTAN"] == 0.858
    assert content["claims"]["verdicts"] == []
    assert "Nadeau and Bengio" in content["claims"]["test"]


def test_json_is_the_same_after_the_verdicts_were_read() -> None:
    """The verdicts, kept once they were computed, are no field of their own."""
    comparison = variants()
    before = comparison.as_json()
    assert comparison.verdicts == ()
    assert comparison.as_json() == before
    assert "verdicts" not in before


def test_json_has_the_verdicts() -> None:
    """A claim that can be tested has its verdict, with the differences by fold."""
    rows = (variant_row(NAME, [0.80, 0.81]), variant_row("mlp2-unfrozen-hidden-plateau", [0.90, 0.91]))
    [verdict] = variants().model_copy(update={"rows": rows}).as_json()["claims"]["verdicts"]
    assert verdict["claim"] == "unfrozen beats frozen"
    assert verdict["differences"] == pytest.approx([0.1, 0.1])
    assert (verdict["variants"], verdict["compared_variants"]) == (1, 1)


def test_other_protocols_belong_to_their_dataset() -> None:
    """Their AUCs are of PhysioNet 2012 alone."""
    assert variants("synthetic").references == {}
    assert variants().references["BRITS"] == 0.850


def test_decompositions_leave_out_controls_and_plain_rules() -> None:
    """With a control, three matrices: all, without it, and that of the imputers that learn."""
    rows = [*matrix_rows(lambda i, c, f: 0.7 + 0.1 * c + 0.01 * i * f)]
    rows += [matrix_row("csai_untrained", head, [0.5] * 4) for head in ("mlp2", "xgboost")]
    found = imputer_comparison(rows)
    assert [row.imputer for row in without_controls(rows)][::2] == ["csai", "mean", "saits"]
    assert [row.imputer for row in learned(rows)][::2] == ["csai", "saits"]
    assert found.decomposition == decompose(rows)
    assert found.decomposition.imputers == ("csai", "mean", "saits", "csai_untrained")
    assert found.decomposition_without_controls == decompose(rows[:-2])
    assert found.decomposition_of_learned.imputers == ("csai", "saits")


def test_imputers_that_learn_are_analysed_with_the_heads_of_all() -> None:
    """A head that plain rules lack does not count, so that both analyses are over the same heads."""
    rows = [*matrix_rows(lambda i, c, f: 0.7 + 0.1 * c + 0.01 * i * f)]
    rows += [matrix_row("linear", head, [0.5, 0.6, 0.7, 0.8]) for head in ("mlp2", "xgboost")]
    rows += [matrix_row(imputer, "svm", [0.5, 0.6, 0.7, 0.8]) for imputer in ("csai", "saits")]
    found = imputer_comparison(rows)
    assert decompose(learned(rows)).heads == ("mlp2", "xgboost", "svm")
    assert found.decomposition_of_learned == decompose(learned(rows[:-2]))
    assert found.decomposition_of_learned.heads == found.decomposition_without_controls.heads == ("mlp2", "xgboost")


def test_json_of_imputers_is_rounded() -> None:
    """Six decimal places everywhere; a row of the matrix has the fields named in MATRIX_FIELDS."""
    found = imputer_comparison(
        matrix_rows(lambda i, c, f: 0.7 + 0.1 * c + i * f / 7000), [ranked_imputer("csai", 0.2, 1 / 3)], notes=["x"]
    )
    content = json.loads(json.dumps(found.as_json(["An answer."])))
    assert list(content) == [
        "dataset",
        "outcome",
        "stays",
        "events",
        "cohort_hash",
        "division",
        "answers",
        "imputers",
        "missing_share_edges",
        "matrix",
        "decomposition",
        "decomposition_without_controls",
        "decomposition_of_learned",
        "notes",
    ]
    assert (content["answers"], content["notes"], content["missing_share_edges"]) == (
        ["An answer."],
        ["x"],
        [0.5, 0.8, 1],
    )
    assert content["imputers"][0]["mae_by_fold"] == [0.2, 0.333333]
    assert content["imputers"][0]["rows"][0]["mean"]["mae"] == 0.266667
    assert set(content["matrix"][0]) == MATRIX_FIELDS
    assert content["matrix"][3]["folds"][1]["test_auc"] == 0.800143
    assert content["decomposition"]["head"]["share"] == round(found.decomposition.head.share, 6)
    assert content["decomposition_of_learned"]["imputers"] == ["csai", "saits"]
    share = round(found.decomposition_of_learned.imputer.share, 6)
    assert content["decomposition_of_learned"]["imputer"]["share"] == share


def test_json_without_a_complete_matrix_has_no_decomposition() -> None:
    """It is null, not missing."""
    content = imputer_comparison().as_json([])
    names = ("decomposition", "decomposition_without_controls", "decomposition_of_learned")
    assert [content[name] for name in names] == [None, None, None]


def test_rounding_reaches_every_number_and_nothing_else() -> None:
    """Numbers in mappings and lists are rounded; whole numbers, texts and None stay."""
    value = {"a": [0.123456789, 3, None], "b": {"c": "0.123456789", "d": True}}
    assert rounded(value, 3) == {"a": [0.123, 3, None], "b": {"c": "0.123456789", "d": True}}
