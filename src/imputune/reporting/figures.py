"""Figures, as matplotlib objects; whoever asks for one saves it."""

import io
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imputune.data.cohort import HOURS
from imputune.evaluation.rows import Row, schedule_average

History = Sequence[Mapping[str, float]]
DOTS_PER_INCH = 110
COLUMNS = 3
LABELS = {"train": "train, with dropout", "validation": "validation"}


def curves_figure(histories: Mapping[int, History], metric: str, title: str) -> Figure:
    """Draw a metric's training and validation curves over epochs, a colour per fold, training dashed.

    `histories` maps a fold's number to its rows, one per epoch, with `train_<metric>` and `validation_<metric>`; a
    curve that no row has is left out.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for fold, history in sorted(histories.items()):
        for part, style in (("train", "--"), ("validation", "-")):
            values = [row[f"{part}_{metric}"] for row in history if f"{part}_{metric}" in row]
            if values:
                axes.plot(values, style, color=f"C{fold}", label=f"fold {fold}, {part}", linewidth=1)
    axes.set(title=title, xlabel="epoch", ylabel=metric)
    axes.legend(fontsize="x-small", ncols=2)
    return figure


def mean_curves_figure(cells: Mapping[str, Mapping[int, History]], metric: str) -> Figure:
    """Draw training against validation curves, a panel per cell; each is the mean over the folds still training."""
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, histories) in zip(panels, cells.items(), strict=False):
        for part, style in (("train", "--"), ("validation", "-")):
            curves = [[row[f"{part}_{metric}"] for row in history] for history in histories.values()]
            means = [fmean(value for value in values if value is not None) for values in zip_longest(*curves)]
            axes.plot(means, style, color="C0", label=LABELS[part])
        axes.set_title(name, fontsize="small")
        axes.set(xlabel="epoch", ylabel=metric)
    for axes in panels[len(cells) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize="small")
    return figure


def parameters_figure(rows: Sequence[Row], mode: str, references: Mapping[str, float]) -> Figure | None:
    """Draw AUC, averaged over the schedules, against the head's number of parameters (the paper's Figs. 5 and 6).

    Bars are sample deviations over folds; dotted lines are other models' figures, by other protocols. None where no
    head has all three schedules.
    """
    readers = dict.fromkeys(row.reader for row in rows if row.mode == mode and row.num_parameters)
    points = []
    for reader in readers:
        chosen = [row for row in rows if row.mode == mode and row.reader == reader]
        found = (schedule_average(chosen, score) for score in ("validation_auc", "test_auc"))
        scores = [score for score in found if score is not None]
        if scores:
            points.append((chosen[0].num_parameters or 0, ", ".join(reader), scores))
    if not points:
        return None
    points.sort(key=lambda point: point[0])
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for place, (label, marker) in enumerate((("validation", "o"), ("test", "s"))):
        means, deviations = zip(*(scores[place] for _, _, scores in points), strict=True)
        counts = [count * (0.985 + 0.03 * place) for count, _, _ in points]
        axes.errorbar(counts, means, deviations, fmt=marker, label=label, capsize=3)
    for count, name, scores in points:
        axes.annotate(name, (count, scores[1][0]), textcoords="offset points", xytext=(8, -3), fontsize="small")
    _draw_references(axes, references)
    axes.set(xscale="log", xlabel="parameters of the head", ylabel="AUC", title=f"{mode}: mean over schedules")
    axes.margins(x=0.2)
    axes.legend(fontsize="small", loc="lower right")
    return figure


def calibration_figure(rows: Sequence[Row]) -> Figure | None:
    """Draw the share that died against the predicted risk, a panel per mode, for each head and input.

    Of a head's schedules the one with the best validation AUC is drawn. None where no row has points.
    """
    chosen: dict[tuple[str, tuple[str, str]], Row] = {}
    for row in rows:
        best = chosen.get((row.mode, row.reader))
        if row.calibration and (best is None or row.val_auc_mean > best.val_auc_mean):
            chosen[row.mode, row.reader] = row
    if not chosen:
        return None
    modes = dict.fromkeys(mode for mode, _ in chosen)
    figure = Figure(figsize=(4.5 * len(modes), 4.5), layout="constrained")
    for axes, mode in zip(figure.subplots(1, len(modes), squeeze=False)[0], modes, strict=True):
        axes.plot([0, 1], [0, 1], ":", color="grey")
        for (row_mode, reader), row in chosen.items():
            if row_mode == mode:
                risks, shares = ([point[name] for point in row.calibration] for name in ("risk", "died"))
                axes.plot(risks, shares, ".-", linewidth=1, label=", ".join(reader))
        axes.set(title=mode, xlabel="predicted risk", ylabel="share that died", xlim=(0, 0.8), ylim=(0, 0.8))
        axes.legend(fontsize="x-small")
    return figure


def attributions_figure(table: pd.DataFrame, title: str) -> Figure:
    """Draw what each variable in each hour added to a risk, the variables that moved it most on top.

    `table` has a row per observed cell: Hour, Parameter, Attribution. Cells that were not observed are grey.
    """
    grid = table.pivot_table(index="Parameter", columns="Hour", values="Attribution")
    grid = grid.loc[grid.abs().sum(axis=1).sort_values().index].reindex(columns=range(HOURS))
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(grid)), layout="constrained")
    axes = figure.add_subplot()
    furthest = float(np.nanmax(np.abs(grid.to_numpy()))) if len(grid) else 1.0
    furthest = furthest or 1.0
    drawn = axes.pcolormesh(grid.to_numpy(), cmap="RdBu_r", vmin=-furthest, vmax=furthest)
    axes.set_facecolor("0.85")
    axes.set_yticks(np.arange(len(grid)) + 0.5, list(grid.index), fontsize="small")
    axes.set(xlabel="hour since admission (grey: not observed)")
    axes.set_title(title, fontsize="medium")
    figure.colorbar(drawn, ax=axes, label="added to the risk")
    return figure


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    return _drawn(figure, "png", dpi=DOTS_PER_INCH, metadata={"Software": None})


def to_svg(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes for the same figure, its text as text."""
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
