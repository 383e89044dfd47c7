from itertools import product

import numpy as np
import pytest
from scipy import stats

from imputune.evaluation.rows import SCORES, Row, make_row
from imputune.evaluation.significance import holm
from imputune.evaluation.variance import decompose
from imputune.reporting.matrix_tables import (
    answer,
    decomposition_table,
    matrix_table,
    paired_tests_table,
)

IMPUTERS, HEADS = ("csai", "mean", "saits"), ("mlp2", "xgboost")


def row_of(imputer: str, head: str, aucs: list[float]) -> Row:
    """Return a row of the matrix with these test AUCs by fold."""
    folds = [dict.fromkeys(SCORES, auc) | {"fold": fold} for fold, auc in enumerate(aucs)]
    cell = {"head": head, "mode": "frozen", "input": "imputed", "schedule": "none", "imputer": imputer}
    return make_row("synthetic", cell, dict.fromkeys(("num_parameters", "trainable_parameters")), 60, folds, "run", "")


def rows_of(auc) -> list[Row]:
    """Return a row for every imputer and head, `auc(i, c, f)` its test AUC in fold f."""
    return [
        row_of(imputer, head, [auc(i, c, f) for f in range(4)])
        for (i, imputer), (c, head) in product(enumerate(IMPUTERS), enumerate(HEADS))
    ]


@pytest.mark.parametrize(
    ("auc", "part"),
    [
        (lambda i, c, f: 0.7 + 0.1 * c, "head"),
        (lambda i, c, f: 0.7 + 0.05 * i, "imputer"),
        (lambda i, c, f: 0.7 + 0.05 * (2 * c - 1) * (i - 1), "interaction"),
        (lambda i, c, f: 0.7 + 0.03 * f, "folds"),
    ],
)
def test_a_single_cause_takes_all_of_the_variance(auc, part):
    """What varies for one reason alone is that reason's."""
    found = decompose(rows_of(auc))
    assert getattr(found, part) == pytest.approx(1)
    assert (found.imputer_p, found.head_p, found.interaction_p) == (1, 1, 1)  # nothing to test against


def test_shares_add_up_and_are_those_of_the_sums_of_squares():
    """Against group means by another way: each share is a part's sum of squares over the total."""
    random = np.random.default_rng(3)
    auc = random.uniform(0.6, 0.9, (3, 2, 4))
    found = decompose(rows_of(lambda i, c, f: auc[i, c, f]))
    parts = (found.imputer, found.head, found.interaction, found.folds, found.rest)
    total = ((auc - auc.mean()) ** 2).sum()
    assert sum(parts) == pytest.approx(1)
    assert found.imputer == pytest.approx(8 * auc.mean(axis=(1, 2)).var() * 3 / total)
    cells = ((auc.mean(axis=2) - auc.mean()) ** 2).sum() * 4 / total
    assert found.interaction == pytest.approx(cells - found.imputer - found.head)


def test_p_values_are_those_of_nested_linear_models():
    """The interaction's against least squares with and without it, whose ranks give the degrees of freedom."""
    auc = np.random.default_rng(3).uniform(0.6, 0.9, (3, 2, 4))
    imputer, head, fold = np.eye(3), np.eye(2), np.eye(4)
    cells = [(imputer[i], head[c], fold[f]) for i, c, f in np.ndindex(auc.shape)]
    additive = np.array([np.concatenate(cell) for cell in cells])
    whole = np.hstack([additive, [np.outer(i, c).ravel() for i, c, _ in cells]])
    left = [((auc.ravel() - model @ np.linalg.lstsq(model, auc.ravel())[0]) ** 2).sum() for model in (additive, whole)]
    ranks = [np.linalg.matrix_rank(model) for model in (additive, whole)]
    causes, degrees = ranks[1] - ranks[0], auc.size - ranks[1]
    expected = stats.f.sf((left[0] - left[1]) / causes / (left[1] / degrees), causes, degrees)
    assert decompose(rows_of(lambda i, c, f: auc[i, c, f])).interaction_p == pytest.approx(expected)


def test_an_imputer_without_every_head_does_not_count():
    """The decomposition is of a full matrix: what is incomplete is left out, and too little gives none."""
    rows = rows_of(lambda i, c, f: 0.7 + 0.1 * c)
    assert decompose(rows[:-1]).imputers == ("csai", "mean")
    assert decompose(rows[:2]) is None
    assert decompose([row for row in rows if row.head == "mlp2"]) is None


def test_what_csai_alone_has_does_not_keep_the_others_out():
    """A head that one imputer alone has, CSAI or another, does not count; the rest is compared."""
    for alone in ("csai", "mean"):
        rows = [*rows_of(lambda i, c, f: 0.7 + 0.1 * c), row_of(alone, "svm", [0.7] * 4)]
        assert decompose(rows).heads == HEADS
        assert len(decompose(rows).imputers) == 3


def test_many_combinations_do_not_outweigh_few_by_chance():
    """Of noise alone the interaction and the imputer take a share, and have no effect."""
    random = np.random.default_rng(4)
    found = []
    for _ in range(200):
        auc = random.normal(0.7, 0.01, (3, 2, 4))
        found.append(decompose(rows_of(lambda i, c, f: auc[i, c, f])))  # noqa: B023
    assert np.mean([each.interaction for each in found]) > 0.05
    assert np.mean([each.interaction_effect for each in found]) == pytest.approx(0, abs=0.02)
    assert np.mean([each.imputer_effect for each in found]) == pytest.approx(0, abs=0.02)


def noisy(auc):
    """Return AUCs with a little noise, the same each time, so that there is a rest to test against."""
    noise = np.random.default_rng(1).normal(0, 0.004, (3, 2, 4))
    return rows_of(lambda i, c, f: auc(i, c, f) + noise[i, c, f])


def test_the_answer_is_one_sentence_that_names_the_largest_part():
    """It says what weighs most, or what weighs about the same, or that nothing stands out, or that it is too early."""
    head = answer("set-a", noisy(lambda i, c, f: 0.7 + 0.1 * c))
    assert head.startswith("On set-a the classifier weighs most: ")
    assert "3 imputers, 2 classifiers" in head
    assert "; among the 2 imputers that learn, the classifier's part is " in head
    assert "among" not in answer("set-a", [row for row in noisy(lambda i, c, f: 0.7) if row.imputer != "mean"])
    imputer = answer("set-a", noisy(lambda i, c, f: 0.7 + 0.05 * i))
    assert imputer.startswith("On set-a the imputer weighs most: ")
    both = answer("set-a", noisy(lambda i, c, f: 0.7 + 0.1 * c + 0.06 * i))
    assert "weigh about the same" in both
    nothing = answer("set-a", noisy(lambda i, c, f: 0.7 + 0.03 * f))
    assert "neither imputer nor classifier stands out" in nothing
    assert all(sentence.count(". ") == 0 for sentence in (head, imputer, both, nothing))
    assert "no answer yet" in answer("set-a", [])


def test_controls_stand_aside_in_the_answer():
    """A control that fails everywhere moves the division of all, not the answer."""
    rows = [*noisy(lambda i, c, f: 0.7 + 0.1 * c), *(row_of("csai_untrained", head, [0.5] * 4) for head in HEADS)]
    assert answer("set-a", rows) == answer("set-a", rows[:-2])
    assert decompose(rows).imputer > 0.1
    assert [line[:2] for line in decomposition_table(rows).lines] == [
        ("all", "4 × 2"),
        ("controls aside", "3 × 2"),
        ("those that learn", "2 × 2"),
    ]


def test_tables_hold_every_imputer_and_head():
    """The matrix has a line for an imputer and a gap where a head is missing."""
    rows = rows_of(lambda i, c, f: 0.7 + 0.1 * c + 0.01 * i + 0.001 * f)
    table = matrix_table(rows[:-1])
    assert table.header == ("imputer", "mlp2", "xgboost", "minutes")
    assert table.lines[0][:2] == ("CSAI", "0.702 ± 0.001")
    assert table.lines[2][2] == ""
    assert [line[0] for line in decomposition_table(rows).lines] == ["all", "those that learn"]
    assert decomposition_table([]) is None


def test_csai_is_held_against_each_other_imputer():
    """The differences are CSAI's over the heads, by fold; a steady one is told from one that wavers."""
    steady = rows_of(lambda i, c, f: 0.8 - 0.05 * i + 0.0001 * f * i)
    assert [line[-1] for line in paired_tests_table(steady, 1 / 3).lines] == ["CSAI is ahead", "CSAI is ahead"]
    wavering = rows_of(lambda i, c, f: 0.8 + 0.05 * i * (-1) ** f)
    assert {line[-1] for line in paired_tests_table(wavering, 1 / 3).lines} == {"undecided"}
    assert paired_tests_table(steady[2:], 1 / 3) is None


def test_holm_by_hand():
    """The smallest of three is taken three times, the next twice, none above one or below one before it."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
