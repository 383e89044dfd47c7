from math import isnan

import pytest

from example_results import RANKING, assessed_imputer, held_out_scores_of, ranked_imputer
from imputune.evaluation.assessed_imputers import (
    GROUP_MEASURES,
    MEASURES,
    ROUNDING,
    VARIABLE_MEASURES,
    AssessedImputer,
    pattern_scores,
)
from imputune.evaluation.assessment import HeldOutScores


def fold_of(mae: float, correlation_error: float | None, variables: dict[str, float]) -> HeldOutScores:
    """Return the scores of a fold under `hours` at 0.3, with these errors by variable."""
    errors = {"cells": 3, "rmse": 1.0, "mre": 1.0}
    return HeldOutScores(
        **errors,
        mae=mae,
        wasserstein=0.5,
        pattern="hours",
        rate=0.3,
        correlation_error=correlation_error,
        by_variable={name: errors | {"mae": each, "wasserstein": 0.25} for name, each in variables.items()},
        by_missing_share={"0": errors | {"mae": mae}},
    )


def test_scores_are_means_over_folds() -> None:
    """Means and sample deviations over folds; a fold without a measure or a variable does not count for it."""
    [row] = pattern_scores([[fold_of(1.0, None, {"HR": 2.0})], [fold_of(3.0, 0.2, {})]])
    assert (row.pattern, row.rate, row.mean["mae"]) == ("hours", 0.3, 2.0)
    assert row.deviation["mae"] == pytest.approx(2**0.5)
    assert row.mean["correlation_error"] == 0.2
    assert isnan(row.deviation["correlation_error"])
    assert row.by_variable == {"HR": {"mae": 2.0, "rmse": 1.0, "mre": 1.0, "wasserstein": 0.25}}
    assert row.by_missing_share == {"0": {"mae": 2.0, "rmse": 1.0, "mre": 1.0}}
    assert tuple(row.mean) == tuple(row.deviation) == MEASURES
    assert tuple(row.by_variable["HR"]) == VARIABLE_MEASURES
    assert tuple(row.by_missing_share["0"]) == GROUP_MEASURES


def test_a_measure_that_no_fold_has_is_left_out() -> None:
    """Without a correlation error in any fold there is no mean of it."""
    [row] = pattern_scores([[fold_of(1.0, None, {})]])
    assert "correlation_error" not in row.mean
    assert set(row.mean) == set(MEASURES) - {"correlation_error"}


def test_patterns_keep_their_order_and_stay_apart() -> None:
    """One row for each pattern and rate, as the folds have them."""
    folds = [
        [held_out_scores_of(mae, "uniform", 0.1), held_out_scores_of(2 * mae, "uniform", 0.3)] for mae in (0.1, 0.2)
    ]
    rows = pattern_scores(folds)
    assert [(row.pattern, row.rate, row.mean["mae"]) for row in rows] == [
        ("uniform", 0.1, pytest.approx(0.15)),
        ("uniform", 0.3, pytest.approx(0.3)),
    ]


def test_epochs_and_seconds_come_from_pretraining() -> None:
    """Epochs are the most that a fold trained, seconds are summed; an imputer that learns nothing has neither."""
    scores = [[held_out_scores_of(0.2)], [held_out_scores_of(0.3)]]
    learned = assessed_imputer("csai", scores, pretraining=[(30.0, 2), (30.0, 3)])
    assert (learned.epochs, learned.pretrain_seconds, learned.seconds_per_1000_stays) == (3, 60.0, 2.0)
    assert (learned.imputer, learned.label, learned.run_id) == ("csai", "CSAI", "run of csai")
    nothing = assessed_imputer("linear", scores)
    assert (nothing.epochs, nothing.pretrain_seconds, nothing.label) == (0, 0, "linear interpolation")


def test_the_ranking_picks_its_pattern_and_rate() -> None:
    """The errors by fold are those under the ranking's masking, None if it was not assessed."""
    scores = [
        [held_out_scores_of(0.9, "uniform"), held_out_scores_of(mae), held_out_scores_of(0.8, rate=0.3)]
        for mae in (0.2, 0.3)
    ]
    ranked = assessed_imputer("csai", scores)
    assert ranked.ranking == RANKING
    assert ranked.mae_by_fold == (0.2, 0.3)
    assert ranked.ranked == ranked.row("non_uniform", 0.1) == ranked.rows[1]
    other = assessed_imputer("mean", [[held_out_scores_of(0.5, rate=0.3)]])
    assert (other.mae_by_fold, other.ranked, other.row("uniform", 0.3)) == (None, None, None)


def test_only_more_than_rounding_mixes_stays() -> None:
    """A difference of 1e-4 between batches is rounding; a larger one means that stays influence each other."""
    scores = [[held_out_scores_of(0.3)]]
    assert not assessed_imputer("csai", scores, batch_difference=ROUNDING).mixes_stays
    mixing = assessed_imputer("csdi", scores, batch_difference=0.07)
    assert (mixing.mixes_stays, mixing.batch_difference) == (True, 0.07)


def test_an_assessed_imputer_survives_json() -> None:
    """Read back from its JSON, it is equal."""
    imputer = ranked_imputer("csai", 0.2, 0.4)
    assert AssessedImputer.model_validate_json(imputer.model_dump_json()) == imputer
