import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from imputune.evaluation.assessment import AssessedFold
from imputune.evaluation.correlation import correlation_error
from imputune.evaluation.held_out import HeldOutCells, held_out_scores
from imputune.evaluation.imputation import CellErrors, cell_errors

NAMES = ("HR", "pH")
GROUPS = np.zeros(200, dtype=int)


@pytest.fixture
def record() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """200 stays of 4 hours and two variables that go together: values, observed, held out."""
    random = np.random.default_rng(4)
    common = random.normal(size=(200, 4, 1))
    truth = (common + 0.3 * random.normal(size=(200, 4, 2))).astype(np.float32)
    observed = random.random(truth.shape) < 0.8
    return truth, observed, observed & (random.random(truth.shape) < 0.4)


def cells(estimate: np.ndarray, truth: np.ndarray, held_out: np.ndarray, observed: np.ndarray) -> HeldOutCells:
    """Return the arrays under their names."""
    return HeldOutCells(estimate_NTD=estimate, truth_NTD=truth, held_out_NTD=held_out, observed_NTD=observed)


def test_cell_errors_by_hand() -> None:
    """Errors 1 and 0.5 on HR, 3 on pH: mean 1.5, relative 4.5 / 9; a variable without held-out cells is left out."""
    truth_NTD = np.array([[[2.0, -4.0, 9.0], [3.0, 0.0, 9.0]]], dtype=np.float32)
    estimate_NTD = np.array([[[1.0, -1.0, 0.0], [3.5, 8.0, 0.0]]], dtype=np.float32)
    held_out_NTD = np.array([[[1, 1, 0], [1, 0, 0]]])
    overall, by_variable = cell_errors([(estimate_NTD, truth_NTD, held_out_NTD)], ("HR", "pH", "Temp"))
    assert overall == CellErrors(cells=3, mae=1.5, rmse=float(np.sqrt(10.25 / 3)), mre=0.5)
    assert list(by_variable) == ["HR", "pH"]
    assert by_variable["HR"] == CellErrors(cells=2, mae=0.75, rmse=float(np.sqrt(0.625)), mre=1.5 / 5)
    assert by_variable["pH"] == CellErrors(cells=1, mae=3.0, rmse=3.0, mre=0.75)


def test_cells_not_held_out_do_not_count() -> None:
    """NaN or any number outside the held-out cells changes no error, and the mask may be boolean or 0/1."""
    random = np.random.default_rng(0)
    truth, estimate = random.normal(size=(2, 4, 5, 3))
    held_out = random.random(truth.shape) < 0.3
    expected = cell_errors([(estimate, truth, held_out)], "abc")
    spoilt = (np.where(held_out, array, junk) for array, junk in ((estimate, np.nan), (truth, 1e9)))
    assert cell_errors([(*spoilt, held_out.astype(np.float32))], "abc") == expected


def test_errors_of_batches_are_the_errors_of_all_stays() -> None:
    """Bit for bit, whatever the batches; a batch may have no held-out cell."""
    random = np.random.default_rng(0)
    truth, estimate = random.normal(size=(2, 50, 5, 3)).astype(np.float32)
    held_out = random.random(truth.shape) < 0.3
    held_out[:7] = False
    whole = cell_errors([(estimate, truth, held_out)], "abc")
    parts = [(estimate[some], truth[some], held_out[some]) for some in (slice(7), slice(7, 30), slice(30, None))]
    assert cell_errors(iter(parts), "abc") == whole


def test_nothing_held_out_gives_0() -> None:
    """Without held-out cells all errors are 0, not NaN, and no variable has any."""
    nothing = cell_errors([(np.ones((1, 2, 1)), np.zeros((1, 2, 1)), np.zeros((1, 2, 1)))], ("HR",))
    assert nothing == (CellErrors(cells=0, mae=0.0, rmse=0.0, mre=0.0), {})


def test_held_out_scores_by_hand() -> None:
    """Errors 1 and 3 on HR, 2 on pH; the second group of stays has the last two."""
    truth = np.array([[[1.0, 5.0]], [[4.0, 2.0]]], dtype=np.float32)
    estimate = np.array([[[2.0, 9.0]], [[1.0, 4.0]]], dtype=np.float32)
    held_out = np.array([[[True, False]], [[True, True]]])
    found = cells(estimate, truth, held_out, np.ones_like(held_out))
    scores = held_out_scores(found, NAMES, np.array([0, 1]), "hours", 0.3)
    assert (scores.pattern, scores.rate) == ("hours", 0.3)
    assert (scores.cells, scores.mae) == (3, 2.0)
    assert scores.rmse == pytest.approx((14 / 3) ** 0.5)
    assert scores.mre == pytest.approx(6 / 7)
    assert scores.by_variable["HR"].mae == 2.0
    assert scores.by_variable["HR"].wasserstein == 1.0  # 1 and 4 against 2 and 1: sorted, 0 and 2 apart
    assert scores.by_variable["pH"].wasserstein == 2.0
    assert scores.wasserstein == pytest.approx((1.0 * 2 + 2.0 * 1) / 3)
    assert (scores.by_missing_share["0"].cells, scores.by_missing_share["0"].mae) == (1, 1.0)
    assert (scores.by_missing_share["1"].cells, scores.by_missing_share["1"].mae) == (2, 2.5)
    assert scores.correlation_error is None  # three cells are no distribution


def test_a_group_without_held_out_cells_is_left_out() -> None:
    """Of groups 0 and 2, the second has nothing held out."""
    ones = np.ones((2, 1, 1))
    held_out = np.array([[[True]], [[False]]])
    scores = held_out_scores(cells(ones, 2 * ones, held_out, ones > 0), ("HR",), np.array([0, 2]), "uniform", 0.1)
    assert list(scores.by_missing_share) == ["0"]


def test_wasserstein_is_scipys_by_variable(record) -> None:
    """The distance of a variable is that of its held-out cells alone, the overall one their mean by cells."""
    truth, observed, held_out = record
    held_out = held_out & ((np.arange(200) < 150)[:, None, None] | np.array([True, False]))
    shifted = cells(truth + np.array([0.5, 0.1], dtype=np.float32), truth, held_out, observed)
    scores = held_out_scores(shifted, NAMES, GROUPS, "uniform", 0.3)
    first, second = held_out.sum(axis=(0, 1))
    assert first != second
    assert scores.wasserstein == pytest.approx((0.5 * first + 0.1 * second) / (first + second), abs=1e-6)
    shrunk = held_out_scores(cells(0.1 * truth, truth, held_out, observed), NAMES, GROUPS, "uniform", 0.3)
    held = held_out[..., 1]
    expected = wasserstein_distance(truth[..., 1][held], 0.1 * truth[..., 1][held])
    assert shrunk.by_variable["pH"].wasserstein == pytest.approx(expected)


def test_what_lies_under_unobserved_cells_has_no_effect(record) -> None:
    """Neither truth nor estimate counts where nothing was observed, NaN included."""
    truth, observed, held_out = record
    missing = np.where(observed, truth, np.nan)
    with_nan, without = (
        held_out_scores(cells(truth * 0.5, values, held_out, observed), NAMES, GROUPS, "uniform", 0.3)
        for values in (missing, truth)
    )
    assert with_nan == without


def test_a_constant_estimate_has_no_correlation_and_no_nan(record) -> None:
    """A variable imputed by one number, wholly held out, has correlation 0 with the other; nothing is NaN."""
    truth, observed, _ = record
    held_out = observed & np.array([True, False])
    scores = held_out_scores(cells(np.zeros_like(truth), truth, held_out, observed), NAMES, GROUPS, "uniform", 0.3)
    both = observed.all(axis=2)
    assert scores.correlation_error == pytest.approx(abs(np.corrcoef(truth[both].T)[0, 1]), abs=1e-6)
    assert np.isfinite([scores.mae, scores.rmse, scores.mre, scores.wasserstein]).all()


def test_scores_keep_the_correlation_error_of_their_cells(record) -> None:
    """It is what `correlation_error` returns for the same arrays."""
    truth, observed, held_out = record
    scores = held_out_scores(cells(truth * 0.5, truth, held_out, observed), NAMES, GROUPS, "uniform", 0.3)
    assert scores.correlation_error == correlation_error(truth * 0.5, truth, held_out, observed)


def test_a_recorder_gets_errors_by_pattern_and_rate(record) -> None:
    """The names hold the rate in percent; time and the influence of the batch stand beside them."""
    truth, observed, held_out = record
    found = cells(truth + 1, truth, held_out, observed)
    scores = tuple(held_out_scores(found, NAMES, GROUPS, pattern, 0.3) for pattern in ("uniform", "hours"))
    fold = AssessedFold(fold=0, seconds=2.5, batch_difference=0.25, scores=scores, example=[])
    assert fold.final_metrics == {
        "mae_uniform_30": pytest.approx(1, abs=1e-6),
        "mae_hours_30": pytest.approx(1, abs=1e-6),
        "seconds_per_1000_stays": 2.5,
        "batch_difference": 0.25,
    }


def test_scores_survive_json() -> None:
    """An assessed fold read back from its JSON is equal."""
    ones = np.ones((1, 1, 1))
    scores = held_out_scores(cells(ones, 2 * ones, ones > 0, ones > 0), ("HR",), np.array([0]), "blocks", 0.5)
    fold = AssessedFold(fold=3, seconds=1.0, batch_difference=0.0, scores=(scores,), example=[[1.0, 2.0]])
    assert AssessedFold.model_validate_json(fold.model_dump_json()) == fold
