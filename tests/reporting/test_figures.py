import pytest

from imputune.reporting.figures import (
    calibration_figure,
    curves_figure,
    mean_curves_figure,
    parameters_figure,
    to_png,
    to_svg,
)


def history(values):
    """Return epochs whose training AUC is given, and validation AUC 0.1 lower."""
    return [{"train_auc": value, "validation_auc": value - 0.1} for value in values]


def test_curves_by_fold() -> None:
    """Two folds give four curves, with the values given."""
    axes = curves_figure({0: history([0.6, 0.7]), 1: history([0.5])}, "auc", "title").axes[0]
    assert [line.get_ydata() for line in axes.lines] == [
        pytest.approx(values) for values in ([0.6, 0.7], [0.5, 0.6], [0.5], [0.4])
    ]


def test_mean_curves_go_on_with_the_folds_still_training() -> None:
    """Each variant has a panel; an epoch that one fold alone reached shows that fold."""
    figure = mean_curves_figure({"a": {0: history([0.6, 0.8]), 1: history([0.8])}, "b": {0: history([0.9])}}, "auc")
    first, second = figure.axes
    assert [line.get_ydata() for line in first.lines] == [pytest.approx([0.7, 0.8]), pytest.approx([0.6, 0.7])]
    assert [axes.get_title() for axes in (first, second)] == ["a", "b"]


def test_parameters_figure_needs_all_schedules(row_of) -> None:
    """A head with its three schedules is a point at its average; one with fewer is left out; without any, no figure."""
    rows = [row_of(f"mlp2-frozen-hidden-{schedule}", [0.8, 0.9]) for schedule in ("optuna", "cyclic", "plateau")]
    rows.append(row_of("gru-frozen-raw-plateau", [0.8, 0.9]))
    axes = parameters_figure(rows, "frozen", {"mTAN": 0.858}).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["mlp2, hidden", "mTAN (other protocol)"]
    assert axes.containers[1].lines[0].get_ydata() == pytest.approx([0.85])
    assert parameters_figure(rows, "unfrozen", {}) is None


def test_calibration_shows_the_schedule_that_validation_chose(row_of) -> None:
    """One curve for each head and input, its points those of the schedule with the best validation AUC."""
    rows = [row_of("mlp2-frozen-hidden-plateau", [0.8, 0.8]), row_of("mlp2-frozen-hidden-cyclic", [0.9, 0.9])]
    axes = calibration_figure(rows).axes[0]
    assert [line.get_label() for line in axes.lines[1:]] == ["mlp2, hidden"]
    assert list(axes.lines[1].get_xdata()) == [0.1, 0.5]
    assert calibration_figure([]) is None


def test_saved_figures_are_of_their_kind_and_repeat() -> None:
    """PNG and SVG start as such files do, and the same figure is the same bytes, with text as text in SVG."""
    figures = [curves_figure({0: history([0.6, 0.7])}, "auc", "AUC by epoch") for _ in range(2)]
    assert to_png(figures[0]).startswith(b"\x89PNG")
    svgs = [to_svg(figure) for figure in figures]
    assert svgs[0] == svgs[1]
    assert b"AUC by epoch</text>" in svgs[0]
