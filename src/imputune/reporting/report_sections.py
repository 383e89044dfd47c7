"""The sections of the report on imputers and classifiers, from numbers to words, tables and figures."""

from collections.abc import Mapping

import numpy as np

from imputune.evaluation.assessed_imputers import AssessedImputer
from imputune.protocol.imputers import DEFAULT_IMPUTER, IMPUTERS, imputer_kind
from imputune.protocol.outcome_words import outcome_words
from imputune.reporting.comparison import alone_tables, imputer_answers, imputer_title, matrix_tables, protocol_sentence
from imputune.reporting.imputer_figures import (
    errors_figure,
    example_figure,
    matrix_figure,
    missing_figure,
    risk_figure,
    training_figure,
)
from imputune.reporting.imputer_tables import by_variable_table
from imputune.reporting.page import KeptFigure, Report, ReportFigure, Section
from imputune.reporting.report_inputs import Curves, ImputerFindings, ReportInputs
from imputune.reporting.reproduction import reproduction_section
from imputune.reporting.rival_tables import rivals_table
from imputune.reporting.tables import Table, slope_text, spread_text
from imputune.reporting.variant_tables import verdicts_table
from imputune.settings.names import ImputerName

MOST_EXAMPLES = 3  # imputers drawn on the generated stay if CSAI is not among them


def build_report(inputs: ReportInputs) -> Report:
    """Return the report; empty sections are left out."""
    sections = (
        _what_was_run(inputs),
        _imputers_alone(inputs),
        _example(inputs),
        _matrix(inputs),
        _rivals(inputs),
        _risks(inputs),
        _training(inputs),
        _claims(inputs),
        _by_variable(inputs),
        reproduction_section(inputs),
    )
    return Report(
        title=imputer_title(inputs.comparison),
        answers=imputer_answers(inputs.comparison),
        sections=tuple(section for section in sections if not section.is_empty),
    )


def _what_was_run(inputs: ReportInputs) -> Section:
    comparison = inputs.comparison
    heads, words = dict.fromkeys(row.head for row in comparison.matrix), outcome_words(comparison.outcome)
    lines = [
        (imputer_kind(name).label, name, imputer_kind(name).source, _epochs_kept(each))
        for name, each in inputs.findings.items()
    ]
    return Section(
        title="What was run",
        paragraphs=(
            f"{comparison.stays:,} ICU stays of {comparison.dataset}: the first {inputs.window.hours} hours of "
            f"{len(inputs.variables)} variables in {inputs.window.bin_words}. {words.sentence(comparison.events)} "
            f"{protocol_sentence(comparison)} Each imputer and each classifier was trained on the training stays of a "
            "fold. Its epoch was chosen on the validation stays. It was scored once, on the test stays.",
            "Each imputer was trained first and then kept unchanged (frozen). Each classifier learned to predict "
            f"{words.label} from what the imputer gives: its hidden state, the imputed series, or both. "
            f"Classifiers: {', '.join(heads) or 'none yet'}.",
        ),
        tables=(
            Table(
                title="Imputers",
                header=("imputer", "its name in commands", "what it is, or its source", "epoch kept"),
                lines=tuple(lines),
            ),
        ),
    )


def _epochs_kept(findings: ImputerFindings) -> str:
    if not findings.epochs_kept:
        return "learns nothing"
    return f"{min(findings.epochs_kept)} to {max(findings.epochs_kept)} of {findings.epochs}"


def _imputers_alone(inputs: ReportInputs) -> Section:
    title, comparison = "Imputers alone", inputs.comparison
    if not comparison.imputers:
        return Section(title=title)
    errors = ReportFigure("errors", "Error of each imputer by masking rate", errors_figure(comparison.imputers))
    figures = [errors]
    if figure := missing_figure(comparison.imputers, comparison.edges):
        caption = "Error of each imputer by the share of a stay that was never observed"
        figures.append(ReportFigure("missing", caption, figure))
    return Section(
        title=title,
        paragraphs=(
            "Observed cells of the test stays were masked and imputed. The estimates were compared with the observed "
            "values. This was done with several masking patterns and rates. Every imputer was scored on the same "
            "cells.",
        ),
        tables=tuple(alone_tables(comparison)),
        figures=tuple(figures),
    )


def _rivals(inputs: ReportInputs) -> Section:
    """Return the complex models beside heads on CSAI, empty if none was trained."""
    title, found = "Complex models on the same folds", inputs.comparison.rivals
    if found is None:
        return Section(title=title)
    return Section(
        title=title,
        paragraphs=(
            "Complex models learn the outcome from the record itself, in one network. They were trained on the "
            "training stays of each fold, their epoch was chosen on its validation stays, and they were scored once, "
            "on its test stays. They stand beside small heads on CSAI.",
        ),
        tables=(rivals_table(found),),
    )


def _example(inputs: ReportInputs) -> Section:
    title = "How imputers fill a generated stay"
    series = {
        imputer_kind(name).label: example
        for name in _examples(inputs)
        if (example := inputs.findings[name].example_FTD) is not None
    }
    if not series or inputs.example_TD is None:
        return Section(title=title, figures=_earlier(inputs, "example", "A generated stay as imputed by some imputers"))
    figure = example_figure(inputs.example_TD, series, inputs.variables, inputs.masked_T, inputs.window.bin_hours)
    if figure is None:
        nothing = "The generated stays have too few of this dataset's variables, so there is none to show."
        return Section(title=title, paragraphs=(nothing,))
    caption = f"A generated stay as imputed by {', '.join(series)}, with the range over the folds"
    return Section(
        title=title,
        paragraphs=(
            "This report contains no patient's record: the stay was generated. The hours with a grey background were "
            "masked. Lines show the mean over the folds, bands the range.",
        ),
        figures=(ReportFigure("example", caption, figure),),
    )


def _examples(inputs: ReportInputs) -> list[ImputerName]:
    """Return CSAI, and of PyPOTS's networks and of the plain rules the one with the lowest error."""
    imputers = inputs.comparison.imputers

    def error(each: AssessedImputer) -> float:
        return (each.ranked or each.rows[0]).mean["mae"]

    chosen = [each.imputer for each in imputers if each.imputer == DEFAULT_IMPUTER]
    for family in ("pypots", "plain"):
        others = [each for each in imputers if imputer_kind(each.imputer).family == family]
        chosen += [each.imputer for each in sorted(others, key=error)[:1]]
    return chosen or [each.imputer for each in imputers[:MOST_EXAMPLES]]


def _matrix(inputs: ReportInputs) -> Section:
    title, comparison = "Imputer and classifier", inputs.comparison
    if not comparison.matrix:
        return Section(title=title)
    labels = {row.imputer: imputer_kind(row.imputer).label for row in comparison.matrix}
    caption = "Test AUC of each imputer with each classifier, as a heat map"
    return Section(
        title=title,
        paragraphs=(imputer_answers(comparison)[0],),
        tables=tuple(matrix_tables(comparison)),
        figures=(ReportFigure("matrix", caption, matrix_figure(comparison.matrix, labels)),),
    )


def _risks(inputs: ReportInputs) -> Section:
    title = "Risks that the classifiers give"
    heads = inputs.findings[inputs.shown].heads
    if not heads:
        return Section(title=title)
    rows = [each.row for each in heads.values()]
    lines = [
        (
            row.head,
            spread_text(row.test_auc_mean, row.test_auc_std),
            spread_text(row.test_auprc_mean, row.test_auprc_std),
            spread_text(row.test_brier_mean, row.test_brier_std),
            spread_text(row.test_calibration_error_mean, row.test_calibration_error_std),
            slope_text(row),
        )
        for row in rows
    ]
    label = imputer_kind(inputs.shown).label
    table = Table(
        title=f"Classifiers on {label}",
        header=("classifier", "AUC", "AUPRC", "Brier score", "calibration error", "calibration slope"),
        lines=tuple(lines),
        remark=(
            "Mean ± sample standard deviation over the test folds. A calibration slope below 1 says that risks are too "
            "extreme, above 1 too moderate. In the figure of precision and recall, the dotted "
            f"line is the {outcome_words(inputs.comparison.outcome).share}."
        ),
    )
    risks: dict[str, tuple[np.ndarray, np.ndarray]] = {head: each.risks for head, each in heads.items() if each.risks}
    caption = f"ROC, precision-recall and calibration curves of the classifiers on {label}, test stays of all folds"
    if not risks:
        return Section(
            title=title,
            tables=(table,),
            figures=_earlier(inputs, "risks", "ROC, precision-recall and calibration curves"),
        )
    figure = risk_figure(risks, inputs.comparison.outcome)
    return Section(title=title, tables=(table,), figures=(ReportFigure("risks", caption, figure),))


def _training(inputs: ReportInputs) -> Section:
    imputers = {imputer_kind(name).label: each.curves for name, each in inputs.findings.items() if each.curves}
    figures: list[ReportFigure | KeptFigure] = []
    caption = "Validation error of the imputers by epoch"
    if imputers:
        if IMPUTERS["csai_shuffled"].label in imputers:
            caption += "; the control on shuffled stays was validated on shuffled stays too"
        figures.append(ReportFigure("imputer-training", caption, training_figure(imputers, "validation MAE")))
    else:
        figures += _earlier(inputs, "imputer-training", caption)
    heads: Mapping[str, Curves] = {
        head: each.curves for head, each in inputs.findings[inputs.shown].heads.items() if each.curves
    }
    caption = f"Validation AUC of the classifiers on {imputer_kind(inputs.shown).label} by epoch"
    if heads:
        figures.append(ReportFigure("head-training", caption, training_figure(heads, "validation AUC")))
    else:
        figures += _earlier(inputs, "head-training", "Validation AUC of classifiers by epoch")
    explained = (
        "Curves are means over the folds that still train. A fold stops when its validation score no longer improves."
    )
    return Section(title="Training", paragraphs=(explained,) if figures else (), figures=tuple(figures))


def _earlier(inputs: ReportInputs, name: str, caption: str) -> tuple[KeptFigure, ...]:
    """Return the previous report's figure of this name, if any."""
    png = inputs.earlier.get(name)
    return (KeptFigure(name, f"{caption} (drawn for an earlier report)", png),) if png else ()


def _claims(inputs: ReportInputs) -> Section:
    table = verdicts_table(inputs.comparison.verdicts)
    return Section(title="The paper's claims", tables=(table,) if table else ())


def _by_variable(inputs: ReportInputs) -> Section:
    table = by_variable_table(inputs.comparison.imputers)
    return Section(title="By variable", tables=(table,) if table else ())
