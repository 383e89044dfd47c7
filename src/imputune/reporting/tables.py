"""Tables of text in one form for the terminal, Markdown and LaTeX, and how numbers are written in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import pandas as pd

from imputune.evaluation.rows import Spread, VariantRow

EMPTY = ""
SMALLEST_P = 0.001  # smaller p-values are written as below it


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, a header, lines with as many texts as the header, and a remark below them."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    remark: str = ""

    def to_markdown(self) -> str:
        """Return the table as Markdown, its title a heading."""
        table = markdown_table(self.header, self.lines)
        return "\n\n".join(part for part in (f"## {self.title}", table, self.remark) if part)

    def to_latex(self, note: str = "") -> str:
        """Return the table as a LaTeX table environment with booktabs rules; `note` ends its caption."""
        frame = pd.DataFrame(self.lines, columns=list(self.header))
        style = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
        caption = " ".join(part for part in (f"{self.title}.", self.remark, note) if part)
        text = style.to_latex(hrules=True, caption=_escaped(caption), position="htbp", position_float="centering")
        return text.replace("±", r"$\pm$").replace("−", "$-$")


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every line has as many texts as the header."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *lines))


def spread_text(mean: float, deviation: float) -> str:
    """Return mean ± deviation, three decimal places; the mean alone if there is no deviation, which is NaN then."""
    return f"{mean:.3f}" if isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def slope_text(row: VariantRow) -> str:
    """Return the calibration slope of a variant, mean ± deviation, "" if a fold has none."""
    mean, deviation = row.test_calibration_slope_mean, row.test_calibration_slope_std
    return EMPTY if mean is None or deviation is None else spread_text(mean, deviation)


def auc_text(auc: float | None) -> str:
    """Return an AUC, "" for None."""
    return EMPTY if auc is None else f"{auc:.3f}"


def difference_text(difference: float, places: int) -> str:
    """Return a difference with its sign."""
    return f"{difference:+.{places}f}".replace("-", "−")


def difference_from(ours: Spread | None, paper: float | None) -> str:
    """Return our mean minus the paper's figure, "" if one of the two is missing."""
    return EMPTY if ours is None or paper is None else difference_text(ours.mean - paper, 3)


def p_text(p_value: float) -> str:
    """Return a p-value, as "< 0.001" if it is smaller."""
    return f"< {SMALLEST_P}" if p_value < SMALLEST_P else f"{p_value:.3f}"


def minutes_text(seconds: float) -> str:
    """Return seconds as whole minutes."""
    return f"{seconds / 60:,.0f}"


def _escaped(text: str) -> str:
    for character in "&%$#_":
        text = text.replace(character, f"\\{character}")
    return text
