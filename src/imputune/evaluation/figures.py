"""Figures, as matplotlib objects; whoever asks for one saves it."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def curves_figure(histories: Mapping[int, Sequence[Mapping[str, float]]], metric: str, title: str) -> Figure:
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
