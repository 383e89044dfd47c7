"""The pages of both comparisons: fine-tuned variants, and imputers crossed with heads."""

from imputune.evaluation.comparison import ImputerComparison, VariantComparison
from imputune.protocol.outcome_words import outcome_words
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.reporting.beyond_tables import ablation_table, beyond_table
from imputune.reporting.imputer_tables import (
    errors_table,
    lowest_error_sentence,
    missing_table,
    pretraining_table,
    ranking_table,
)
from imputune.reporting.matrix_tables import against_table, answer_sentence, matrix_table, variance_table
from imputune.reporting.rival_tables import answer, rivals_table
from imputune.reporting.tables import Table
from imputune.reporting.variant_tables import (
    non_neural_table,
    protocol_table,
    references_table,
    summary_table,
    time_table,
    variants_table,
    verdicts_table,
)


def variant_title(comparison: VariantComparison) -> str:
    """Return the dataset and its size in words."""
    return f"{comparison.dataset}: {_size(comparison)}"


def protocol_sentence(comparison: VariantComparison | ImputerComparison) -> str:
    """Return the protocol by which the stays were divided, and what it means for the numbers."""
    return f"Protocol: {comparison.division.label}. {comparison.division.sentences}"


def variant_tables(comparison: VariantComparison) -> list[Table]:
    """Return every table of fine-tuned variants that has something to show."""
    dataset, rows, words = comparison.published_dataset, comparison.protocol_rows, outcome_words(comparison.outcome)
    tables = [
        summary_table(dataset, rows, words),
        protocol_table(dataset, "frozen", rows),
        protocol_table(dataset, "unfrozen", rows),
        non_neural_table(rows),
        verdicts_table(comparison.verdicts),
        variants_table(rows, words) if rows else None,
        beyond_table(comparison.beyond_rows),
        ablation_table(comparison.ablations),
        time_table(rows) if rows else None,
        rivals_table(comparison.rivals) if comparison.rivals else None,
        references_table(comparison.references) if comparison.references else None,
        pretraining_table(comparison.imputers),
    ]
    return [table for table in tables if table is not None]


def variant_markdown(comparison: VariantComparison) -> str:
    """Return the comparison of fine-tuned variants as a Markdown page."""
    tables = [table.to_markdown() for table in variant_tables(comparison)]
    notes = [f"Note: {note}." for note in comparison.notes]
    return "\n\n".join([f"# {variant_title(comparison)}", protocol_sentence(comparison), *tables, *notes]) + "\n"


def variant_latex(comparison: VariantComparison) -> str:
    """Return the tables for inclusion in a LaTeX document that uses booktabs."""
    comment = f"% {variant_title(comparison)}; needs \\usepackage{{booktabs}}"
    note = f"Protocol: {comparison.division.label}."
    return "\n".join([comment, *(table.to_latex(note) for table in variant_tables(comparison))])


def imputer_title(comparison: ImputerComparison) -> str:
    """Return the question, the dataset and its size."""
    return f"Imputer or classifier? {comparison.dataset}: {_size(comparison)}"


def _size(comparison: VariantComparison | ImputerComparison) -> str:
    """Return the numbers of stays and of events; an outcome that has no words of its own is named."""
    words = outcome_words(comparison.outcome)
    named = "" if comparison.outcome == DEFAULT_OUTCOME else f" ({words.label})"
    return f"{comparison.stays:,} stays, {comparison.events:,} {words.events}{named}"


def imputer_answers(comparison: ImputerComparison) -> tuple[str, ...]:
    """Return whether imputer or classifier matters more, which imputer has the lowest error, and how rivals fare."""
    sentences = (
        answer_sentence(comparison),
        lowest_error_sentence(comparison.imputers, comparison.division.test_to_train),
        answer(comparison.rivals) if comparison.rivals else "",
    )
    return tuple(sentence for sentence in sentences if sentence)


def matrix_tables(comparison: ImputerComparison) -> list[Table]:
    """Return the tables of imputers crossed with heads."""
    if not comparison.matrix:
        return []
    tables = [
        matrix_table(comparison.matrix, outcome_words(comparison.outcome)),
        variance_table(comparison),
        against_table(comparison.matrix, comparison.division.test_to_train),
    ]
    return [table for table in tables if table is not None]


def alone_tables(comparison: ImputerComparison) -> list[Table]:
    """Return the tables of imputers alone."""
    if not comparison.imputers:
        return []
    tables = [
        ranking_table(comparison.imputers),
        errors_table(comparison.imputers),
        missing_table(comparison.imputers, comparison.edges),
    ]
    return [table for table in tables if table is not None]


def imputer_tables(comparison: ImputerComparison) -> list[Table]:
    """Return every table of imputers and heads that has something to show."""
    rivals = [rivals_table(comparison.rivals)] if comparison.rivals else []
    return [*matrix_tables(comparison), *rivals, *alone_tables(comparison)]
