"""The matrix of imputers and heads in words and tables."""

from collections.abc import Sequence

import numpy as np

from imputune.evaluation.rows import Row
from imputune.evaluation.significance import CITATION, LEVEL, corrected_t_test, holm
from imputune.evaluation.variance import Decomposition, decompose
from imputune.protocol.imputers import CONTROLS, IMPUTERS, PRETRAINED
from imputune.reporting.tables import Table, spread
from imputune.settings.names import ImputerName

SMALLEST_TOLD = 0.001  # p-value
CLEARLY = 1.5  # times the next: from there on one part of the variance is said to weigh more


def answer(dataset: str, rows: Sequence[Row]) -> str:
    """Return the question's answer in one sentence, the controls set aside; without one, what it takes.

    Only a part that stands out from the rest (F-test, 0.05) is said to weigh anything, and one alone to weigh most
    where its effect is half as large again as the next. What the parts are among those of the imputers that learn is
    told beside, where there are plain rules too.
    """
    aside, learned = _parts(rows)
    found = decompose(aside)
    if found is None:
        return "There is no answer yet: it takes two imputers, controls aside, each with the same two heads or more."
    parts = (
        ("the classifier", found.head_effect, found.head_p),
        ("the imputer", found.imputer_effect, found.imputer_p),
        ("the interaction of both", found.interaction_effect, found.interaction_p),
    )
    clear = sorted((part for part in parts if part[2] < LEVEL), key=lambda part: -part[1])
    if not clear:
        told = "neither imputer nor classifier stands out from what differs between folds"
    elif len(clear) == 1 or clear[0][1] >= CLEARLY * clear[1][1]:
        told = f"{clear[0][0]} weighs most"
    else:
        told = f"{clear[0][0]} and {clear[1][0]} weigh about the same"
    same = [row for row in learned if row.imputer in found.imputers and row.head in found.heads]
    return (
        f"On {dataset} {told}: of the variance of test AUC over {len(found.imputers)} imputers, {len(found.heads)} "
        f"classifiers and their folds, {found.head:.0%} is the classifier's, {found.imputer:.0%} the imputer's, "
        f"{found.interaction:.0%} their interaction's and {found.folds:.0%} the folds', which leaves {found.rest:.0%}"
        f"{_beside(found, decompose(same))}."
    )


def _beside(found: Decomposition, learned: Decomposition | None) -> str:
    if learned is None or learned.imputers == found.imputers:
        return ""
    return (
        f"; among the {len(learned.imputers)} imputers that learn, the classifier's part is {learned.head:.0%} and the "
        f"imputer's {learned.imputer:.0%}"
    )


def _parts(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows without the controls, and of these the rows of imputers that learn."""
    aside = [row for row in rows if row.imputer not in CONTROLS]
    return aside, [row for row in aside if IMPUTERS[row.imputer].family != "plain"]


def matrix_table(rows: Sequence[Row]) -> Table:
    """Return test AUC, a line for each imputer and a column for each head."""
    heads = tuple(dict.fromkeys(row.head for row in rows))
    found = {(row.imputer, row.head): row for row in rows}
    lines = []
    for imputer in dict.fromkeys(row.imputer for row in rows):
        texts = [
            spread(row.test_auc_mean, row.test_auc_std) if (row := found.get((imputer, head))) else "" for head in heads
        ]
        seconds = sum(row.seconds for row in rows if row.imputer == imputer)
        lines.append((IMPUTERS[imputer].label, *texts, f"{seconds / 60:,.0f}"))
    remark = (
        "AUC of in-hospital death, mean ± sample deviation over the test folds; imputers frozen, folds and seeds the "
        "same; each fold's epoch was chosen on its validation stays. A perceptron reads the imputer's hidden state, or "
        "the imputed series where it has none; a recurrent head the imputed series, begun in the hidden state; xgboost "
        "and svm the imputed series. Minutes are the folds' training times added up."
    )
    return Table("Imputer × classifier: test AUC", ("imputer", *heads, "minutes"), tuple(lines), remark)


def decomposition_table(rows: Sequence[Row]) -> Table | None:
    """Return where the variance lies, for all imputers and for parts of them; None where there is nothing to divide."""
    aside, learned = _parts(rows)
    chosen: dict[str, Decomposition | None] = {}
    for name, part in (("all", rows), ("controls aside", aside), ("those that learn", learned)):
        if (found := decompose(part)) not in chosen.values():
            chosen[name] = found
    lines = tuple(
        (
            name,
            f"{len(found.imputers)} × {len(found.heads)}",
            f"{found.head:.1%} ({_told(found.head_p)})",
            f"{found.imputer:.1%} ({_told(found.imputer_p)})",
            f"{found.interaction:.1%} ({_told(found.interaction_p)})",
            f"{found.folds:.1%}",
            f"{found.rest:.1%}",
        )
        for name, found in chosen.items()
        if found
    )
    header = (
        *("imputers", "imputers × classifiers", "classifier (p)", "imputer (p)", "interaction (p)", "folds", "rest"),
    )
    remark = (
        "Shares of the sum of squares of test AUC about its mean, two-way analysis of variance, folds as blocks. p: "
        "F-test against the rest; folds share training stays, so that p is too small rather than too large. Those that "
        "learn: without controls and plain rules."
    )
    return Table("Where the variance lies", header, lines, remark) if lines else None


def rivals_table(rows: Sequence[Row], test_to_train: float) -> Table | None:
    """Return CSAI against each other imputer, over the heads that both have; None where there is none."""
    by_imputer: dict[ImputerName, dict[str, Row]] = {}
    for row in rows:
        by_imputer.setdefault(row.imputer, {})[row.head] = row
    ours = by_imputer.pop(PRETRAINED, {})
    found = []
    for imputer, theirs in by_imputer.items():
        if not (heads := [head for head in ours if head in theirs]):
            continue
        pairs = [(ours[head].by_fold("test_auc"), theirs[head].by_fold("test_auc")) for head in heads]
        differences = [float(np.mean([mine[fold] - other[fold] for mine, other in pairs])) for fold in pairs[0][0]]
        found.append((imputer, len(heads), float(np.mean(differences)), corrected_t_test(differences, test_to_train)))
    p_values = holm([p_value for *_, p_value in found])
    lines = tuple(
        (
            IMPUTERS[imputer].label,
            str(heads),
            f"{mean:+.4f}".replace("-", "−"),
            _told(p_value),
            "undecided" if p_value >= LEVEL else "CSAI is ahead" if mean > 0 else "CSAI is behind",
        )
        for (imputer, heads, mean, _), p_value in zip(found, p_values, strict=True)
    )
    header = ("CSAI against", "heads", "difference in test AUC", "p", f"verdict at {LEVEL}")
    remark = f"Mean over the heads, by fold; {CITATION}; p adjusted for the number of comparisons (Holm 1979)."
    return Table("CSAI against each other imputer", header, lines, remark) if lines else None


def _told(p_value: float) -> str:
    return "< 0.001" if p_value < SMALLEST_TOLD else f"{p_value:.3f}"
