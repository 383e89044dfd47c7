"""The figures of the report, as matplotlib objects narrow enough for a phone.

Letters: F folds, T hours, D variables.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest
from statistics import fmean

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from imputune.data.cohort import Variable
from imputune.data.masking_patterns import LABELS
from imputune.evaluation.assessed_imputers import AssessedImputer
from imputune.evaluation.risk_curves import POINTS, risk_curves
from imputune.evaluation.rows import VariantRow
from imputune.protocol.outcome_words import outcome_words
from imputune.reporting.imputer_tables import ranked_imputers
from imputune.settings.names import MaskingPattern

WIDTH = 4.4  # inches; text of size 9 then stays readable at a phone's width
PANEL = 1.7  # inches, the height of one panel
SHOWN = 6  # variables of the generated stay
FEWEST = 5  # observations that a variable needs to be shown


def example_figure(
    truth_TD: np.ndarray,
    imputed: Mapping[str, np.ndarray],
    variables: Sequence[Variable],
    masked_T: np.ndarray,
    bin_hours: int = 1,
) -> Figure | None:
    """Draw a generated stay as imputers fill it, one panel per variable: the mean and the range over the folds.

    The six variables with the most observations are shown. None if fewer than two have at least five observations.

    Shapes: truth_TD in the variables' units, NaN where not observed; imputed, by the imputer's name, (F, T, D);
    masked_T boolean, the bins that were masked. bin_hours: the length of a bin.
    """
    count_D = (~np.isnan(truth_TD)).sum(axis=0)
    chosen = [int(d) for d in np.argsort(-count_D, kind="stable")[:SHOWN] if count_D[d] >= FEWEST]
    if len(chosen) < 2:
        return None
    hours = np.arange(len(truth_TD)) * bin_hours
    figure = Figure(figsize=(WIDTH, PANEL * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), 1, sharex=True)
    first, last = np.flatnonzero(masked_T)[[0, -1]]
    for axes, d in zip(panels, chosen, strict=True):
        axes.axvspan((first - 0.5) * bin_hours, (last + 0.5) * bin_hours, color="0.92")
        for place, (name, imputed_FTD) in enumerate(imputed.items()):
            series_FT = imputed_FTD[:, :, d]
            axes.plot(hours, series_FT.mean(axis=0), color=f"C{place}", linewidth=1.2, label=name)
            axes.fill_between(
                hours, series_FT.min(axis=0), series_FT.max(axis=0), color=f"C{place}", alpha=0.25, linewidth=0
            )
        for shown, face, label in ((~masked_T, "black", "visible"), (masked_T, "white", "masked")):
            axes.plot(
                hours[shown], truth_TD[shown, d], "o", color="black", markerfacecolor=face, markersize=3.5, label=label
            )
        axes.set_ylabel(f"{variables[d].name}\n{variables[d].unit}", fontsize=8)
    panels[-1].set_xlabel("hour since admission")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    return figure


def errors_figure(imputers: Sequence[AssessedImputer]) -> Figure:
    """Draw every imputer's error against the masking rate, one panel per masking pattern."""
    patterns: list[MaskingPattern] = list(dict.fromkeys(row.pattern for each in imputers for row in each.rows))
    figure = Figure(figsize=(WIDTH, 1.15 * PANEL * len(patterns)), layout="constrained")
    panels = figure.subplots(len(patterns), 1, sharex=True, squeeze=False)[:, 0]
    for axes, pattern in zip(panels, patterns, strict=True):
        for place, each in enumerate(imputers):
            rows = sorted((row for row in each.rows if row.pattern == pattern), key=lambda row: row.rate)
            axes.errorbar(
                [100 * row.rate for row in rows],
                [row.mean["mae"] for row in rows],
                [row.deviation["mae"] for row in rows],
                marker="o",
                markersize=3,
                linewidth=1,
                capsize=2,
                color=_colour(place),
                label=each.label,
            )
        axes.set_title(LABELS[pattern], fontsize=9)
        axes.set_ylabel("MAE")
    panels[-1].set_xlabel("% of observed cells masked")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return figure


def missing_figure(imputers: Sequence[AssessedImputer], edges: Sequence[float]) -> Figure | None:
    """Draw every imputer's error against the share of a stay that was never observed, under the ranking's masking."""
    ranked = ranked_imputers(imputers)
    if not ranked:
        return None
    middles = [50 * (low + high) for low, high in pairwise(edges)]
    figure = Figure(figsize=(WIDTH, 2.2 * PANEL), layout="constrained")
    axes = figure.add_subplot()
    for place, (each, row) in enumerate(ranked):
        errors = [row.by_missing_share.get(str(group), {"mae": np.nan})["mae"] for group in range(len(middles))]
        axes.plot(middles, errors, "o-", markersize=3, linewidth=1, color=_colour(place), label=each.label)
    axes.set(xlabel="% of a stay's cells never observed", ylabel="MAE")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return figure


def matrix_figure(rows: Sequence[VariantRow], labels: Mapping[str, str]) -> Figure:
    """Draw the matrix of test AUC as a heat map, `labels` naming the imputers."""
    imputers, heads = ([*dict.fromkeys(getattr(row, part) for row in rows)] for part in ("imputer", "head"))
    auc = np.full((len(imputers), len(heads)), np.nan)
    for row in rows:
        auc[imputers.index(row.imputer), heads.index(row.head)] = row.test_auc_mean
    figure = Figure(figsize=(WIDTH, 1.0 + 0.36 * len(imputers)), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(auc, cmap="viridis", aspect="auto")
    middle = (np.nanmin(auc) + np.nanmax(auc)) / 2
    for (line, column), value in np.ndenumerate(auc):
        if np.isfinite(value):
            colour = "black" if value > middle else "white"
            axes.text(column, line, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(heads)), heads)
    axes.set_yticks(range(len(imputers)), [labels[each] for each in imputers])
    figure.colorbar(drawn, ax=axes, label="test AUC")
    return figure


def risk_figure(risks: Mapping[str, tuple[np.ndarray, np.ndarray]], outcome: str) -> Figure:
    """Draw ROC, precision-recall and calibration curves over all test stays, one curve per model.

    `risks` maps a model's name to the outcomes, 0/1 (N,), and the risks (N,).
    """
    figure = Figure(figsize=(WIDTH, 3 * 2.4 * PANEL), layout="constrained")
    roc, precision_recall, calibration = figure.subplots(3, 1)
    highest = 0.0
    curves = {name: risk_curves(outcome_N, risk_N) for name, (outcome_N, risk_N) in risks.items()}
    for name, each in curves.items():
        roc.plot(POINTS, each.sensitivity_P, linewidth=1.2, label=f"{name}, AUC {each.auc:.3f}")
        precision_recall.plot(POINTS[1:], each.precision_P, linewidth=1.2, label=name)
        points = each.calibration
        calibration.plot(
            [point.risk for point in points], [point.outcome_rate for point in points], ".-", linewidth=1.2, label=name
        )
        highest = max(highest, *(max(point.risk, point.outcome_rate) for point in points))
    precision_recall.axhline(next(iter(curves.values())).outcome_rate, linestyle=":", color="grey")
    for axes in (roc, calibration):
        axes.plot([0, 1], [0, 1], ":", color="grey")
    roc.set(title="ROC", xlabel="1 − specificity", ylabel="sensitivity")
    precision_recall.set(title="precision and recall", xlabel="recall (sensitivity)", ylabel="precision")
    limits = (0, min(1.0, 1.1 * highest))
    share = outcome_words(outcome).share
    calibration.set(title="calibration", xlabel="predicted risk", ylabel=share, xlim=limits, ylim=limits)
    for axes in (roc, precision_recall, calibration):
        axes.legend(fontsize=7)
    return figure


def training_figure(curves: Mapping[str, Sequence[Sequence[float]]], measure: str) -> Figure:
    """Draw a validation measure by epoch, one curve per model: the mean over the folds that still train.

    `curves` maps a model's name to a list of numbers for each fold.
    """
    figure = Figure(figsize=(WIDTH, 2.2 * PANEL), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, folds) in enumerate(curves.items()):
        means = [fmean(value for value in values if value is not None) for values in zip_longest(*folds)]
        axes.plot(range(1, len(means) + 1), means, linewidth=1.2, color=_colour(place), label=name)
    axes.set(xlabel="epoch", ylabel=measure)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return figure


def _colour(place: int) -> tuple[float, float, float, float]:
    """Return one of 20 colours, the strong ones first."""
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    red, green, blue, alpha = matplotlib.colormaps["tab20"](order[place % 20])
    return red, green, blue, alpha
