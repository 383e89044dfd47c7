"""Imputer or classifier: the matrix of test AUC of every imputer with every head, and where its variance lies.

Letters: I imputers, C classifiers (heads), F folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from imputune.catalogue import IMPUTERS, PRETRAINED
from imputune.config import ImputerName
from imputune.evaluation.rows import Row
from imputune.evaluation.tables import Table, spread
from imputune.evaluation.verdicts import CITATION, LEVEL, corrected_t_test

CONTROLS: tuple[ImputerName, ...] = ("csai_untrained", "csai_shuffled")
CLEARLY = 1.5  # times the next: from there on one part of the variance is said to weigh more


@dataclass(frozen=True)
class Decomposition:
    """How the sum of squares of test AUC divides, as shares that add up to 1.

    imputer, head, interaction and folds; rest is what a fold does to a single combination. interaction_p: of the F-test
    of the interaction against the rest; 1 where there is no rest.
    """

    imputers: tuple[ImputerName, ...]
    heads: tuple[str, ...]
    imputer: float
    head: float
    interaction: float
    folds: float
    rest: float
    interaction_p: float


def decompose(rows: Sequence[Row]) -> Decomposition | None:
    """Divide the variance of test AUC among imputer, head, their interaction and the folds.

    Only imputers that have every head count. None for fewer than two imputers or heads. Two-way analysis of variance
    with folds as blocks: the sums of squares about the grand mean, balanced, so that they add up.
    """
    heads = tuple(dict.fromkeys(row.head for row in rows))
    found = {(row.imputer, row.head): row for row in rows}
    imputers = tuple(
        imputer
        for imputer in dict.fromkeys(row.imputer for row in rows)
        if all((imputer, head) in found for head in heads)
    )
    if len(imputers) < 2 or len(heads) < 2:
        return None
    numbers = sorted(found[imputers[0], heads[0]].by_fold("test_auc"))
    auc_ICF = np.array(
        [
            [[found[imputer, head].by_fold("test_auc")[number] for number in numbers] for head in heads]
            for imputer in imputers
        ]
    )
    return Decomposition(imputers, heads, *_shares(auc_ICF))


def _shares(auc_ICF: np.ndarray) -> tuple[float, float, float, float, float, float]:
    imputers, heads, folds = auc_ICF.shape
    grand = auc_ICF.mean()
    of_imputer_I, of_head_C, of_fold_F = (auc_ICF.mean(axis=axes) - grand for axes in ((1, 2), (0, 2), (0, 1)))
    both_IC = auc_ICF.mean(axis=2) - grand - of_imputer_I[:, None] - of_head_C
    rest_ICF = auc_ICF - auc_ICF.mean(axis=2, keepdims=True) - of_fold_F
    squares = np.array(
        [
            heads * folds * (of_imputer_I**2).sum(),
            imputers * folds * (of_head_C**2).sum(),
            folds * (both_IC**2).sum(),
            imputers * heads * (of_fold_F**2).sum(),
            (rest_ICF**2).sum(),
        ]
    )
    degrees = (imputers - 1) * (heads - 1), (imputers * heads - 1) * (folds - 1)
    p_value = 1.0
    if degrees[1] and squares[4] > 0:
        p_value = float(stats.f.sf(squares[2] / degrees[0] / (squares[4] / degrees[1]), *degrees))
    of_imputer, of_head, of_both, of_folds, rest = (squares / max(squares.sum(), 1e-300)).tolist()
    return of_imputer, of_head, of_both, of_folds, rest, p_value


def answer(dataset: str, found: Decomposition | None) -> str:
    """Return the question's answer in one sentence; what is missing for one where there is none."""
    if found is None:
        return "There is no answer yet: it takes two imputers, each with the same two heads or more."
    parts = {
        "the classifier": found.head,
        "the imputer": found.imputer,
        "the interaction of both": found.interaction,
    }
    (first, most), (second, next_most), _ = sorted(parts.items(), key=lambda part: -part[1])
    told = f"{first} weighs most" if most >= CLEARLY * next_most else f"{first} and {second} weigh about the same"
    return (
        f"On {dataset} {told}: of the variance of test AUC over {len(found.imputers)} imputers, {len(found.heads)} "
        f"classifiers and their folds, {found.head:.0%} is the classifier's, {found.imputer:.0%} the imputer's, "
        f"{found.interaction:.0%} their interaction's and {found.folds:.0%} the folds', which leaves {found.rest:.0%}."
    )


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
    """Return where the variance lies, with the controls and without; None where there is nothing to divide."""
    everything = decompose(rows)
    if everything is None:
        return None
    without = decompose([row for row in rows if row.imputer not in CONTROLS])
    chosen = [("all", everything)]
    if without is not None and without.imputers != everything.imputers:
        chosen.append(("without the controls", without))
    lines = tuple(
        (
            name,
            f"{len(found.imputers)} × {len(found.heads)}",
            *(f"{part:.1%}" for part in (found.head, found.imputer, found.interaction, found.folds, found.rest)),
            f"{found.interaction_p:.3f}",
        )
        for name, found in chosen
    )
    header = (
        *("imputers", "imputers × classifiers", "classifier", "imputer", "interaction", "folds", "rest"),
        "p of the interaction",
    )
    remark = (
        "Shares of the sum of squares of test AUC about its mean, two-way analysis of variance, folds as blocks. p: "
        "F-test of the interaction against the rest; folds share training stays, so that it is too small rather than "
        "too large."
    )
    return Table("Where the variance lies", header, lines, remark)


def rivals_table(rows: Sequence[Row], test_to_train: float) -> Table | None:
    """Return CSAI against each other imputer, over the heads that both have; None where there is none."""
    by_imputer: dict[ImputerName, dict[str, Row]] = {}
    for row in rows:
        by_imputer.setdefault(row.imputer, {})[row.head] = row
    ours = by_imputer.get(PRETRAINED, {})
    lines = []
    for imputer, theirs in by_imputer.items():
        heads = [head for head in ours if head in theirs]
        if imputer == PRETRAINED or not heads:
            continue
        differences = [
            float(
                np.mean(
                    [ours[head].by_fold("test_auc")[fold] - theirs[head].by_fold("test_auc")[fold] for head in heads]
                )
            )
            for fold in ours[heads[0]].by_fold("test_auc")
        ]
        p_value, mean = corrected_t_test(differences, test_to_train), float(np.mean(differences))
        verdict = "undecided" if p_value >= LEVEL else "CSAI is ahead" if mean > 0 else "CSAI is behind"
        told = f"{mean:+.4f}".replace("-", "−")
        lines.append((IMPUTERS[imputer].label, str(len(heads)), told, f"{p_value:.3f}", verdict))
    header = ("CSAI against", "heads", "difference in test AUC", "p", f"verdict at {LEVEL}")
    remark = f"Mean over the heads, by fold; {CITATION}."
    return Table("CSAI against each other imputer", header, tuple(lines), remark) if lines else None
