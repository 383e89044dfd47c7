import pytest

from example_results import variant_row
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.verdicts import judge
from imputune.protocol.outcome_words import DEATH
from imputune.protocol.published import AVERAGE, SCHEDULES, quoted
from imputune.reporting.tables import Table
from imputune.reporting.variant_tables import (
    non_neural_table,
    protocol_table,
    references_table,
    summary_table,
    time_table,
    variants_table,
    verdicts_table,
)

AUCS = {"optuna": [0.80, 0.82], "cyclic": [0.83, 0.85], "plateau": [0.86, 0.88]}


def frozen_mlp2() -> list[VariantRow]:
    """Return mlp2 under the three schedules, two folds each."""
    return [variant_row(f"mlp2-frozen-hidden-{schedule}", aucs) for schedule, aucs in AUCS.items()]


def by_column(table: Table, line: int = 0) -> dict[str, str]:
    """Return a line of a table by the names of its columns."""
    return dict(zip(table.header, table.lines[line], strict=True))


def test_protocol_table_has_ours_the_papers_and_the_difference() -> None:
    """By hand: ours is mean and deviation over folds, the average is fold by fold over schedules, then the paper's."""
    table = protocol_table("physionet2012", "frozen", frozen_mlp2())
    ours, paper, difference = (by_column(table, line) for line in range(3))
    assert (table.title, table.remark) == ("Table II: frozen imputer, AUC by schedule", "")
    assert ours["model"] == "mlp2, hidden"
    assert [line[1] for line in table.lines] == ["ours", "paper", "difference"]
    assert (ours["optuna val"], ours["optuna test"]) == ("0.820 ± 0.014", "0.810 ± 0.014")
    assert (ours["average val"], ours["average test"]) == ("0.850 ± 0.014", "0.840 ± 0.014")
    assert (paper["optuna val"], paper["cyclic test"], paper["average test"]) == ("0.783", "0.782", "0.779")
    assert (difference["optuna val"], difference["average test"]) == ("+0.037", "+0.061")


def test_schedules_that_were_not_run_stay_empty() -> None:
    """Without all three schedules there is no average, and no difference to the paper's."""
    [ours, paper, difference] = protocol_table("physionet2012", "frozen", frozen_mlp2()[1:]).lines
    assert ours[2:4] == ("", "")
    assert ours[4:6] == ("0.850 ± 0.014", "0.840 ± 0.014")
    assert ours[-2:] == ("", "")
    assert paper[2:4] == ("0.783", "0.777")
    assert (difference[2:4], difference[-2:]) == (("", ""), ("", ""))


def test_of_table_iii_only_averages_are_known() -> None:
    """Unfrozen, the paper's line has its average alone, and nothing where its text has nothing."""
    rows = [variant_row(f"lstm-unfrozen-raw-{schedule}", aucs) for schedule, aucs in AUCS.items()]
    table = protocol_table("physionet2012", "unfrozen", rows)
    _, paper, difference = table.lines
    assert table.title == "Table III: unfrozen imputer, AUC by schedule"
    assert table.remark == "Of the paper's Table III we know only the averages that its text quotes."
    assert paper[2:] == ("", "", "", "", "", "", "0.813", "")
    assert difference[-2:] == ("+0.037", "")


def test_other_datasets_have_no_lines_of_the_paper() -> None:
    """The paper has no figures for generated records; a mode without variants makes no table."""
    rows = [variant_row("gru-frozen-raw-plateau", [0.8, 0.9], "synthetic")]
    assert [line[1] for line in protocol_table("synthetic", "frozen", rows).lines] == ["ours"]
    assert protocol_table("synthetic", "unfrozen", rows) is None


def test_non_neural_heads_stand_beside_the_papers() -> None:
    """A head below the paper's figure has a minus; statistics as input have no figure; networks are not listed."""
    rows = [
        variant_row("xgboost-frozen-hidden-none", [0.5, 0.6]),
        variant_row("xgboost-frozen-summary-none", [0.8, 0.8]),
    ]
    table = non_neural_table([*frozen_mlp2(), *rows])
    assert table.title == "Non-neural heads"
    assert table.lines == (
        ("xgboost", "hidden", "0.560 ± 0.071", "0.550 ± 0.071", "0.620", "−0.070", "0.500 ± 0.000"),
        ("xgboost", "summary", "0.810 ± 0.000", "0.800 ± 0.000", "", "", "0.500 ± 0.000"),
    )
    assert non_neural_table(frozen_mlp2()) is None


def test_summary_stands_frozen_and_unfrozen_side_by_side() -> None:
    """One line for a head and its input, empty where a mode lacks schedules, with the paper's averages."""
    rows = [*frozen_mlp2(), variant_row("mlp2-unfrozen-hidden-plateau", [0.9, 0.9])]
    [line] = summary_table("physionet2012", rows, DEATH).lines
    assert line == ("mlp2", "hidden", "14,081", "0.850 ± 0.014", "0.840 ± 0.014", "0.779", "", "", "0.797")
    assert summary_table("physionet2012", rows[1:], DEATH) is None
    unfrozen = [variant_row(f"gru-unfrozen-raw-{schedule}", aucs) for schedule, aucs in AUCS.items()]
    [line] = summary_table("physionet2012", unfrozen, DEATH).lines
    assert line == ("gru", "raw", "61,061", "", "", "0.779", "0.850 ± 0.014", "0.840 ± 0.014", "0.777")
    assert summary_table("physionet2012", [variant_row("svm-frozen-hidden-none", [0.8])], DEATH) is None


def test_verdicts_have_their_numbers_and_what_was_compared() -> None:
    """A steady difference of 0.1 is supported, one that changes sign is not; a trend has no other side."""
    rows = [
        variant_row("mlp2-frozen-hidden-plateau", [0.70, 0.71]),
        variant_row("mlp2-unfrozen-hidden-plateau", [0.80, 0.81001]),
        variant_row("gru-unfrozen-raw-plateau", [0.79, 0.84]),
    ]
    table = verdicts_table(judge(rows, 1 / 3))
    assert table.header == ("the paper's claim", "compared", "difference in test AUC", "p", "verdict at 0.05")
    assert table.lines[0] == ("unfrozen beats frozen", "1 variant against 1", "+0.1000", "0.000", "supported")
    assert table.lines[1][:3] == ("MLPs win unfrozen", "1 variant against 1", "−0.0100")
    assert table.lines[2][:2] == (
        "more parameters do not help (unfrozen)",
        "2 variants; AUC lost each time the parameters double",
    )
    assert table.lines[2][-1] == "not contradicted"
    assert table.remark.startswith("Test on the differences of the folds: corrected resampled t-test")
    assert verdicts_table(()) is None


def test_more_than_one_variant_is_plural() -> None:
    """Two frozen variants against two unfrozen ones."""
    rows = [
        variant_row(f"mlp2-{mode}-hidden-{schedule}", [0.8, 0.81])
        for mode in ("frozen", "unfrozen")
        for schedule in ("cyclic", "plateau")
    ]
    assert verdicts_table(judge(rows, 1 / 3)).lines[0][1] == "2 variants against 2"


def test_every_variant_has_its_scores() -> None:
    """Each line has a text per column; the paper's figure is empty where there is none, as are an svm's parameters."""
    table = variants_table([frozen_mlp2()[2], variant_row("svm-frozen-imputed-none", [0.7], "synthetic")], DEATH)
    assert table.title == "Every variant of the protocol: in-hospital death"
    assert by_column(table) == {
        "head": "mlp2",
        "mode": "frozen",
        "input": "hidden",
        "schedule": "plateau",
        "params": "14,081",
        "val AUC": "0.880 ± 0.014",
        "test AUC": "0.870 ± 0.014",
        "paper": "0.778",
        "test AUPRC": "0.500 ± 0.000",
        "test Brier": "0.100 ± 0.000",
        "calibration error": "0.030 ± 0.000",
        "calibration slope": "0.900 ± 0.000",
        "seconds": "60",
    }
    assert by_column(table, 1)["params"] == by_column(table, 1)["paper"] == ""
    earlier = frozen_mlp2()[2].model_copy(update={"test_calibration_slope_mean": None})
    assert by_column(variants_table([earlier], DEATH))["calibration slope"] == ""


def test_time_is_added_up_by_mode() -> None:
    """Three frozen variants of a minute each and one non-neural one; a kind without variants has no line."""
    rows = [*frozen_mlp2(), variant_row("svm-frozen-hidden-none", [0.8, 0.8])]
    table = time_table(rows)
    assert table.header == ("variants", "number", "minutes, all folds together")
    assert table.lines == (("frozen", "3", "3"), ("non-neural", "1", "1"))


def test_references_are_as_published() -> None:
    """The AUCs of other protocols, three decimal places."""
    assert references_table({"mTAN": 0.858, "X": 0.9}).lines == (("mTAN", "0.858"), ("X", "0.900"))
    assert ("BRITS", "0.850") in references_table().lines


@pytest.mark.parametrize("dataset", ["physionet2012", "mimic3"])
@pytest.mark.parametrize("head", ["mlp2", "mlp5", "lstm", "gru"])
def test_the_papers_averages_are_those_of_its_schedules(dataset, head) -> None:
    """What was copied from Table II agrees with itself to the last digit printed."""
    figures = [quoted(dataset, head, mode="frozen", input="x", schedule=schedule) for schedule in (*SCHEDULES, AVERAGE)]
    for split in ("val_auc", "test_auc"):
        *by_schedule, average = (getattr(figure, split) for figure in figures)
        assert sum(by_schedule) / 3 == pytest.approx(average, abs=0.0011), split
