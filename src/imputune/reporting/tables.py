"""Rows to tables of text, one form for the terminal, Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from imputune.evaluation.rows import ImputerRow, Row, schedule_average
from imputune.evaluation.significance import CITATION
from imputune.evaluation.verdicts import Verdict
from imputune.protocol.published import (
    AVERAGE,
    REFERENCES,
    SCHEDULES,
    quoted,
)

NONE = ""


@dataclass(frozen=True)
class Table:
    """A title, a header, lines of as many texts, and a remark under them."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    remark: str = ""

    def to_markdown(self) -> str:
        """Return the table as Markdown, its title a heading."""
        rows = [self.header, ["---"] * len(self.header), *self.lines]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return "\n\n".join(part for part in (f"## {self.title}", table, self.remark) if part)

    def to_latex(self) -> str:
        """Return the table as a LaTeX table environment with booktabs rules."""
        frame = pd.DataFrame(self.lines, columns=list(self.header))
        style = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
        caption = f"{self.title}. {self.remark}".rstrip()
        text = style.to_latex(hrules=True, caption=_escaped(caption), position="htbp", position_float="centering")
        return text.replace("±", r"$\pm$").replace("−", "$-$")


def cells_table(rows: Sequence[Row]) -> Table:
    """Return every cell with its scores."""
    header = (
        *("head", "mode", "input", "schedule", "params", "val AUC", "test AUC", "paper", "test AUPRC", "test Brier"),
        *("calibration error", "seconds"),
    )
    lines = [
        (
            row.head,
            row.mode,
            row.input,
            row.schedule,
            f"{row.num_parameters:,}" if row.num_parameters else NONE,
            spread(row.val_auc_mean, row.val_auc_std),
            spread(row.test_auc_mean, row.test_auc_std),
            f"{row.paper_test_auc:.3f}" if row.paper_test_auc is not None else NONE,
            spread(row.test_auprc_mean, row.test_auprc_std),
            spread(row.test_brier_mean, row.test_brier_std),
            spread(row.test_calibration_error_mean, row.test_calibration_error_std),
            f"{row.seconds:,.0f}",
        )
        for row in rows
    ]
    remark = (
        "Mean ± sample deviation over the test folds; the kept epoch of each fold was chosen on its validation stays. "
        "Params counts the head alone. Seconds are the folds' training times added up, an unfrozen cell's with those "
        "of the frozen head it starts from. Paper is the paper's test AUC: by schedule where frozen, averaged over the "
        "schedules where unfrozen."
    )
    return Table("Every cell: in-hospital death", header, tuple(lines), remark)


def summary_table(dataset: str, rows: Sequence[Row]) -> Table | None:
    """Return test AUC averaged over the three schedules, frozen and unfrozen side by side; None without an average."""
    lines = []
    for head, reads in dict.fromkeys(row.reader for row in rows if row.num_parameters):
        line = [head, reads, f"{next(row.num_parameters for row in rows if row.head == head):,}"]
        for mode in ("frozen", "unfrozen"):
            chosen = [row for row in rows if row.mode == mode and row.reader == (head, reads)]
            for score in ("validation_auc", "test_auc"):
                average = schedule_average(chosen, score)
                line.append(spread(*average) if average else NONE)
            quote = quoted(dataset, head, mode, reads, AVERAGE)
            line.append(NONE if quote is None or quote.test_auc is None else f"{quote.test_auc:.3f}")
        if any(line[place] for place in (3, 4, 6, 7)):
            lines.append(tuple(line))
    header = ("head", "input", "params", "frozen val", "frozen test", "paper", "unfrozen val", "unfrozen test", "paper")
    remark = "AUC of in-hospital death, mean ± sample deviation over the test folds; paper: its test AUC."
    return Table("Averaged over the three schedules", header, tuple(lines), remark) if lines else None


def protocol_table(dataset: str, mode: str, rows: Sequence[Row]) -> Table | None:
    """Return the paper's Table II (frozen) or III (unfrozen) with ours, the paper's and the difference line by line.

    The average is over the three schedules, fold by fold, and stands where all three were run. None without cells.
    """
    chosen = [row for row in rows if row.mode == mode and row.schedule in SCHEDULES]
    if not chosen:
        return None
    header = ("model", "", *(f"{schedule} {part}" for schedule in (*SCHEDULES, AVERAGE) for part in ("val", "test")))
    lines: list[tuple[str, ...]] = []
    for head, reads in dict.fromkeys(row.reader for row in chosen):
        of_schedule = {row.schedule: row for row in chosen if row.reader == (head, reads)}
        ours = [_schedule_scores(of_schedule, name) for name in (*SCHEDULES, AVERAGE)]
        quotes = [quoted(dataset, head, mode, reads, name) for name in (*SCHEDULES, AVERAGE)]
        if mode == "unfrozen":
            quotes[: len(SCHEDULES)] = [None] * len(SCHEDULES)
        paper = [(quote.val_auc, quote.test_auc) if quote else (None, None) for quote in quotes]
        both = [(mine, theirs) for pair in zip(ours, paper, strict=True) for mine, theirs in zip(*pair, strict=True)]
        lines.append((f"{head}, {reads}", "ours", *(spread(*mine) if mine else NONE for mine, _ in both)))
        if any(theirs is not None for _, theirs in both):
            lines.append(("", "paper", *(NONE if theirs is None else f"{theirs:.3f}" for _, theirs in both)))
            lines.append(("", "difference", *(_difference(mine, theirs) for mine, theirs in both)))
    number, remark = ("II", "") if mode == "frozen" else ("III", "Of Table III, only averages that its text quotes.")
    return Table(f"Table {number}: {mode} imputer, AUC by schedule", header, tuple(lines), remark)


def shallow_table(rows: Sequence[Row]) -> Table | None:
    """Return xgboost and svm by what they read, the paper's figure beside ours; None without such cells."""
    lines = [
        (
            row.head,
            row.input,
            spread(row.val_auc_mean, row.val_auc_std),
            spread(row.test_auc_mean, row.test_auc_std),
            NONE if row.paper_test_auc is None else f"{row.paper_test_auc:.3f}",
            _difference((row.test_auc_mean, row.test_auc_std), row.paper_test_auc),
        )
        for row in rows
        if row.schedule == "none"
    ]
    if not lines:
        return None
    header = ("head", "input", "val AUC", "test AUC", "paper", "difference")
    remark = "The paper does not say which input its figures are of; it did not try summary statistics."
    return Table("Heads that are no networks", header, tuple(lines), remark)


def verdicts_table(verdicts: Sequence[Verdict]) -> Table | None:
    """Return the paper's claims and what our folds say of them; None where there is nothing to compare."""
    lines = tuple(
        (each.claim, each.compared, f"{each.difference:+.4f}".replace("-", "−"), f"{each.p_value:.3f}", each.verdict)
        for each in verdicts
    )
    header = ("the paper's claim", "compared", "difference in test AUC", "p", "verdict at 0.05")
    return Table("The paper's claims", header, lines, f"By fold; {CITATION}.") if lines else None


def time_table(rows: Sequence[Row]) -> Table:
    """Return how long each part of the protocol took."""
    kinds: dict[str, list[Row]] = {"frozen": [], "unfrozen": [], "no network": []}
    for row in rows:
        kinds["no network" if row.schedule == "none" else row.mode].append(row)
    lines = tuple(
        (kind, str(len(chosen)), f"{sum(row.seconds for row in chosen) / 60:,.0f}")
        for kind, chosen in kinds.items()
        if chosen
    )
    remark = (
        "Folds run side by side: on two cores a command takes about half of this. Unfrozen minutes count those of the "
        "frozen heads that they start from once more."
    )
    return Table("Time", ("cells", "number", "minutes, of all folds added up"), lines, remark)


def references_table() -> Table:
    """Return the test AUCs that are quoted of other models."""
    lines = tuple((name, f"{auc:.3f}") for name, auc in REFERENCES.items())
    remark = "As quoted; trained and tested by other protocols on other splits, so landmarks and no comparison."
    return Table("Other protocols", ("model", "test AUC"), lines, remark)


def imputers_table(rows: Sequence[ImputerRow]) -> Table:
    """Return the imputers' errors on hidden cells of test stays."""
    header = ("imputer", "cells hidden", "test MAE", "test MRE")
    lines = tuple(
        (row.imputer, row.hiding, spread(row.mae_mean, row.mae_std), spread(row.mre_mean, row.mre_std))
        for row in rows
        if row.partition == "test"
    )
    return Table("Imputation of hidden cells, in training standard deviations", header, lines)


def spread(mean: float, deviation: float) -> str:
    """Return mean ± deviation as text."""
    return f"{mean:.3f} ± {deviation:.3f}"


def _schedule_scores(rows: dict[str, Row], schedule: str) -> tuple[tuple[float, float] | None, ...]:
    """Return (mean, deviation) of validation and test AUC, or None where the cell was not run."""
    if schedule == AVERAGE:
        return tuple(schedule_average(list(rows.values()), score) for score in ("validation_auc", "test_auc"))
    row = rows.get(schedule)
    if row is None:
        return None, None
    return (row.val_auc_mean, row.val_auc_std), (row.test_auc_mean, row.test_auc_std)


def _difference(mine: tuple[float, float] | None, theirs: float | None) -> str:
    return NONE if mine is None or theirs is None else f"{mine[0] - theirs:+.3f}".replace("-", "−")


def _escaped(text: str) -> str:
    for character in "&%$#_":
        text = text.replace(character, f"\\{character}")
    return text
