import pytest

from example_results import HEADS, imputer_comparison, matrix_row, matrix_rows, noisy_rows
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.variance import decompose
from imputune.protocol.outcome_words import DEATH
from imputune.reporting.matrix_tables import against_table, answer_sentence, matrix_table, variance_table


def answer(rows: list[VariantRow]) -> str:
    """Return the answer of a matrix."""
    return answer_sentence(imputer_comparison(rows))


@pytest.mark.parametrize(
    ("auc", "finding", "percent", "among_learned"),
    [
        (lambda i, c, f: 0.7 + 0.01 * c + 0.003 * f, "the classifier matters most", (63, 0, 3, 24, 10), (73, 0)),
        (lambda i, c, f: 0.7 + 0.006 * i + 0.002 * f, "the imputer matters most", (1, 67, 4, 15, 14), (3, 77)),
        (
            lambda i, c, f: 0.7 + 0.006 * (2 * c - 1) * (i - 1),
            "the interaction of both matters most",
            (1, 0, 86, 0, 13),
            (3, 0),
        ),
        (
            lambda i, c, f: 0.7 + 0.01 * c + 0.007 * i,
            "the imputer and the classifier matter about equally",
            (45, 47, 2, 0, 7),
            (42, 51),
        ),
        (
            lambda i, c, f: 0.7 + 0.003 * f,
            "neither the imputer nor the classifier has a significant effect",
            (1, 0, 7, 65, 26),
            (8, 0),
        ),
    ],
)
def test_the_answer_names_what_matters_and_every_share(auc, finding, percent, among_learned) -> None:
    """The percentages are those that the code gave when it was first written."""
    classifier, imputer, interaction, folds, residual = percent
    assert answer(noisy_rows(auc)) == (
        f"On set-a {finding}. Of the variance of test AUC over 3 imputers, 2 classifiers and their folds, the "
        f"classifier explains {classifier}%, the imputer {imputer}%, their interaction {interaction}% and the folds "
        f"{folds}%; {residual}% is unexplained. Among the 2 imputers that learn, the classifier explains "
        f"{among_learned[0]}% and the imputer {among_learned[1]}%."
    )


def test_the_larger_of_two_equal_factors_comes_first() -> None:
    """The classifier's effect is a little larger than the imputer's."""
    sentence = answer(noisy_rows(lambda i, c, f: 0.7 + 0.1 * c + 0.055 * i))
    assert sentence.startswith("On set-a the classifier and the imputer matter about equally. ")


@pytest.mark.parametrize(("step", "equal"), [(0.0505, False), (0.0507, True)])
def test_a_factor_dominates_from_one_and_a_half_times_the_next(step, equal) -> None:
    """The ratio of the effects is 1.508 and 1.496: just above the limit one factor dominates, just below none does."""
    rows = noisy_rows(lambda i, c, f: 0.7 + 0.1 * c + step * i)
    found = decompose(rows)
    assert found.head.effect / found.imputer.effect == pytest.approx(1.496 if equal else 1.508, abs=0.001)
    assert ("matter about equally" in answer(rows)) == equal
    assert ("the classifier matters most" in answer(rows)) != equal


def test_there_is_no_answer_without_a_complete_matrix() -> None:
    """No rows, one imputer, or one imputer beside a control."""
    nothing = "There is no answer yet: at least two imputers other than controls need the same two heads."
    rows = noisy_rows(lambda i, c, f: 0.7)
    control = [matrix_row("csai_untrained", head, [0.5] * 4) for head in HEADS]
    assert answer([]) == answer(rows[:2]) == answer([*rows[:2], *control]) == nothing


def test_imputers_that_learn_are_named_only_beside_plain_rules() -> None:
    """Without the training mean every imputer learns; with one that learns alone there is nothing to compare."""
    rows = noisy_rows(lambda i, c, f: 0.7 + 0.1 * c)
    assert "that learn" in answer(rows)
    assert "that learn" not in answer([row for row in rows if row.imputer != "mean"])
    assert "that learn" not in answer([row for row in rows if row.imputer != "saits"])


def test_controls_do_not_change_the_answer() -> None:
    """A control that fails with every classifier moves the shares of all imputers, not the answer."""
    rows = noisy_rows(lambda i, c, f: 0.7 + 0.1 * c)
    with_control = [*rows, *(matrix_row("csai_untrained", head, [0.5] * 4) for head in HEADS)]
    assert answer(with_control) == answer(rows)
    assert decompose(with_control).imputer.share > 0.1
    table = variance_table(imputer_comparison(with_control))
    assert [line[:2] for line in table.lines] == [
        ("all", "4 × 2"),
        ("without controls", "3 × 2"),
        ("those that learn", "2 × 2"),
    ]


def test_the_variance_table_by_value() -> None:
    """Shares in percent with p-values, and a line less for each part that equals the one before it."""
    rows = noisy_rows(lambda i, c, f: 0.7 + 0.1 * c)
    found = decompose(rows)
    table = variance_table(imputer_comparison(rows))
    assert table.title == "What explains the variance"
    assert table.header == (
        "imputers",
        "imputers × classifiers",
        "classifier (p)",
        "imputer (p)",
        "interaction (p)",
        "folds",
        "residual",
    )
    assert table.lines[0] == (
        "all",
        "3 × 2",
        f"{found.head.share:.1%} (< 0.001)",
        f"{found.imputer.share:.1%} ({found.imputer.p_value:.3f})",
        f"{found.interaction.share:.1%} ({found.interaction.p_value:.3f})",
        f"{found.folds:.1%}",
        f"{found.residual:.1%}",
    )
    assert [line[0] for line in table.lines] == ["all", "those that learn"]
    assert variance_table(imputer_comparison()) is None


def test_the_matrix_has_every_imputer_and_head() -> None:
    """A line for each imputer, empty where a head is missing, and the minutes of its classifiers added up."""
    rows = matrix_rows(lambda i, c, f: 0.7 + 0.1 * c + 0.01 * i + 0.002 * f)
    table = matrix_table(rows[:-1], DEATH)
    assert table.title == "Imputer × classifier: test AUC"
    assert table.header == ("imputer", "mlp2", "xgboost", "minutes")
    assert table.lines == (
        ("CSAI", "0.703 ± 0.003", "0.803 ± 0.003", "2"),
        ("mean", "0.713 ± 0.003", "0.813 ± 0.003", "2"),
        ("SAITS", "0.723 ± 0.003", "", "1"),
    )


def test_csai_is_compared_with_each_other_imputer() -> None:
    """A steady difference is ahead or behind; one that changes sign from fold to fold is undecided."""
    steady = against_table(matrix_rows(lambda i, c, f: 0.8 - 0.05 * i + 0.0002 * f * i), 1 / 3)
    assert steady.header == ("CSAI against", "heads", "difference in test AUC", "p", "verdict at 0.05")
    assert steady.lines == (
        ("mean", "2", "+0.0497", "< 0.001", "CSAI is ahead"),
        ("SAITS", "2", "+0.0994", "< 0.001", "CSAI is ahead"),
    )
    behind = against_table(matrix_rows(lambda i, c, f: 0.8 + 0.05 * i + 0.0002 * f * i), 1 / 3)
    assert [line[2::2] for line in behind.lines] == [("−0.0503", "CSAI is behind"), ("−0.1006", "CSAI is behind")]
    changing = against_table(matrix_rows(lambda i, c, f: 0.8 + 0.001 * i + 0.05 * i * (-1) ** f), 1 / 3)
    assert [line[2:] for line in changing.lines] == [
        ("−0.0010", "1.000", "undecided"),
        ("−0.0020", "1.000", "undecided"),
    ]


def test_only_shared_heads_are_compared() -> None:
    """An imputer without the second head is compared over the first; without CSAI or a shared head, nothing is."""
    rows = matrix_rows(lambda i, c, f: 0.8 - 0.05 * i + 0.1 * c * i + 0.0002 * f * i)
    assert [line[:3] for line in against_table(rows[:-1], 1 / 3).lines] == [
        ("mean", "2", "−0.0003"),
        ("SAITS", "1", "+0.0994"),
    ]
    assert against_table(rows[2:], 1 / 3) is None
    assert against_table([rows[0], rows[3]], 1 / 3) is None
    assert against_table([], 1 / 3) is None


def test_p_values_are_adjusted_for_their_number() -> None:
    """The difference to the mean has p = 0.033 alone, and twice that beside a second comparison."""
    aucs = {"csai": [0.81, 0.83, 0.82, 0.84], "mean": [0.80, 0.805, 0.81, 0.805], "saits": [0.81, 0.83, 0.82, 0.84]}
    rows = [matrix_row(imputer, "mlp2", each) for imputer, each in aucs.items()]
    [alone] = against_table(rows[:2], 1 / 3).lines
    first, second = against_table(rows, 1 / 3).lines
    assert float(first[3]) == pytest.approx(2 * float(alone[3]), abs=0.0011)
    assert second[2:] == ("+0.0000", "1.000", "undecided")
