import numpy as np
import pytest

from imputune.evaluation.metrics import (
    curve_scores,
    imputation_scores,
    reliability,
    risk_scores,
)


def test_imputation_scores_by_hand() -> None:
    """Errors 1 and 0.5 on HR, 3 on pH: mean 1.5, relative 4.5 / 9; a variable without held-out cells has no row."""
    truth_NTD = np.array([[[2.0, -4.0, 9.0], [3.0, 0.0, 9.0]]], dtype=np.float32)
    estimate_NTD = np.array([[[1.0, -1.0, 0.0], [3.5, 8.0, 0.0]]], dtype=np.float32)
    held_out_NTD = np.array([[[1, 1, 0], [1, 0, 0]]])
    assert imputation_scores(estimate_NTD, truth_NTD, held_out_NTD, ("HR", "pH", "Temp")) == [
        {"variable": "all", "cells": 3, "mae": 1.5, "rmse": pytest.approx((10.25 / 3) ** 0.5), "mre": 0.5},
        {"variable": "HR", "cells": 2, "mae": 0.75, "rmse": pytest.approx(0.625**0.5), "mre": pytest.approx(1.5 / 5)},
        {"variable": "pH", "cells": 1, "mae": 3.0, "rmse": 3.0, "mre": 0.75},
    ]


def test_cells_not_held_out_do_not_count() -> None:
    """NaN or any number outside the held-out cells changes no score, and the mask may be boolean."""
    random = np.random.default_rng(0)
    truth, estimate = random.normal(size=(2, 4, 5, 3))
    held_out = random.random(truth.shape) < 0.3
    expected = imputation_scores(estimate, truth, held_out, "abc")
    spoilt = [np.where(held_out, array, junk) for array, junk in ((estimate, np.nan), (truth, 1e9))]
    assert imputation_scores(*spoilt, held_out.astype(np.float32), "abc") == expected


def test_nothing_held_out_scores_0() -> None:
    """Without held-out cells there is the row over all, with 0 cells and no NaN."""
    scores = imputation_scores(np.ones((1, 2, 1)), np.zeros((1, 2, 1)), np.zeros((1, 2, 1)), ("HR",))
    assert scores == [{"variable": "all", "cells": 0, "mae": 0.0, "rmse": 0.0, "mre": 0.0}]


def test_risk_scores_by_hand() -> None:
    """Deaths at 0.8 and 0.4, survivors at 0.6 and 0.2: three of four pairs are in order."""
    scores = risk_scores(np.array([1, 0, 1, 0]), np.array([0.8, 0.6, 0.4, 0.2]))
    assert scores == {
        "auc": pytest.approx(3 / 4),
        "auprc": pytest.approx(0.5 * 1 + 0.5 * 2 / 3),
        "brier": pytest.approx((0.2**2 + 0.6**2 + 0.6**2 + 0.2**2) / 4),
        "log_loss": pytest.approx(-np.log([0.8, 0.4, 0.4, 0.8]).mean()),
        "calibration_error": pytest.approx((0.2 + 0.6 + 0.6 + 0.2) / 4),
    }
    assert {type(score) for score in scores.values()} == {float}


def test_risk_scores_of_perfect_and_constant_risks() -> None:
    """Risks that order perfectly have AUC 1 and AUPRC 1; equal risks have AUC 0.5 and AUPRC the share of deaths."""
    outcome_N = np.array([0, 0, 1, 0])
    perfect, constant = risk_scores(outcome_N, np.array([0.1, 0.2, 0.9, 0.3])), risk_scores(outcome_N, np.full(4, 0.25))
    assert (perfect["auc"], perfect["auprc"]) == (1, 1)
    assert (constant["auc"], constant["auprc"], constant["brier"]) == (0.5, 0.25, pytest.approx(0.1875))


@pytest.mark.parametrize("ties", [True, False])
def test_curve_scores_are_those_of_risk_scores(ties: bool) -> None:
    """AUC and log loss of an epoch equal the final scores', ties and risks of exactly 0 and 1 included."""
    random = np.random.default_rng(0)
    died = (random.random(300) < 0.2).astype(np.float32)
    risk = np.clip(random.normal(0.4 + 0.2 * died, 0.3), 0, 1).astype(np.float32)
    risk = risk.round(1) if ties else risk
    quick, full = curve_scores(died, risk), risk_scores(died, risk)
    assert quick == pytest.approx({name: full[name] for name in ("auc", "log_loss")}, rel=1e-6)


@pytest.mark.parametrize("died", [0, 1])
def test_curve_scores_without_a_death_or_a_survivor(died: int) -> None:
    """Where there is no pair to order, auc is NaN, and log_loss what it always is."""
    scores = curve_scores(np.full(2, died, np.float32), np.array([0.25, 0.25], np.float32))
    assert np.isnan(scores["auc"])
    assert scores["log_loss"] == pytest.approx(-np.log(0.25 if died else 0.75))


def test_reliability_by_hand() -> None:
    """Ordered by risk, six stays in three groups of two: mean risks 0.1, 0.4 and 0.8, of whom 0, 1 and 2 died."""
    outcome_N, risk_N = np.array([1, 0, 0, 1, 1, 0]), np.array([0.9, 0.05, 0.15, 0.7, 0.3, 0.5])
    groups = reliability(outcome_N, risk_N, groups=3)
    assert [group["risk"] for group in groups] == pytest.approx([0.1, 0.4, 0.8])
    assert [(group["died"], group["stays"]) for group in groups] == [(0, 2), (0.5, 2), (1, 2)]
    assert len(reliability(outcome_N, risk_N, groups=10)) == 6


def test_calibration_error_is_0_where_risks_are_right() -> None:
    """Ten stays at risk 0.1, one of whom died, are calibrated in one group of equal risks."""
    outcome_N, risk_N = np.eye(1, 10)[0].astype(int), np.full(10, 0.1)
    [group] = reliability(outcome_N, risk_N, groups=1)
    assert group == {"risk": pytest.approx(0.1), "died": 0.1, "stays": 10}
