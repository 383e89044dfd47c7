import numpy as np
import pytest
from matplotlib.figure import Figure

from example_results import assessed_imputer, held_out_scores_of, matrix_rows, ranked_imputer
from imputune.data.cohort import Variable
from imputune.evaluation.imputation import CellErrors
from imputune.evaluation.risk_curves import POINTS
from imputune.reporting.imputer_figures import (
    errors_figure,
    example_figure,
    matrix_figure,
    missing_figure,
    risk_figure,
    training_figure,
)

VARIABLES = tuple(Variable(name, unit) for name, unit in (("HR", "/min"), ("pH", "1"), ("Temp", "°C")))
MASKED_T = np.array([False, False, True, True, False, False, False, False])


def stay() -> np.ndarray:
    """Return 8 hours of three variables: the first observed in 6 hours, the second in all, the third in 4."""
    truth_TD = np.arange(24.0).reshape(8, 3)
    truth_TD[[0, 7], 0] = np.nan
    truth_TD[::2, 2] = np.nan
    return truth_TD


def labels(figure: Figure) -> list[str]:
    """Return the entries of the figure's legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_generated_stay_is_drawn_as_imputed() -> None:
    """The variable with the most observations is on top; lines are means over folds, bands their range."""
    truth_TD = stay()
    imputed_FTD = np.stack([np.zeros((8, 3)), np.ones((8, 3)), np.full((8, 3), 5.0)])
    figure = example_figure(truth_TD, {"CSAI": imputed_FTD, "mean": imputed_FTD[:1]}, VARIABLES, MASKED_T)
    first, second = figure.axes  # the third has fewer than five observations
    assert [axes.get_ylabel() for axes in (first, second)] == ["pH\n1", "HR\n/min"]
    csai, mean, visible, masked = first.lines
    assert (list(csai.get_ydata()), list(mean.get_ydata())) == ([2.0] * 8, [0.0] * 8)
    assert list(visible.get_xdata()) == [0, 1, 4, 5, 6, 7]
    assert list(visible.get_ydata()) == list(truth_TD[~MASKED_T, 1])
    assert list(masked.get_xdata()) == [2, 3]
    assert list(masked.get_ydata()) == list(truth_TD[MASKED_T, 1])
    band = first.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0, 5)
    background = first.patches[0].get_bbox()
    assert (background.x0, background.x1) == (1.5, 3.5)
    assert labels(figure) == ["CSAI", "mean", "visible", "masked"]
    assert second.get_xlabel() == "hour since admission"
    longer = example_figure(truth_TD, {"CSAI": imputed_FTD}, VARIABLES, MASKED_T, bin_hours=3).axes[0]
    assert list(longer.lines[0].get_xdata()) == list(range(0, 24, 3))
    assert (longer.patches[0].get_bbox().x0, longer.patches[0].get_bbox().x1) == (4.5, 10.5)


def test_a_stay_with_too_few_observations_is_not_drawn() -> None:
    """At least two variables need five observations; one alone gives no figure."""
    truth_TD = stay()
    truth_TD[:2, 1] = truth_TD[4:6, 1] = np.nan
    assert example_figure(truth_TD, {"CSAI": np.zeros((1, 8, 3))}, VARIABLES, MASKED_T) is None


def test_at_most_six_variables_are_drawn() -> None:
    """Of eight variables that were always observed, the first six."""
    variables = tuple(Variable(name, "") for name in "abcdefgh")
    figure = example_figure(np.ones((8, 8)), {"CSAI": np.zeros((1, 8, 8))}, variables, MASKED_T)
    assert [axes.get_ylabel().strip() for axes in figure.axes] == list("abcdef")


def test_errors_are_drawn_by_pattern_and_rate() -> None:
    """A panel for each pattern; points are means over folds in order of the rate, bars deviations."""
    folds = [
        [
            held_out_scores_of(2 * mae, "uniform", 0.3),
            held_out_scores_of(mae, "uniform", 0.1),
            held_out_scores_of(3 * mae, "hours", 0.5),
        ]
        for mae in (0.1, 0.3)
    ]
    figure = errors_figure([assessed_imputer("csai", folds), ranked_imputer("mean", 0.7)])
    assert [axes.get_title() for axes in figure.axes] == ["at random", "whole hours", "non-uniform"]
    uniform, hours, non_uniform = ([each.lines for each in axes.containers] for axes in figure.axes)
    assert list(uniform[0][0].get_xdata()) == [10, 30]
    assert list(uniform[0][0].get_ydata()) == pytest.approx([0.2, 0.4])
    bar = uniform[0][2][0].get_segments()[0][:, 1]
    assert bar == pytest.approx([0.2 - 0.02**0.5, 0.2 + 0.02**0.5])
    assert (list(hours[0][0].get_xdata()), list(hours[0][0].get_ydata())) == ([50], pytest.approx([0.6]))
    assert list(non_uniform[0][0].get_ydata()) == []
    assert list(non_uniform[1][0].get_ydata()) == [0.7]
    assert figure.axes[-1].get_xlabel() == "% of observed cells masked"
    assert labels(figure) == ["CSAI", "mean"]


def test_errors_are_drawn_by_missing_share() -> None:
    """A point stands at the middle of its group; a group without held-out cells has none."""
    errors = {str(group): CellErrors(cells=3, mae=mae, rmse=mae, mre=mae) for group, mae in ((0, 0.2), (2, 0.4))}
    scores = held_out_scores_of(0.3).model_copy(update={"by_missing_share": errors})
    other = assessed_imputer("mean", [[held_out_scores_of(0.5, rate=0.3)]])
    figure = missing_figure([assessed_imputer("csai", [[scores]]), other], (0.5, 0.7, 0.8, 1.0))
    [line] = figure.axes[0].lines
    assert list(line.get_xdata()) == pytest.approx([60, 75, 90])
    assert list(line.get_ydata()) == pytest.approx([0.2, np.nan, 0.4], nan_ok=True)
    assert (figure.axes[0].get_xlabel(), labels(figure)) == ("% of a stay's cells never observed", ["CSAI"])
    assert missing_figure([other], (0.5, 1.0)) is None


def test_the_matrix_is_a_heat_map() -> None:
    """Every imputer and head has its mean test AUC as colour and number, light on dark; a missing one is empty."""
    rows = matrix_rows(lambda i, c, f: 0.7 + 0.1 * c + 0.01 * i)[:-1]
    figure = matrix_figure(rows, {"csai": "CSAI", "mean": "training mean", "saits": "SAITS"})
    axes, colours = figure.axes
    expected = [[0.7, 0.8], [0.71, 0.81], [0.72, np.nan]]
    np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan), expected)
    assert [text.get_text() for text in axes.texts] == ["0.700", "0.800", "0.710", "0.810", "0.720"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert [text.get_color() for text in axes.texts] == ["white", "black", "white", "black", "white"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["mlp2", "xgboost"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CSAI", "training mean", "SAITS"]
    assert colours.get_ylabel() == "test AUC"


def test_risk_curves_by_hand() -> None:
    """Deaths at 0.35 and 0.8, survivors at 0.1 and 0.4: three of four pairs are in order."""
    risks = {"gru": (np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))}
    roc, precision_recall, calibration = risk_figure(risks, "in_hospital_death").axes
    curve, diagonal = roc.lines
    assert curve.get_label() == "gru, AUC 0.750"
    assert list(curve.get_xdata()) == list(POINTS)
    sensitivity = np.interp([0.25, 0.75], curve.get_xdata(), curve.get_ydata())
    assert sensitivity == pytest.approx([0.5, 1.0])
    assert list(diagonal.get_ydata()) == [0, 1]
    curve, share = precision_recall.lines
    precision = np.interp([0.25, 0.75, 1.0], curve.get_xdata(), curve.get_ydata())
    assert precision == pytest.approx([1.0, (0.5 + 2 / 3) / 2, 0.5])
    assert list(share.get_ydata()) == [0.5, 0.5]
    points, diagonal = calibration.lines
    assert list(points.get_xdata()) == pytest.approx([0.1, 0.35, 0.4, 0.8])
    assert list(points.get_ydata()) == [0, 1, 0, 1]
    assert calibration.get_xlim() == calibration.get_ylim() == (0, 1)
    assert [axes.get_title() for axes in (roc, precision_recall, calibration)] == [
        "ROC",
        "precision and recall",
        "calibration",
    ]


def test_calibration_ends_a_little_above_its_highest_point() -> None:
    """Risks of 0.2, of whom one in four died: the axes end at 1.1 times 0.25."""
    outcome_N, risk_N = np.tile([1, 0, 0, 0], 10), np.full(40, 0.2)
    calibration = risk_figure({"mlp2": (outcome_N, risk_N)}, "in_hospital_death").axes[2]
    assert calibration.get_xlim() == (0, pytest.approx(1.1 * 0.25))


def test_each_model_has_a_curve_of_its_own() -> None:
    """Two models are two curves in each panel."""
    outcome_N = np.array([0, 1, 0, 1])
    risks = {"mlp2": (outcome_N, np.linspace(0.1, 0.4, 4)), "gru": (outcome_N, np.linspace(0.4, 0.1, 4))}
    figure = risk_figure(risks, "in_hospital_death")
    names = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert names == [["mlp2, AUC 0.750", "gru, AUC 0.250"], ["mlp2", "gru"], ["mlp2", "gru"]]


def test_training_curves_go_on_with_the_folds_still_training() -> None:
    """Means over the folds, epochs counted from 1."""
    figure = training_figure({"CSAI": [[0.6, 0.5, 0.4], [0.4, 0.3]], "BRITS": [[0.7]]}, "validation MAE")
    csai, brits = figure.axes[0].lines
    assert (list(csai.get_xdata()), list(csai.get_ydata())) == ([1, 2, 3], pytest.approx([0.5, 0.4, 0.4]))
    assert (list(brits.get_xdata()), list(brits.get_ydata())) == ([1], [0.7])
    assert labels(figure) == ["CSAI", "BRITS"]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("epoch", "validation MAE")


def test_twenty_imputers_have_twenty_colours() -> None:
    """No two of 20 curves are alike; with more, colours repeat."""
    figure = training_figure({str(number): [[0.5]] for number in range(21)}, "MAE")
    colours = [line.get_color() for line in figure.axes[0].lines]
    assert len(set(colours[:20])) == 20
    assert colours[20] == colours[0]
