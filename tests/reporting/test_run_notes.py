import pytest

from example_results import variant_row
from imputune.protocol.variants import make_variant
from imputune.reporting.run_notes import (
    assessment_result,
    auc_result,
    best_sentence,
    pretraining_result,
    repeat_note,
    rows_result,
    run_name,
    variant_name,
    variant_sentence,
    variants_result,
)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("mlp2", "unfrozen"), "mlp2 · unfrozen · hidden · plateau"),
        (("mlp2", "frozen", "imputed", "cyclic", "mean"), "mlp2 · frozen · imputed · cyclic · mean"),
        (("xgboost", "frozen", "summary"), "xgboost · summary"),
        (("xgboost", "frozen", "imputed", "none", "brits"), "xgboost · imputed · brits"),
        (("blend",), "blend"),
    ],
)
def test_a_variants_run_is_named_by_what_tells_it_apart(words, name):
    """The imputer is named if it is not CSAI; mode and schedule are left out where there is no choice."""
    assert variant_name(make_variant(*words)) == name


def test_names_have_no_empty_parts():
    """A part that says nothing leaves no separator."""
    assert run_name("", "csai", "pretrain") == "csai · pretrain"


def test_a_sentence_says_whether_the_imputer_is_trained_too():
    """Frozen and unfrozen are told, and training without early stopping."""
    assert "**csai** (frozen), with" in variant_sentence(make_variant("mlp2"), "synthetic", "readmission")
    unfrozen = variant_sentence(make_variant("mlp2", "unfrozen"), "synthetic", "readmission", early_stopping=False)
    assert unfrozen.startswith("Trains, without early stopping, the head **mlp2**")
    assert "(unfrozen: trained too)" in unfrozen


def test_how_to_run_it_again_is_given_in_both_forms():
    """Empty options are left out, and words with spaces are quoted."""
    text = repeat_note("finetune", "synthetic", {"head": "mlp2", "mode": "", "input": "a b"})
    assert text.splitlines()[-3:-1] == [
        "imputune finetune synthetic --head mlp2 --input 'a b'",
        "mlflow run . -e finetune -P dataset=synthetic -P head=mlp2 -P 'input=a b' --env-manager local",
    ]


def test_results_are_means_and_deviations_over_folds():
    """By hand: AUC of two folds, and of one; errors of pretraining and assessment by masking."""
    folds = [{"validation_auc": 0.7, "test_auc": 0.6}, {"validation_auc": 0.8, "test_auc": 0.8}]
    text = auc_result(folds)
    assert "| score | mean ± deviation over 2 folds |" in text
    assert "| validation AUC | 0.750 ± 0.071 |\n| test AUC | 0.700 ± 0.141 |" in text
    assert "| test AUC | 0.600 |" in auc_result(folds[:1])
    errors = [
        {f"{split}_mae_{pattern}": 0.5 for split in ("validation", "test") for pattern in ("uniform", "non_uniform")}
    ]
    assert "| uniform | 0.500 | 0.500 |\n| non-uniform | 0.500 | 0.500 |" in pretraining_result(errors)
    assessed = [{"mae_blocks_10": 0.25, "mae_uniform_50": 0.75, "seconds_per_1000_stays": 3.0}]
    assert assessment_result(assessed).endswith(
        "| blocks, 10 % | 0.250 |\n| uniform, 50 % | 0.750 |\n| **mean** | 0.500 |"
    )


def test_the_best_variants_come_first_and_the_rest_is_counted():
    """Variants are ordered by validation AUC; one without a finished fold is left out."""
    heads = [
        make_variant(head, mode, schedule=each)
        for head in ("mlp2", "gru")
        for mode in ("frozen", "unfrozen")
        for each in ("plateau", "cyclic", "optuna")
    ]
    heads += [make_variant("xgboost"), make_variant("svm")]
    scores = {variant: [{"validation_auc": 0.5 + place / 100, "test_auc": 0.5}] for place, variant in enumerate(heads)}
    scores[make_variant("blend")] = []
    lines = variants_result(scores).splitlines()
    assert lines[2] == "| svm · imputed | 0.630 | 0.500 |"
    assert len(lines) == 2 + 12 + 2
    assert lines[-1] == "and 2 more"


def test_a_comparison_without_a_variant_has_no_result():
    """There is no empty table."""
    assert rows_result([]) == ""


def test_the_best_variant_and_its_lead_are_told():
    """By validation AUC, which is 0.01 above the test AUC here; with one variant there is nothing to compare."""
    rows = [
        variant_row("xgboost-frozen-summary-none", (0.80, 0.82)),
        variant_row("mlp2-frozen-hidden-plateau", (0.83, 0.85)),
        variant_row("gru-frozen-imputed-plateau", (0.70, 0.72)),
    ]
    told = best_sentence(rows)
    assert "**mlp2 · frozen · hidden · plateau**, 0.0300 ahead of xgboost · summary" in told
    assert "on test stays the difference is +0.0300" in told
    assert "± 0.014" in told
    assert best_sentence(rows[:1]) == ""
