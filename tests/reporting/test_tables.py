import pytest

from imputune.evaluation.rows import schedule_average
from imputune.protocol.published import AVERAGE, SCHEDULES, quoted
from imputune.reporting.tables import (
    Table,
    non_neural_table,
    protocol_table,
    summary_table,
    time_table,
)

AUCS = {"optuna": [0.80, 0.82], "cyclic": [0.83, 0.85], "plateau": [0.86, 0.88]}


def frozen_mlp2(row_of):
    """Return mlp2 under the three schedules, two folds each."""
    return [row_of(f"mlp2-frozen-hidden-{schedule}", aucs) for schedule, aucs in AUCS.items()]


def test_protocol_table_has_ours_the_papers_and_the_difference(row_of) -> None:
    """By hand: ours is mean and deviation over folds, the average is fold by fold over schedules, then the paper's."""
    table = protocol_table("physionet2012", "frozen", frozen_mlp2(row_of))
    ours, paper, difference = (dict(zip(table.header, line, strict=True)) for line in table.lines)
    assert table.title == "Table II: frozen imputer, AUC by schedule"
    assert ours["model"] == "mlp2, hidden"
    assert (ours["optuna val"], ours["optuna test"]) == ("0.820 ± 0.014", "0.810 ± 0.014")
    assert (ours["average val"], ours["average test"]) == ("0.850 ± 0.014", "0.840 ± 0.014")
    assert (paper["optuna val"], paper["cyclic test"], paper["average test"]) == ("0.783", "0.782", "0.779")
    assert (difference["optuna val"], difference["average test"]) == ("+0.037", "+0.061")


def test_schedules_that_were_not_run_stay_empty(row_of) -> None:
    """Without all three schedules there is no average, and no difference to the paper's."""
    [ours, _, difference] = protocol_table("physionet2012", "frozen", frozen_mlp2(row_of)[1:]).lines
    assert ours[2:4] == ("", "")
    assert ours[-2:] == ("", "")
    assert difference[-2:] == ("", "")


def test_of_table_iii_only_averages_are_known(row_of) -> None:
    """Unfrozen, the paper's line has its average alone, and nothing where its text has nothing."""
    rows = [row_of(f"lstm-unfrozen-raw-{schedule}", aucs) for schedule, aucs in AUCS.items()]
    _, paper, difference = protocol_table("physionet2012", "unfrozen", rows).lines
    assert paper[2:] == ("", "", "", "", "", "", "0.813", "")
    assert difference[-2:] == ("+0.037", "")


def test_other_datasets_have_no_lines_of_the_paper(row_of) -> None:
    """Of generated records the paper says nothing; a mode without variants makes no table."""
    rows = [row_of("gru-frozen-raw-plateau", [0.8, 0.9], "synthetic")]
    assert [line[1] for line in protocol_table("synthetic", "frozen", rows).lines] == ["ours"]
    assert protocol_table("synthetic", "unfrozen", rows) is None


def test_below_the_paper_shows_a_minus(row_of) -> None:
    """A shallow head under the paper's figure is said to be so; statistics as input have no figure."""
    rows = [row_of("xgboost-frozen-hidden-none", [0.5, 0.6]), row_of("xgboost-frozen-summary-none", [0.8, 0.8])]
    lines = non_neural_table(rows).lines
    assert lines[0][-2:] == ("0.620", "−0.070")
    assert lines[1][-2:] == ("", "")
    assert non_neural_table(frozen_mlp2(row_of)) is None


def test_average_over_schedules_needs_all_three(row_of) -> None:
    """Averaged fold by fold: 0.83 and 0.85; None while one is missing."""
    rows = frozen_mlp2(row_of)
    assert schedule_average(rows, "test_auc") == (pytest.approx(0.84), pytest.approx(0.0002**0.5))
    assert schedule_average(rows[:2], "test_auc") is None


def test_summary_stands_frozen_and_unfrozen_side_by_side(row_of) -> None:
    """One line for a head and its input, empty where a mode lacks schedules, with the paper's averages."""
    rows = [*frozen_mlp2(row_of), row_of("mlp2-unfrozen-hidden-plateau", [0.9, 0.9])]
    [line] = summary_table("physionet2012", rows).lines
    assert line == ("mlp2", "hidden", "14,081", "0.850 ± 0.014", "0.840 ± 0.014", "0.779", "", "", "0.797")
    assert summary_table("physionet2012", rows[1:]) is None


def test_time_is_added_up_by_mode(row_of) -> None:
    """Three frozen variants of a minute each and one shallow one."""
    rows = [*frozen_mlp2(row_of), row_of("svm-frozen-hidden-none", [0.8, 0.8])]
    assert time_table(rows).lines == (("frozen", "3", "3"), ("no network", "1", "1"))


def test_the_papers_averages_are_those_of_its_schedules() -> None:
    """What was copied from Table II agrees with itself to the last digit printed."""
    for dataset in ("physionet2012", "mimic3"):
        for head in ("mlp2", "mlp5", "lstm", "gru"):
            figures = [quoted(dataset, head, "frozen", "x", schedule) for schedule in (*SCHEDULES, AVERAGE)]
            for part in ("val_auc", "test_auc"):
                *by_schedule, average = (getattr(figure, part) for figure in figures)
                assert sum(by_schedule) / 3 == pytest.approx(average, abs=0.0011), (dataset, head, part)


def test_latex_is_escaped_and_has_rules() -> None:
    """Signs with a meaning in LaTeX are escaped, ± and − become mathematics, booktabs rules frame the header."""
    text = Table("A & B", ("head_x", "AUC"), (("5 %", "0.8 ± 0.1"), ("−", "1")), "50 % of it").to_latex()
    assert r"\caption{A \& B. 50 \% of it}" in text
    assert r"head\_x & AUC \\" in text
    assert r"5 \% & 0.8 $\pm$ 0.1 \\" in text
    assert r"$-$ & 1 \\" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
