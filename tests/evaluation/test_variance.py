import numpy as np
import pytest
from scipy import stats

from example_results import HEADS, matrix_row, matrix_rows
from imputune.evaluation.variance import Decomposition, decompose

RECORDED = {
    "imputer": (0.09164923922800712, 0.004947695798770093, 0.3719828575999023),
    "head": (0.00015575789824613746, -0.04319501381637238, 0.952993657405878),
    "interaction": (0.09329080668787253, 0.006589263258635495, 0.3658675730615855),
}
"""Share, effect and p-value of the random AUCs below, from the code as it was first written."""


def random_aucs() -> np.ndarray:
    """Return AUCs of three imputers, two heads and four folds."""
    return np.random.default_rng(3).uniform(0.6, 0.9, (3, 2, 4))


def decomposed(auc_ICF: np.ndarray) -> Decomposition:
    """Return the decomposition of some AUCs."""
    return decompose(matrix_rows(lambda i, c, f: auc_ICF[i, c, f]))


@pytest.mark.parametrize(
    ("auc", "factor"),
    [
        (lambda i, c, f: 0.7 + 0.1 * c, "head"),
        (lambda i, c, f: 0.7 + 0.05 * i, "imputer"),
        (lambda i, c, f: 0.7 + 0.05 * (2 * c - 1) * (i - 1), "interaction"),
    ],
)
def test_a_single_factor_explains_all_of_the_variance(auc, factor) -> None:
    """If AUC depends on one factor alone, its share and effect are 1; without a residual p is 1."""
    found = decompose(matrix_rows(auc))
    part = getattr(found, factor)
    assert (part.share, part.effect) == (pytest.approx(1), pytest.approx(1))
    assert {found.imputer.p_value, found.head.p_value, found.interaction.p_value} == {1.0}


def test_differences_between_folds_are_the_folds() -> None:
    """If AUC depends on the fold alone, the folds have all of the variance."""
    found = decompose(matrix_rows(lambda i, c, f: 0.7 + 0.03 * f))
    assert (found.folds, found.residual) == (pytest.approx(1), pytest.approx(0))


def test_equal_aucs_have_no_variance() -> None:
    """Nothing is divided by 0: all shares are 0."""
    found = decompose(matrix_rows(lambda i, c, f: 0.75))
    shares = (found.imputer.share, found.head.share, found.interaction.share, found.folds, found.residual)
    assert shares == (0, 0, 0, 0, 0)


def test_shares_add_up_and_are_those_of_the_sums_of_squares() -> None:
    """Against group means by another way: each share is a factor's sum of squares over the total."""
    auc = random_aucs()
    found = decomposed(auc)
    shares = (found.imputer.share, found.head.share, found.interaction.share, found.folds, found.residual)
    total = ((auc - auc.mean()) ** 2).sum()
    assert sum(shares) == pytest.approx(1)
    assert found.imputer.share == pytest.approx(8 * auc.mean(axis=(1, 2)).var() * 3 / total)
    combinations = ((auc.mean(axis=2) - auc.mean()) ** 2).sum() * 4 / total
    assert found.interaction.share == pytest.approx(combinations - found.imputer.share - found.head.share)


def test_an_effect_is_the_share_less_what_chance_gives() -> None:
    """Of 15 degrees of freedom of the residual, the imputer has 2, the head 1 and the interaction 2."""
    found = decomposed(random_aucs())
    for part, degrees in ((found.imputer, 2), (found.head, 1), (found.interaction, 2)):
        assert part.effect == pytest.approx(part.share - degrees * found.residual / 15)


def test_p_values_are_those_of_nested_linear_models() -> None:
    """The interaction's against least squares with and without it, whose ranks give the degrees of freedom."""
    auc = random_aucs()
    imputer, head, fold = np.eye(3), np.eye(2), np.eye(4)
    rows = [(imputer[i], head[c], fold[f]) for i, c, f in np.ndindex(auc.shape)]
    additive = np.array([np.concatenate(row) for row in rows])
    whole = np.hstack([additive, [np.outer(i, c).ravel() for i, c, _ in rows]])
    left = [((auc.ravel() - model @ np.linalg.lstsq(model, auc.ravel())[0]) ** 2).sum() for model in (additive, whole)]
    ranks = [np.linalg.matrix_rank(model) for model in (additive, whole)]
    degrees, residual_degrees = ranks[1] - ranks[0], auc.size - ranks[1]
    expected = stats.f.sf((left[0] - left[1]) / degrees / (left[1] / residual_degrees), degrees, residual_degrees)
    assert decomposed(auc).interaction.p_value == pytest.approx(expected)


def test_the_decomposition_is_the_one_recorded() -> None:
    """Random AUCs give the shares, effects and p-values that were recorded."""
    found = decomposed(random_aucs())
    for factor, numbers in RECORDED.items():
        part = getattr(found, factor)
        assert (part.share, part.effect, part.p_value) == pytest.approx(numbers, rel=1e-9)
    assert (found.folds, found.residual) == pytest.approx((0.16464262046659653, 0.6502615757192777), rel=1e-12)


def test_an_imputer_without_every_head_does_not_count() -> None:
    """Incomplete imputers are dropped; without two imputers or two heads there is no decomposition."""
    rows = matrix_rows(lambda i, c, f: 0.7 + 0.1 * c)
    assert decompose(rows[:-1]).imputers == ("csai", "mean")
    assert decompose(rows[:2]) is None
    assert decompose([row for row in rows if row.head == "mlp2"]) is None
    assert decompose([]) is None


@pytest.mark.parametrize("alone", ["csai", "mean"])
def test_a_head_that_one_imputer_alone_has_is_dropped(alone) -> None:
    """A head that one imputer alone has, CSAI or another, does not count; all imputers are compared."""
    rows = [*matrix_rows(lambda i, c, f: 0.7 + 0.1 * c), matrix_row(alone, "svm", [0.7] * 4)]
    assert decompose(rows).heads == HEADS
    assert len(decompose(rows).imputers) == 3


def test_noise_alone_has_no_effect() -> None:
    """Noise gives the interaction and the imputer a share, which grows with their degrees of freedom, but no effect."""
    random = np.random.default_rng(4)
    found = [decomposed(random.normal(0.7, 0.01, (3, 2, 4))) for _ in range(200)]
    assert np.mean([each.interaction.share for each in found]) > 0.05
    assert np.mean([each.interaction.effect for each in found]) == pytest.approx(0, abs=0.02)
    assert np.mean([each.imputer.effect for each in found]) == pytest.approx(0, abs=0.02)


def test_one_split_has_no_analysis() -> None:
    """With one fold nothing tells the interaction from chance."""
    rows = [matrix_row(imputer, head, [0.8]) for imputer in ("csai", "mean") for head in HEADS]
    assert decompose(rows) is None
