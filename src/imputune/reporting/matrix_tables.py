"""Imputers crossed with heads, in words: the answer, the matrix of test AUC, its variance, CSAI against the others."""

from collections.abc import Sequence

from imputune.evaluation.comparison import ImputerComparison
from imputune.evaluation.contrasts import AucContrast, auc_contrasts
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.significance import CITATION, SIGNIFICANCE_LEVEL
from imputune.evaluation.variance import Decomposition, Part
from imputune.protocol.imputers import imputer_kind
from imputune.protocol.outcome_words import OutcomeWords
from imputune.reporting.tables import EMPTY, Table, difference_text, minutes_text, p_text, spread_text

DOMINATES = 1.5  # times the next effect size: from there on one factor is said to dominate


def answer_sentence(comparison: ImputerComparison) -> str:
    """Say whether imputer or classifier matters more, without the controls.

    Only significant factors (F-test against the residual, 0.05) are named. One matters most if its effect size (omega
    squared) is at least 1.5 times the next. If there are plain rules, the shares among the imputers that learn follow.
    """
    found = comparison.decomposition_without_controls
    if found is None:
        if comparison.division.splits == 1:
            return "There is no answer: an analysis of variance needs two splits or more, and there is one."
        return "There is no answer yet: at least two imputers other than controls need the same two heads."
    return (
        f"On {comparison.dataset} {_dominant(found)}. Of the variance of test AUC over {len(found.imputers)} imputers, "
        f"{len(found.heads)} classifiers and their folds, the classifier explains {found.head.share:.0%}, the imputer "
        f"{found.imputer.share:.0%}, their interaction {found.interaction.share:.0%} and the folds {found.folds:.0%}; "
        f"{found.residual:.0%} is unexplained{_among_learned(comparison, found)}."
    )


def _dominant(found: Decomposition) -> str:
    factors = {
        "the classifier": found.head,
        "the imputer": found.imputer,
        "the interaction of both": found.interaction,
    }
    clear = [name for name, part in factors.items() if part.p_value < SIGNIFICANCE_LEVEL]
    clear.sort(key=lambda name: -factors[name].effect)
    if not clear:
        return "neither the imputer nor the classifier has a significant effect"
    if len(clear) == 1 or factors[clear[0]].effect >= DOMINATES * factors[clear[1]].effect:
        return f"{clear[0]} matters most"
    return f"{clear[0]} and {clear[1]} matter about equally"


def _among_learned(comparison: ImputerComparison, found: Decomposition) -> str:
    """Return a sentence on the imputers that learn, with the same heads; "" if all of them do, or too few."""
    learned = comparison.decomposition_of_learned
    if learned is None or learned.imputers == found.imputers:
        return ""
    return (
        f". Among the {len(learned.imputers)} imputers that learn, the classifier explains {learned.head.share:.0%} "
        f"and the imputer {learned.imputer.share:.0%}"
    )


def matrix_table(rows: Sequence[VariantRow], words: OutcomeWords) -> Table:
    """Return test AUC, a line for each imputer and a column for each head."""
    heads = tuple(dict.fromkeys(row.head for row in rows))
    row_of = {(row.imputer, row.head): row for row in rows}
    lines = []
    for imputer in dict.fromkeys(row.imputer for row in rows):
        ours = [row_of.get((imputer, head)) for head in heads]
        scores = (spread_text(row.test_auc_mean, row.test_auc_std) if row else EMPTY for row in ours)
        lines.append((imputer_kind(imputer).label, *scores, minutes_text(sum(row.seconds for row in ours if row))))
    return Table(
        title="Imputer × classifier: test AUC",
        header=("imputer", *heads, "minutes"),
        lines=tuple(lines),
        remark=(
            f"AUC of {words.label}, mean ± sample standard deviation over the test folds. Imputers are frozen. "
            "All variants use the same folds and seeds. Each fold's epoch was chosen on its validation stays. An MLP "
            "reads the imputer's hidden state, or the imputed series if there is none. An LSTM or GRU reads the "
            "imputed series and starts from the hidden state. xgboost and svm read the imputed series. Minutes: "
            "training time of the classifiers, all folds together."
        ),
    )


def variance_table(comparison: ImputerComparison) -> Table | None:
    """Return what explains the variance, for all imputers and for parts of them; None without a complete matrix."""
    candidates = {
        "all": comparison.decomposition,
        "without controls": comparison.decomposition_without_controls,
        "those that learn": comparison.decomposition_of_learned,
    }
    different: dict[str, Decomposition] = {}
    for name, found in candidates.items():
        if found is not None and found not in different.values():
            different[name] = found
    if not different:
        return None
    return Table(
        title="What explains the variance",
        header=(
            "imputers",
            "imputers × classifiers",
            "classifier (p)",
            "imputer (p)",
            "interaction (p)",
            "folds",
            "residual",
        ),
        lines=tuple(_variance_line(name, found) for name, found in different.items()),
        remark=(
            "Shares of the sum of squares of test AUC around its mean, by a two-way analysis of variance with folds as "
            "blocks. p: F-test against the residual. Folds share training stays, so p tends to be too small. Those "
            "that learn: neither controls nor plain rules."
        ),
    )


def _variance_line(name: str, found: Decomposition) -> tuple[str, ...]:
    return (
        name,
        f"{len(found.imputers)} × {len(found.heads)}",
        _part_text(found.head),
        _part_text(found.imputer),
        _part_text(found.interaction),
        f"{found.folds:.1%}",
        f"{found.residual:.1%}",
    )


def _part_text(part: Part) -> str:
    return f"{part.share:.1%} ({p_text(part.p_value)})"


def against_table(rows: Sequence[VariantRow], test_to_train: float) -> Table | None:
    """Return CSAI against each other imputer, over the heads that both have; None without another imputer."""
    lines = [
        (
            imputer_kind(each.imputer).label,
            str(each.heads),
            difference_text(each.difference, 4),
            EMPTY if each.p_value is None else p_text(each.p_value),
            _ahead_or_behind(each),
        )
        for each in auc_contrasts(rows, test_to_train)
    ]
    if not lines:
        return None
    return Table(
        title="CSAI against each other imputer",
        header=("CSAI against", "heads", "difference in test AUC", "p", f"verdict at {SIGNIFICANCE_LEVEL}"),
        lines=tuple(lines),
        remark=(
            f"Differences are means over the heads, one for each fold. Test: {CITATION}. p is adjusted for the number "
            "of comparisons (Holm 1979)."
        ),
    )


def _ahead_or_behind(contrast: AucContrast) -> str:
    if contrast.p_value is None or contrast.p_value >= SIGNIFICANCE_LEVEL:
        return "undecided"
    return "CSAI is ahead" if contrast.difference > 0 else "CSAI is behind"
