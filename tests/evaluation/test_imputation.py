import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from imputune.evaluation.imputation import correlation_error, held_out_scores, pattern_scores

NAMES = ("HR", "pH")


@pytest.fixture
def record() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """200 stays of 4 hours and two variables that go together: values, observed, held out."""
    random = np.random.default_rng(4)
    common = random.normal(size=(200, 4, 1))
    truth = (common + 0.3 * random.normal(size=(200, 4, 2))).astype(np.float32)
    observed = random.random(truth.shape) < 0.8
    return truth, observed, observed & (random.random(truth.shape) < 0.4)


def test_scores_by_hand():
    """Errors 1 and 3 on HR, 2 on pH; the second group of stays has the last two."""
    truth = np.array([[[1.0, 5.0]], [[4.0, 2.0]]], dtype=np.float32)
    estimate = np.array([[[2.0, 9.0]], [[1.0, 4.0]]], dtype=np.float32)
    held_out = np.array([[[True, False]], [[True, True]]])
    scores = held_out_scores(estimate, truth, held_out, np.ones_like(held_out), NAMES, np.array([0, 1]))
    assert (scores["cells"], scores["mae"]) == (3, 2.0)
    assert scores["rmse"] == pytest.approx((14 / 3) ** 0.5)
    assert scores["mre"] == pytest.approx(6 / 7)
    assert scores["by_variable"]["HR"]["mae"] == 2.0
    assert scores["by_missing_share"]["0"]["mae"] == 1.0
    assert scores["by_missing_share"]["1"]["mae"] == 2.5
    assert scores["correlation_error"] is None  # three cells are no distribution


def test_wasserstein_is_scipys_by_variable(record):
    """The distance of a variable is that of its held-out cells alone, the overall one their mean by cells."""
    truth, observed, held_out = record
    held_out = held_out & ((np.arange(200) < 150)[:, None, None] | np.array([True, False]))
    scores = held_out_scores(
        truth + np.array([0.5, 0.1], dtype=np.float32), truth, held_out, observed, NAMES, np.zeros(200, dtype=int)
    )
    first, second = held_out.sum(axis=(0, 1))
    assert first != second
    assert scores["wasserstein"] == pytest.approx((0.5 * first + 0.1 * second) / (first + second), abs=1e-6)
    shrunk = held_out_scores(0.1 * truth, truth, held_out, observed, NAMES, np.zeros(200, dtype=int))
    cells = held_out[..., 1]
    expected = wasserstein_distance(truth[..., 1][cells], 0.1 * truth[..., 1][cells])
    assert shrunk["by_variable"]["pH"]["wasserstein"] == pytest.approx(expected)


def test_correlation_error_is_that_of_the_hours_with_a_held_out_cell(record):
    """It equals what NumPy says of the hours in which both were observed and one at least is held out."""
    truth, observed, held_out = record
    estimate = np.random.default_rng(5).normal(size=truth.shape)
    filled = np.where(held_out, estimate, truth)
    hours = observed.all(axis=2) & held_out.any(axis=2)
    true, made = (np.corrcoef(each[hours].T)[0, 1] for each in (truth, filled))
    assert correlation_error(estimate, truth, held_out, observed) == pytest.approx(abs(made - true), abs=1e-9)
    assert correlation_error(truth, truth, held_out, observed) == pytest.approx(0, abs=1e-12)


def test_what_lies_under_unobserved_cells_has_no_effect(record):
    """Neither truth nor estimate counts where nothing was observed, NaN included."""
    truth, observed, held_out = record
    holed = np.where(observed, truth, np.nan)
    groups = np.zeros(200, dtype=int)
    assert held_out_scores(truth * 0.5, holed, held_out, observed, NAMES, groups) == held_out_scores(
        truth * 0.5, truth, held_out, observed, NAMES, groups
    )


def test_a_constant_estimate_has_no_correlation_and_no_nan(record):
    """A variable imputed by one number, wholly held out, has correlation 0 with the other; nothing is NaN."""
    truth, observed, _ = record
    held_out = observed & np.array([True, False])
    scores = held_out_scores(np.zeros_like(truth), truth, held_out, observed, NAMES, np.zeros(200, dtype=int))
    both = observed.all(axis=2)
    assert scores["correlation_error"] == pytest.approx(abs(np.corrcoef(truth[both].T)[0, 1]), abs=1e-6)
    assert np.isfinite([scores[name] for name in ("mae", "rmse", "mre", "wasserstein")]).all()


def test_rows_are_means_over_folds():
    """Means and sample deviations over folds; what a fold has not does not count."""
    folds = [
        [
            {"pattern": "hours", "share": 0.3, "mae": mae, "rmse": 1.0, "mre": 1.0, "wasserstein": 0.5}
            | {"correlation_error": correlation, "by_variable": variables, "by_missing_share": {"0": {"mae": mae}}}
        ]
        for mae, correlation, variables in ((1.0, None, {"HR": {"mae": 2.0}}), (3.0, 0.2, {}))
    ]
    [row] = pattern_scores(folds)
    assert (row.pattern, row.share, row.mean["mae"]) == ("hours", 0.3, 2.0)
    assert row.deviation["mae"] == pytest.approx(2**0.5)
    assert row.mean["correlation_error"] == 0.2
    assert (row.by_variable, row.by_missing_share) == ({"HR": {"mae": 2.0}}, {"0": {"mae": 2.0}})
