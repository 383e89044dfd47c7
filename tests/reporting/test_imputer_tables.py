import pytest

from imputune.evaluation.assessed_imputers import assessed_imputer
from imputune.reporting.imputer_tables import (
    errors_table,
    missing_table,
    target_table,
    winner_sentence,
)


def result(imputer: str, maes: list[float], difference: float = 0.0, share: float = 0.1) -> dict:
    """Return what assessing an imputer gave, by fold."""
    return {
        "imputer": imputer,
        "run_id": "run",
        "folds": [
            {
                "fold": fold,
                "seconds": 2.0,
                "batch_difference": difference,
                "scores": [
                    {"pattern": "non_uniform", "share": share, "mae": mae, "rmse": mae, "mre": mae, "wasserstein": mae}
                    | {"correlation_error": None, "by_variable": {"HR": {"mae": mae}}}
                    | {"by_missing_share": {"0": {"mae": mae}}}
                ],
            }
            for fold, mae in enumerate(maes)
        ],
    }


CSAI = assessed_imputer(result("csai", [0.24, 0.25, 0.26]))


def test_the_winner_is_named_with_its_lead():
    """CSAI ahead, CSAI behind, and a difference that the folds leave open."""
    linear = assessed_imputer(result("linear", [0.36, 0.375, 0.39]))
    assert "CSAI comes closest (0.250 deviations), 33% below the next, linear" in winner_sentence([CSAI, linear], 1 / 3)
    saits = assessed_imputer(result("saits", [0.2, 0.21, 0.22]))
    told = winner_sentence([CSAI, linear, saits], 1 / 3)
    assert "SAITS comes closest (0.210 deviations), 16% below CSAI (0.250)" in told
    wavering = assessed_imputer(result("brits", [0.3, 0.2, 0.249]))
    assert "leave undecided" in winner_sentence([CSAI, wavering], 1 / 3)
    assert winner_sentence([CSAI], 1 / 3) == ""


def test_an_imputer_whose_batch_matters_is_marked():
    """A stay alone that differs from the same stay in a batch by more than rounding mixes patients."""
    mixing = assessed_imputer(result("csdi", [0.3, 0.3], difference=0.07))
    assert mixing.mixes_stays
    assert not CSAI.mixes_stays
    lines = target_table([mixing, CSAI]).lines
    assert [line[0] for line in lines] == ["CSAI", "CSDI"]  # the closest first
    assert [line[-1] for line in lines] == ["yes", "no, mixes patients (by 0.07)"]


def test_tables_leave_gaps_where_something_was_not_asked_for():
    """A share that one imputer was not assessed at is empty; without the ranking's share there is no ranking."""
    other = assessed_imputer(result("mean", [0.5, 0.5], share=0.3))
    assert errors_table([CSAI, other]).lines == (
        ("non-uniform", "10%", "0.250", ""),
        ("non-uniform", "30%", "", "0.500"),
    )
    assert target_table([other]) is None
    assert missing_table([other], (0.5, 0.8)) is None
    assert missing_table([CSAI], (0.5, 0.8)).header == ("imputer", "50% to 80% missing")


def test_epochs_and_minutes_are_those_of_pretraining():
    """They come from the pretraining's output; an imputer that learns nothing has none."""
    pretrained = {"folds": [{"history": [{}, {}], "seconds": 30.0}, {"history": [{}, {}], "seconds": 30.0}]}
    row = assessed_imputer(result("csai", [0.2, 0.3]), pretrained)
    assert (row.epochs, row.pretrain_seconds, row.seconds_per_1000_stays) == (2, 60.0, 2.0)
    nothing = assessed_imputer(result("mean", [0.2, 0.3]), {"folds": [{"history": [], "seconds": 9.0}]})
    assert (nothing.epochs, nothing.pretrain_seconds) == (0, 0)
    assert row.mae_by_fold == pytest.approx((0.2, 0.3))
