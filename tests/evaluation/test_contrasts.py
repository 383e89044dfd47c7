import pytest

from example_results import matrix_row, matrix_rows, ranked_imputer
from imputune.evaluation.contrasts import auc_contrasts, error_contrast
from imputune.evaluation.significance import corrected_t_test, holm

TEST_TO_TRAIN = 1 / 3


def test_csai_against_each_other_imputer_by_hand() -> None:
    """Differences of 0.01, 0.025, 0.01 and 0.035 by fold; the other imputer equals CSAI."""
    aucs = {"csai": [0.81, 0.83, 0.82, 0.84], "mean": [0.80, 0.805, 0.81, 0.805], "saits": [0.81, 0.83, 0.82, 0.84]}
    rows = [matrix_row(imputer, "mlp2", each) for imputer, each in aucs.items()]
    mean, saits = auc_contrasts(rows, TEST_TO_TRAIN)
    alone = corrected_t_test([0.01, 0.025, 0.01, 0.035], TEST_TO_TRAIN)
    assert (mean.imputer, mean.heads, mean.difference) == ("mean", 1, pytest.approx(0.02))
    assert [mean.p_value, saits.p_value] == pytest.approx(holm([alone, 1.0]))
    assert (saits.imputer, saits.difference) == ("saits", 0)


def test_differences_are_means_over_the_shared_heads() -> None:
    """CSAI and the mean share two heads, CSAI and SAITS one; without CSAI there is nothing to compare."""
    rows = matrix_rows(lambda i, c, f: 0.8 - 0.05 * i + 0.1 * c * i + 0.0002 * f * i)[:-1]
    mean, saits = auc_contrasts(rows, TEST_TO_TRAIN)
    assert (mean.heads, mean.difference) == (2, pytest.approx(-0.0003))
    assert (saits.heads, saits.difference) == (1, pytest.approx(0.0994))
    assert auc_contrasts(rows[2:], TEST_TO_TRAIN) == auc_contrasts([], TEST_TO_TRAIN) == []


def test_csai_is_compared_with_the_best_of_the_others() -> None:
    """SAITS is better than linear interpolation, wherever it stands."""
    csai = ranked_imputer("csai", 0.24, 0.25, 0.26)
    others = [ranked_imputer("linear", 0.36, 0.375, 0.39), ranked_imputer("saits", 0.2, 0.21, 0.25)]
    found = error_contrast([csai, *others], TEST_TO_TRAIN)
    assert (found.imputer, found.our_mae, found.their_mae) == ("saits", pytest.approx(0.25), pytest.approx(0.22))
    assert found.p_value == pytest.approx(corrected_t_test([0.04, 0.04, 0.01], TEST_TO_TRAIN))
    assert error_contrast([csai], TEST_TO_TRAIN) is None
    assert error_contrast(others, TEST_TO_TRAIN) is None


def test_one_split_has_differences_without_p_values() -> None:
    """Of a single split there is the difference alone."""
    rows = [matrix_row(imputer, "mlp2", [auc]) for imputer, auc in (("csai", 0.81), ("mean", 0.79))]
    [mean] = auc_contrasts(rows, TEST_TO_TRAIN)
    assert (mean.difference, mean.p_value) == (pytest.approx(0.02), None)
    found = error_contrast([ranked_imputer("csai", 0.24), ranked_imputer("linear", 0.36)], TEST_TO_TRAIN)
    assert (found.their_mae - found.our_mae, found.p_value) == (pytest.approx(0.12), None)
