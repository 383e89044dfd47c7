"""Figures of variants and of one prediction, as matplotlib objects; the caller saves them."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imputune.data.window import Window
from imputune.evaluation.decision_curve import DecisionPoint
from imputune.evaluation.rows import Spread, VariantRow, schedule_average
from imputune.protocol.outcome_words import outcome_words
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.settings.names import Mode

History = Sequence[Mapping[str, float]]
DOTS_PER_INCH = 110
COLUMNS = 3
SHOWN_BARS = 30
CURVE_STYLES = {"train": "--", "validation": "-"}
CURVE_LABELS = {"train": "train, with dropout", "validation": "validation"}


def curves_figure(histories: Mapping[int, History], metric: str, title: str) -> Figure:
    """Draw a metric's training and validation curves over epochs, one colour per fold, training dashed.

    `histories` maps a fold's number to its rows, one per epoch, with `train_<metric>` and `validation_<metric>`. A
    curve without values is left out.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for fold, history in sorted(histories.items()):
        for split, style in CURVE_STYLES.items():
            values = [row[f"{split}_{metric}"] for row in history if f"{split}_{metric}" in row]
            if values:
                axes.plot(values, style, color=f"C{fold}", label=f"fold {fold}, {split}", linewidth=1)
    axes.set(title=title, xlabel="epoch", ylabel=metric)
    axes.legend(fontsize="x-small", ncols=2)
    return figure


def mean_curves_figure(variants: Mapping[str, Mapping[int, History]], metric: str) -> Figure:
    """Draw training and validation curves, one panel per variant: the mean over the folds that still train."""
    columns = min(COLUMNS, len(variants))
    rows = -(-len(variants) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, histories) in zip(panels, variants.items(), strict=False):
        for split, style in CURVE_STYLES.items():
            curves = [[row[f"{split}_{metric}"] for row in history] for history in histories.values()]
            means = [fmean(value for value in values if value is not None) for values in zip_longest(*curves)]
            axes.plot(means, style, color="C0", label=CURVE_LABELS[split])
        axes.set_title(name, fontsize="small")
        axes.set(xlabel="epoch", ylabel=metric)
    for axes in panels[len(variants) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize="small")
    return figure


@dataclass(frozen=True, kw_only=True)
class _HeadScores:
    name: str
    parameters: int
    validation: Spread
    test: Spread


def parameters_figure(rows: Sequence[VariantRow], mode: Mode, references: Mapping[str, float]) -> Figure | None:
    """Draw AUC, averaged over the schedules, against the head's number of parameters (the paper's Figs. 5 and 6).

    Error bars are sample standard deviations over folds. Dotted lines are AUCs of other models, by other protocols.
    None if no head has all three schedules.
    """
    heads = _head_scores([row for row in rows if row.mode == mode and row.num_parameters])
    if not heads:
        return None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for label, marker, shift in (("validation", "o", 0.985), ("test", "s", 1.015)):  # side by side, not on each other
        spreads = [head.validation if label == "validation" else head.test for head in heads]
        axes.errorbar(
            [shift * head.parameters for head in heads],
            [spread.mean for spread in spreads],
            [spread.deviation for spread in spreads],
            fmt=marker,
            label=label,
            capsize=3,
        )
    for head in heads:
        place = (head.parameters, head.test.mean)
        axes.annotate(head.name, place, textcoords="offset points", xytext=(8, -3), fontsize="small")
    _draw_references(axes, references)
    axes.set(xscale="log", xlabel="parameters of the head", ylabel="AUC", title=f"{mode}: mean over schedules")
    axes.margins(x=0.2)
    axes.legend(fontsize="small", loc="lower right")
    return figure


def _head_scores(rows: Sequence[VariantRow]) -> list[_HeadScores]:
    """Return the heads that have all three schedules, in order of their number of parameters."""
    heads = []
    for head_and_input in dict.fromkeys(row.head_and_input for row in rows):
        ours = [row for row in rows if row.head_and_input == head_and_input]
        validation, test = (schedule_average(ours, score) for score in ("validation_auc", "test_auc"))
        if validation and test:
            name, parameters = ", ".join(head_and_input), ours[0].num_parameters or 0
            heads.append(_HeadScores(name=name, parameters=parameters, validation=validation, test=test))
    return sorted(heads, key=lambda head: head.parameters)


def best_schedules(rows: Sequence[VariantRow]) -> list[VariantRow]:
    """Return for each mode, head and input the row of the schedule with the best validation AUC."""
    best: dict[tuple[str, tuple[str, str]], VariantRow] = {}
    for row in rows:
        key = row.mode, row.head_and_input
        if key not in best or row.val_auc_mean > best[key].val_auc_mean:
            best[key] = row
    return list(best.values())


def calibration_figure(rows: Sequence[VariantRow], outcome: str) -> Figure | None:
    """Draw the outcome rate against the predicted risk, one panel per mode, one curve per head and input.

    A curve belongs to the schedule with the best validation AUC. None if no row has calibration points.
    """
    best = best_schedules([row for row in rows if row.calibration])
    if not best:
        return None
    modes = dict.fromkeys(row.mode for row in best)
    share, limits = outcome_words(outcome).share, (0, 0.8 if outcome == DEFAULT_OUTCOME else 1)
    figure = Figure(figsize=(4.5 * len(modes), 4.5), layout="constrained")
    for axes, mode in zip(figure.subplots(1, len(modes), squeeze=False)[0], modes, strict=True):
        axes.plot([0, 1], [0, 1], ":", color="grey")
        for row in best:
            if row.mode == mode:
                risks = [point.risk for point in row.calibration]
                rates = [point.outcome_rate for point in row.calibration]
                axes.plot(risks, rates, ".-", linewidth=1, label=", ".join(row.head_and_input))
        axes.set(title=mode, xlabel="predicted risk", ylabel=share, xlim=limits, ylim=limits)
        axes.legend(fontsize="x-small")
    return figure


def decision_figure(panels: Mapping[str, Mapping[str, Sequence[DecisionPoint]]]) -> Figure:
    """Draw the net benefit against the threshold, one panel per title, one curve per name, all over the same stays.

    Beside them stand treating all stays, and treating none. The axis ends a little below treating none.
    """
    figure = Figure(figsize=(4.5 * len(panels), 4.5), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, points in curves.items():
            axes.plot(
                [each.threshold for each in points], [each.net_benefit for each in points], linewidth=1, label=name
            )
        points = next(iter(curves.values()))
        axes.plot(
            [each.threshold for each in points],
            [each.treat_all for each in points],
            "--",
            color="grey",
            label="treat all",
        )
        axes.axhline(0, linestyle=":", color="grey", label="treat none")
        highest = max(each.treat_all for each in points)
        axes.set(
            title=title, xlabel="threshold of the risk", ylabel="net benefit", ylim=(-0.25 * highest, 1.1 * highest)
        )
        axes.legend(fontsize="x-small")
    return figure


def attributions_figure(table: pd.DataFrame, title: str, window: Window | None = None) -> Figure:
    """Draw how much each variable in each hour added to a risk, the variables with the largest effect on top.

    `table` has the columns Part, Hour, Parameter and Attribution. Cells have an hour; those that the model does not
    read are grey. What has no hour (statistics, static facts, a hidden state) stands beside them as bars, the largest
    on top. No more than SHOWN_BARS are drawn; the last one is the sum of the others.
    """
    is_cell = table["Hour"].notna()
    cells, bars = table[is_cell], _bars(table[~is_cell])
    rows = max(cells["Parameter"].nunique(), len(bars), 1)
    with_cells = len(cells) > 0 or len(bars) == 0
    widths = ([9.0] if with_cells else []) + ([4.5 if with_cells else 9.0] if len(bars) else [])
    figure = Figure(figsize=(sum(widths), 1.2 + 0.22 * rows), layout="constrained")
    panels = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    if with_cells:
        _draw_cells(figure, panels[0], cells, window or Window())
    if len(bars):
        colours = ["tab:red" if added > 0 else "tab:blue" for added in bars]
        panels[-1].barh(np.arange(len(bars)), bars.to_numpy(), color=colours)
        panels[-1].set_yticks(np.arange(len(bars)), list(bars.index), fontsize="small")
        panels[-1].axvline(0, color="0.5", linewidth=0.8)
        panels[-1].set(xlabel="added to the risk")
    if len(panels) > 1:
        figure.suptitle(title, fontsize="medium")
    else:
        panels[0].set_title(title, fontsize="medium")
    return figure


def _bars(table: pd.DataFrame) -> pd.Series:
    """Return the attribution of each part without hours by its name, the largest last, the smallest as one sum."""
    added = [float(each) for each in table["Attribution"]]
    names = [
        f"{name} ({part})" if part != name else str(name)
        for part, name in zip(table["Part"], table["Parameter"], strict=True)
    ]
    bars = pd.Series(added, index=names, dtype=np.float64).sort_values(key=abs)
    if len(bars) <= SHOWN_BARS:
        return bars
    rest, shown = bars[: 1 - SHOWN_BARS], bars[1 - SHOWN_BARS :]
    return pd.concat([pd.Series([rest.sum()], index=[f"{len(rest)} others"]), shown])


def _draw_cells(figure: Figure, axes: Axes, table: pd.DataFrame, window: Window) -> None:
    grid = table.astype({"Hour": int}).pivot_table(index="Parameter", columns="Hour", values="Attribution")
    hours = np.arange(0, window.hours, window.bin_hours)
    grid = grid.loc[grid.abs().sum(axis=1).sort_values().index].reindex(columns=hours)
    furthest = float(np.nanmax(np.abs(grid.to_numpy()))) if len(grid) else 1.0
    furthest = furthest or 1.0
    drawn = axes.pcolormesh(
        np.append(hours, window.hours),
        np.arange(len(grid) + 1),
        grid.to_numpy(),
        cmap="RdBu_r",
        vmin=-furthest,
        vmax=furthest,
    )
    axes.set_facecolor("0.85")
    axes.set_yticks(np.arange(len(grid)) + 0.5, list(grid.index), fontsize="small")
    axes.set(xlabel="hour since admission (grey: not observed)")
    figure.colorbar(drawn, ax=axes, label="added to the risk")


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    return _drawn(figure, "png", dpi=DOTS_PER_INCH, metadata={"Software": None})


def to_svg(figure: Figure) -> bytes:
    """Return a figure as SVG with its text kept as text; the same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.hashsalt": "imputune", "svg.fonttype": "none"}):
        return _drawn(figure, "svg", metadata={"Date": None, "Creator": None})


def _drawn(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


def _draw_references(axes: Axes, references: Mapping[str, float]) -> None:
    for name, auc in references.items():
        axes.axhline(auc, linestyle=":", linewidth=0.8, color="grey")
        text = f"{name} (other protocol)"
        axes.annotate(text, (0.01, auc), xycoords=("axes fraction", "data"), fontsize="x-small", color="grey")
