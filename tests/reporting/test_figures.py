import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from example_results import variant_row
from imputune.data.window import HOURS
from imputune.evaluation.decision_curve import DecisionPoint
from imputune.evaluation.metrics import ReliabilityPoint
from imputune.evaluation.rows import VariantRow
from imputune.reporting.figures import (
    attributions_figure,
    best_schedules,
    calibration_figure,
    curves_figure,
    decision_figure,
    mean_curves_figure,
    parameters_figure,
    to_png,
    to_svg,
)

SCHEDULES = ("optuna", "cyclic", "plateau")


def history(values: list[float]) -> list[dict[str, float]]:
    """Return epochs whose training AUC is given, and validation AUC 0.1 lower."""
    return [{"train_auc": value, "validation_auc": value - 0.1} for value in values]


def all_schedules(head_mode_input: str, aucs: list[float]) -> list[VariantRow]:
    """Return a head's rows under the three schedules, with the same test AUCs by fold."""
    return [variant_row(f"{head_mode_input}-{schedule}", aucs) for schedule in SCHEDULES]


def test_curves_by_fold() -> None:
    """Two folds give four curves with the values given, one colour per fold, training dashed."""
    axes = curves_figure({1: history([0.5]), 0: history([0.6, 0.7])}, "auc", "AUC by epoch").axes[0]
    assert [line.get_ydata() for line in axes.lines] == [
        pytest.approx(values) for values in ([0.6, 0.7], [0.5, 0.6], [0.5], [0.4])
    ]
    assert [line.get_label() for line in axes.lines] == [
        "fold 0, train",
        "fold 0, validation",
        "fold 1, train",
        "fold 1, validation",
    ]
    assert [(line.get_color(), line.get_linestyle()) for line in axes.lines] == [
        ("C0", "--"),
        ("C0", "-"),
        ("C1", "--"),
        ("C1", "-"),
    ]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("AUC by epoch", "epoch", "auc")


def test_a_curve_without_values_is_left_out() -> None:
    """If no epoch has a training score, the validation curve stands alone."""
    axes = curves_figure({0: [{"validation_mae": 0.4}, {"validation_mae": 0.3}]}, "mae", "").axes[0]
    assert [line.get_label() for line in axes.lines] == ["fold 0, validation"]
    assert list(axes.lines[0].get_ydata()) == [0.4, 0.3]


def test_mean_curves_go_on_with_the_folds_still_training() -> None:
    """Each variant has a panel; an epoch that one fold alone reached shows that fold."""
    figure = mean_curves_figure({"a": {0: history([0.6, 0.8]), 1: history([0.8])}, "b": {0: history([0.9])}}, "auc")
    first, second = figure.axes
    assert [line.get_ydata() for line in first.lines] == [pytest.approx([0.7, 0.8]), pytest.approx([0.6, 0.7])]
    assert [line.get_ydata() for line in second.lines] == [pytest.approx([0.9]), pytest.approx([0.8])]
    assert [axes.get_title() for axes in (first, second)] == ["a", "b"]
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["train, with dropout", "validation"]


def test_panels_without_a_variant_are_empty() -> None:
    """Four variants stand in two rows of three panels; the last two have no axes."""
    figure = mean_curves_figure({name: {0: history([0.5])} for name in "abcd"}, "auc")
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2


def test_parameters_figure_shows_averages_over_schedules() -> None:
    """By hand: test AUCs 0.8 and 0.9 have mean 0.85, deviation sqrt(0.005); validation AUCs are 0.01 higher."""
    rows = [*all_schedules("gru-frozen-raw", [0.7, 0.7]), *all_schedules("mlp2-frozen-hidden", [0.8, 0.9])]
    axes = parameters_figure(rows, "frozen", {"mTAN": 0.858}).axes[0]
    validation, test = axes.containers
    assert [container.get_label() for container in (validation, test)] == ["validation", "test"]
    assert [container.lines[0].get_marker() for container in (validation, test)] == ["o", "s"]
    assert list(validation.lines[0].get_xdata()) == pytest.approx([0.985 * 14_081, 0.985 * 61_061])
    assert list(test.lines[0].get_xdata()) == pytest.approx([1.015 * 14_081, 1.015 * 61_061])
    assert list(validation.lines[0].get_ydata()) == pytest.approx([0.86, 0.71])
    assert list(test.lines[0].get_ydata()) == pytest.approx([0.85, 0.7])
    bars = [segment[:, 1] for segment in test.lines[2][0].get_segments()]
    assert bars[0] == pytest.approx([0.85 - 0.005**0.5, 0.85 + 0.005**0.5])
    assert bars[1] == pytest.approx([0.7, 0.7])
    assert [text.get_text() for text in axes.texts] == ["mlp2, hidden", "gru, raw", "mTAN (other protocol)"]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [0.858]
    assert (axes.get_xscale(), axes.get_title()) == ("log", "frozen: mean over schedules")


def test_a_head_needs_all_schedules() -> None:
    """A head with fewer schedules is left out; without any head there is no figure, nor for non-neural heads."""
    rows = [*all_schedules("mlp2-frozen-hidden", [0.8, 0.9]), variant_row("gru-frozen-raw-plateau", [0.8, 0.9])]
    axes = parameters_figure(rows, "frozen", {}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["mlp2, hidden"]
    assert parameters_figure(rows, "unfrozen", {}) is None
    assert parameters_figure(rows[1:], "frozen", {}) is None
    assert parameters_figure([variant_row("svm-frozen-hidden-none", [0.8])], "frozen", {}) is None


def test_calibration_shows_the_schedule_that_validation_chose() -> None:
    """One curve for each head and input, its points those of the schedule with the best validation AUC."""
    better = ReliabilityPoint(risk=0.2, outcome_rate=0.3, stays=10)
    rows = [
        variant_row("mlp2-frozen-hidden-plateau", [0.8, 0.8]),
        variant_row("mlp2-frozen-hidden-cyclic", [0.9, 0.9]).model_copy(update={"calibration": (better,)}),
        variant_row("gru-unfrozen-raw-plateau", [0.7, 0.7]),
        variant_row("gru-unfrozen-raw-cyclic", [0.9, 0.9]).model_copy(update={"calibration": ()}),
    ]
    frozen, unfrozen = calibration_figure(rows, "in_hospital_death").axes
    assert [axes.get_title() for axes in (frozen, unfrozen)] == ["frozen", "unfrozen"]
    assert [line.get_label() for line in frozen.lines[1:]] == ["mlp2, hidden"]
    assert (list(frozen.lines[1].get_xdata()), list(frozen.lines[1].get_ydata())) == ([0.2], [0.3])
    assert [line.get_label() for line in unfrozen.lines[1:]] == ["gru, raw"]
    assert (list(unfrozen.lines[1].get_xdata()), list(unfrozen.lines[1].get_ydata())) == ([0.1, 0.5], [0.1, 0.4])
    assert (list(frozen.lines[0].get_xdata()), list(frozen.lines[0].get_ydata())) == ([0, 1], [0, 1])
    assert (frozen.get_xlabel(), frozen.get_ylabel()) == ("predicted risk", "share that died")
    assert calibration_figure([], "in_hospital_death") is None
    assert calibration_figure(rows[3:], "in_hospital_death") is None


def explained(rows: list[tuple[str, int | None, str, float]]) -> pd.DataFrame:
    """Return the table of an explanation."""
    return pd.DataFrame(rows, columns=["Part", "Hour", "Parameter", "Attribution"]).astype({"Hour": "Int64"})


def test_attributions_are_a_heat_map_of_variables_and_hours() -> None:
    """The variable with the largest effect is on top; unobserved cells are empty; colours are symmetric around 0."""
    table = explained([("value", 0, "HR", 0.02), ("value", 5, "HR", -0.03), ("value", 3, "pH", 0.01)])
    axes, colours = attributions_figure(table, "Stay 7: risk 0.25").axes
    mesh = axes.collections[0]
    expected = np.full((2, HOURS), np.nan)
    expected[0, 3], expected[1, 0], expected[1, 5] = 0.01, 0.02, -0.03
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["pH", "HR"]
    assert mesh.get_clim() == (-0.03, 0.03)
    assert axes.get_facecolor() == to_rgba("0.85")
    assert axes.get_title() == "Stay 7: risk 0.25"
    assert axes.get_xlabel() == "hour since admission (grey: not observed)"
    assert colours.get_ylabel() == "added to the risk"


@pytest.mark.parametrize("attributions", [[], [0.0]])
def test_attributions_of_nothing_can_be_drawn(attributions) -> None:
    """Without observations, or if none changed the risk, the colours go from -1 to 1."""
    table = explained([("value", hour, "HR", added) for hour, added in enumerate(attributions)])
    assert attributions_figure(table, "").axes[0].collections[0].get_clim() == (-1, 1)


def test_what_has_no_hour_stands_beside_the_cells_as_bars() -> None:
    """Statistics, facts and a hidden state are bars, the largest on top; the smallest are summed to keep 30."""
    facts = [("static", None, f"fact_{place:02}", place / 1000) for place in range(31)]
    table = explained([("value", 0, "HR", 0.02), ("statistics", None, "HR", -0.5), *facts])
    _, bars, _ = attributions_figure(table, "").axes
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert (len(names), names[0], names[1], names[-1]) == (30, "3 others", "fact_03 (static)", "HR (statistics)")
    widths = [patch.get_width() for patch in bars.patches]
    assert (widths[0], widths[-1]) == pytest.approx((0.003, -0.5))
    assert sum(widths) == pytest.approx(table["Attribution"][1:].sum())


def test_without_cells_there_are_bars_alone() -> None:
    """A model of statistics alone has no heat map."""
    [axes] = attributions_figure(explained([("hidden state", None, "hidden state", 0.1)]), "Stay 7").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hidden state"]
    assert axes.get_title() == "Stay 7"


def test_saved_figures_are_of_their_kind_and_repeat() -> None:
    """PNG and SVG start as such files do; the same figure gives the same bytes; SVG keeps text as text."""
    figures = [curves_figure({0: history([0.6, 0.7])}, "auc", "AUC by epoch") for _ in range(2)]
    pngs, svgs = ([save(figure) for figure in figures] for save in (to_png, to_svg))
    assert pngs[0].startswith(b"\x89PNG")
    assert pngs[0] == pngs[1]
    assert svgs[0] == svgs[1]
    assert b"AUC by epoch</text>" in svgs[0]


def test_decision_figure_shows_the_models_beside_all_and_none() -> None:
    """A panel per title: each model's net benefit, that of treating all, and 0; the axis starts a little below 0."""
    points = [
        DecisionPoint(threshold=threshold, net_benefit=benefit, treat_all=benefit - 0.1)
        for threshold, benefit in ((0.1, 0.3), (0.2, 0.2))
    ]
    figure = decision_figure({"frozen": {"mlp2, hidden": points, "gru, raw": points[:1]}, "unfrozen": {"a": points}})
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["frozen", "unfrozen"]
    assert [line.get_label() for line in first.lines] == ["mlp2, hidden", "gru, raw", "treat all", "treat none"]
    assert [list(line.get_ydata()) for line in first.lines] == [[0.3, 0.2], [0.3], pytest.approx([0.2, 0.1]), [0, 0]]
    assert list(second.lines[0].get_xdata()) == [0.1, 0.2]
    assert first.get_ylim() == pytest.approx((-0.05, 0.22))
    assert to_png(figure).startswith(b"\x89PNG")


def test_the_best_schedule_is_chosen_by_validation() -> None:
    """One row for each mode, head and input."""
    rows = [
        variant_row(f"{head}-{schedule}", [auc])
        for head, schedule, auc in (
            ("mlp2-frozen-hidden", "optuna", 0.8),
            ("mlp2-frozen-hidden", "cyclic", 0.9),
            ("mlp2-unfrozen-hidden", "optuna", 0.7),
        )
    ]
    assert best_schedules(rows) == rows[1:]
