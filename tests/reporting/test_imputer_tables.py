import pytest

from example_results import assessed_imputer, held_out_scores_of, ranked_imputer
from imputune.evaluation.assessment import VariableErrors
from imputune.evaluation.imputation import CellErrors
from imputune.evaluation.rows import ImputerRow
from imputune.reporting.imputer_tables import (
    by_variable_table,
    errors_table,
    lowest_error_sentence,
    masking_text,
    missing_table,
    pretraining_table,
    ranked_imputers,
    ranking_table,
)
from imputune.settings.imputer_sections import Ranking

CSAI = ranked_imputer("csai", 0.24, 0.25, 0.26)
LINEAR = ranked_imputer("linear", 0.36, 0.375, 0.39)
OTHER_RATE = assessed_imputer("mean", [[held_out_scores_of(0.5, rate=0.3)]] * 2)
"""An imputer that was not scored under the ranking's masking."""


def test_csai_has_the_lowest_error() -> None:
    """By hand: 0.25 is a third below 0.375; the differences 0.12, 0.125 and 0.13 are significant."""
    assert lowest_error_sentence([CSAI, LINEAR], 1 / 3) == (
        "With 10% of the observed cells masked (non-uniform), CSAI has the lowest error (MAE 0.250 training standard "
        "deviations), 33% below the next, linear interpolation (0.375)."
    )


def test_another_imputer_has_the_lowest_error() -> None:
    """By hand: 0.21 is 16% below 0.25; the best of the others is compared, wherever it stands."""
    saits = ranked_imputer("saits", 0.2, 0.21, 0.22)
    assert lowest_error_sentence([CSAI, LINEAR, saits], 1 / 3) == (
        "With 10% of the observed cells masked (non-uniform), SAITS has the lowest error (MAE 0.210 training standard "
        "deviations), 16% below CSAI (0.250)."
    )


@pytest.mark.parametrize(
    ("brits", "text"),
    [
        (
            (0.3, 0.2, 0.249),
            "BRITS has the lowest error (MAE 0.250 training standard deviations), 0% below CSAI (0.250); "
            "this difference is not significant (p = 0.99).",
        ),
        (
            (0.3, 0.2, 0.28),
            "CSAI has the lowest error (MAE 0.250 training standard deviations), 4% below the next, BRITS (0.260); "
            "this difference is not significant (p = 0.85).",
        ),
    ],
)
def test_a_difference_that_changes_sign_between_folds_is_not_significant(brits, text) -> None:
    """The sentence gives the p-value, whichever imputer has the lower error."""
    sentence = lowest_error_sentence([CSAI, ranked_imputer("brits", *brits)], 1 / 3)
    assert sentence == f"With 10% of the observed cells masked (non-uniform), {text}"


def test_without_csai_or_another_imputer_there_is_no_sentence() -> None:
    """One imputer, an imputer that was not scored under the ranking's masking, and no CSAI."""
    assert lowest_error_sentence([CSAI], 1 / 3) == ""
    assert lowest_error_sentence([CSAI, OTHER_RATE], 1 / 3) == ""
    assert lowest_error_sentence([LINEAR, ranked_imputer("mean", 0.7, 0.7, 0.7)], 1 / 3) == ""
    assert lowest_error_sentence([], 1 / 3) == ""


def test_ranking_has_every_measure_and_the_lowest_error_first() -> None:
    """An imputer that learns has epochs and minutes; one whose stays influence each other is marked."""
    mixing = assessed_imputer(
        "csdi", [[held_out_scores_of(0.3)]] * 2, batch_difference=0.07, pretraining=[(90.0, 4), (90.0, 5)]
    )
    table = ranking_table([mixing, CSAI])
    assert table.title == "Imputers, the lowest error first"
    assert table.header == (
        "imputer",
        "MAE",
        "RMSE",
        "MRE",
        "Wasserstein",
        "correlation error",
        "epochs",
        "training minutes",
        "s per 1,000 stays",
        "same result alone and in a batch",
    )
    spreads = ("0.250 ± 0.010", "0.500 ± 0.020", "0.750 ± 0.030", "0.125 ± 0.005")
    constant = ("0.300 ± 0.000", "0.600 ± 0.000", "0.900 ± 0.000", "0.150 ± 0.000")
    assert table.lines == (
        ("CSAI", *spreads, "", "", "", "2.0", "yes"),
        ("CSDI", *constant, "", "5", "3", "2.0", "no, stays influence each other (by 0.07)"),
    )
    assert table.remark.startswith(
        "10% of the observed cells masked (non-uniform); mean ± sample standard deviation over the test folds. "
    )
    assert ranking_table([OTHER_RATE]) is None


def test_a_correlation_error_is_shown_if_there_is_one() -> None:
    """Two folds with 0.1 and 0.2 give their mean and deviation."""
    folds = [[held_out_scores_of(0.3).model_copy(update={"correlation_error": error})] for error in (0.1, 0.2)]
    [line] = ranking_table([assessed_imputer("locf", folds)]).lines
    assert (line[0], line[5]) == ("LOCF", "0.150 ± 0.071")


def test_errors_stay_empty_where_an_imputer_was_not_assessed() -> None:
    """A line for each pattern and rate, a column for each imputer."""
    table = errors_table([CSAI, OTHER_RATE])
    assert table.header == ("masking pattern", "rate", "CSAI", "mean")
    assert table.lines == (("non-uniform", "10%", "0.250", ""), ("non-uniform", "30%", "", "0.500"))


def test_missing_shares_are_columns() -> None:
    """The columns are named after the limits; a group without held-out cells is empty."""
    table = missing_table([CSAI, OTHER_RATE], (0.5, 0.8, 1.0))
    assert table.header == ("imputer", "50% to 80% missing", "80% to 100% missing")
    assert table.lines == (("CSAI", "0.250", ""),)
    assert missing_table([OTHER_RATE], (0.5, 0.8)) is None


def test_variables_are_lines() -> None:
    """Every variable that any imputer was scored on has a line, empty for an imputer that was not."""
    errors = CellErrors(cells=3, mae=0.4, rmse=0.4, mre=0.4).model_dump()
    scores = held_out_scores_of(0.3).model_copy(update={"by_variable": {"pH": VariableErrors(**errors, wasserstein=0)}})
    table = by_variable_table([CSAI, OTHER_RATE, assessed_imputer("locf", [[scores]])])
    assert table.header == ("variable", "CSAI", "LOCF")
    assert table.lines == (("HR", "0.250", ""), ("pH", "", "0.400"))
    assert by_variable_table([OTHER_RATE]) is None


def test_only_imputers_under_the_rankings_masking_are_ranked() -> None:
    """With the scores that rank them, in their order."""
    assert ranked_imputers([OTHER_RATE, CSAI]) == [(CSAI, CSAI.rows[0])]


def test_masking_in_words() -> None:
    """The rate in percent and the pattern's label."""
    assert masking_text(Ranking(pattern="hours", rate=0.3)) == "30% of the observed cells masked (whole hours)"


def test_pretraining_shows_test_errors_alone() -> None:
    """Errors on validation stays are left out of the table headed test."""
    fields = {"imputer": "csai", "pattern": "uniform", "mae_by_variable": {}, "mre_by_variable": {}}
    rows = [
        ImputerRow(**fields, split=split, mae_mean=mae, mae_std=0.1414, mre_mean=0.5, mre_std=0.0)
        for split, mae in (("test", 0.3), ("validation", 0.9))
    ]
    table = pretraining_table(rows)
    assert table.title == "Imputation of masked cells, in training standard deviations"
    assert [dict(zip(table.header, line, strict=True)) for line in table.lines] == [
        {"imputer": "CSAI", "masking pattern": "at random", "test MAE": "0.300 ± 0.141", "test MRE": "0.500 ± 0.000"}
    ]
