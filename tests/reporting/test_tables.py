import pytest

from imputune.evaluation.rows import Spread
from imputune.reporting.tables import (
    Table,
    auc_text,
    difference_from,
    difference_text,
    minutes_text,
    p_text,
    spread_text,
)


def test_markdown_has_title_lines_and_remark() -> None:
    """The title is a heading, the lines a table, the remark a paragraph; without a remark there is none."""
    table = Table(title="Scores", header=("head", "AUC"), lines=(("mlp2", "0.8"), ("gru", "")), remark="By fold.")
    lines = ["## Scores", "", "| head | AUC |", "| --- | --- |", "| mlp2 | 0.8 |", "| gru |  |"]
    assert table.to_markdown() == "\n".join([*lines, "", "By fold."])
    bare = Table(title="Scores", header=("head", "AUC"), lines=(("mlp2", "0.8"), ("gru", "")))
    assert bare.to_markdown() == "\n".join(lines)


def test_latex_is_escaped_and_has_rules() -> None:
    """Characters with a meaning in LaTeX are escaped, ± and − become mathematics, booktabs rules frame the header."""
    table = Table(
        title="A & B", header=("head_x", "AUC"), lines=(("5 %", "0.8 ± 0.1"), ("−", "1")), remark="50 % of it"
    )
    assert table.to_latex().splitlines() == [
        r"\begin{table}[htbp]",
        r"\centering",
        r"\caption{A \& B. 50 \% of it}",
        r"\begin{tabular}{ll}",
        r"\toprule",
        r"head\_x & AUC \\",
        r"\midrule",
        r"5 \% & 0.8 $\pm$ 0.1 \\",
        r"$-$ & 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_latex_without_a_remark_has_the_title_as_caption() -> None:
    """The caption ends with the title's full stop."""
    table = Table(title="Scores", header=("head",), lines=(("mlp2",),))
    assert r"\caption{Scores.}" in table.to_latex()


def test_numbers_as_text() -> None:
    """Three decimal places, a real minus sign, minutes without decimals, thousands with a comma."""
    assert spread_text(0.81234, 0.0146) == "0.812 ± 0.015"
    assert (auc_text(0.8125), auc_text(0), auc_text(None)) == ("0.812", "0.000", "")
    assert (difference_text(0.0123, 4), difference_text(-0.0123, 3)) == ("+0.0123", "−0.012")
    assert minutes_text(90_030) == "1,500"


@pytest.mark.parametrize(
    ("p_value", "text"), [(0.0009999, "< 0.001"), (0.001, "0.001"), (0.05, "0.050"), (1.0, "1.000")]
)
def test_small_p_values_are_written_as_below(p_value, text) -> None:
    """Below 0.001 the number itself is not written."""
    assert p_text(p_value) == text


def test_a_difference_needs_both_numbers() -> None:
    """Ours minus the paper's; "" if either is missing."""
    ours = Spread(0.62, 0.01)
    assert difference_from(ours, 0.69) == "−0.070"
    assert (difference_from(None, 0.69), difference_from(ours, None)) == ("", "")
