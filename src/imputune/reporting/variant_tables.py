"""The tables of fine-tuned variants: the paper's Tables II and III, summaries, verdicts on the paper's claims."""

from collections.abc import Mapping, Sequence

from imputune.evaluation.rows import Score, Spread, VariantRow, schedule_average
from imputune.evaluation.significance import CITATION
from imputune.evaluation.verdicts import Verdict
from imputune.protocol.outcome_words import OutcomeWords
from imputune.protocol.published import AVERAGE, REFERENCES, SCHEDULES, quoted
from imputune.reporting.tables import (
    EMPTY,
    Table,
    auc_text,
    difference_from,
    difference_text,
    minutes_text,
    slope_text,
    spread_text,
)
from imputune.settings.names import Mode

AUC_SCORES: tuple[Score, Score] = ("validation_auc", "test_auc")
PROTOCOL_COLUMNS = (*SCHEDULES, AVERAGE)


def summary_table(dataset: str, rows: Sequence[VariantRow], words: OutcomeWords) -> Table | None:
    """Return AUC averaged over the three schedules, frozen and unfrozen side by side; None without an average."""
    lines = []
    for head, input in dict.fromkeys(row.head_and_input for row in rows if row.num_parameters):
        ours = [row for row in rows if row.head_and_input == (head, input)]
        scores: list[str] = []
        for mode in ("frozen", "unfrozen"):
            of_mode = [row for row in ours if row.mode == mode]
            averages = [schedule_average(of_mode, score) for score in AUC_SCORES]
            paper = quoted(dataset, head, mode=mode, input=input, schedule=AVERAGE)
            scores += [spread_text(*average) if average else EMPTY for average in averages]
            scores.append(auc_text(paper.test_auc if paper else None))
        has_average = any(scores[column] for column in (0, 1, 3, 4))
        if has_average:
            lines.append((head, input, f"{ours[0].num_parameters:,}", *scores))
    if not lines:
        return None
    return Table(
        title="Averaged over the three schedules",
        header=(
            "head",
            "input",
            "params",
            "frozen val",
            "frozen test",
            "paper",
            "unfrozen val",
            "unfrozen test",
            "paper",
        ),
        lines=tuple(lines),
        remark=f"AUC of {words.label}, mean ± sample standard deviation over test folds. Paper: its test AUC.",
    )


def protocol_table(dataset: str, mode: Mode, rows: Sequence[VariantRow]) -> Table | None:
    """Return the paper's Table II (frozen) or III (unfrozen) with lines for ours, the paper's and the difference.

    The average over the three schedules is taken fold by fold, and is "" unless all three were run. None without
    variants.
    """
    chosen = [row for row in rows if row.mode == mode and row.schedule in SCHEDULES]
    if not chosen:
        return None
    lines: list[tuple[str, ...]] = []
    for head, input in dict.fromkeys(row.head_and_input for row in chosen):
        ours = _by_schedule([row for row in chosen if row.head_and_input == (head, input)])
        paper = _published(dataset, head, mode, input)
        lines.append((f"{head}, {input}", "ours", *(spread_text(*mine) if mine else EMPTY for mine in ours)))
        if any(auc is not None for auc in paper):
            lines.append(("", "paper", *(auc_text(auc) for auc in paper)))
            differences = (difference_from(mine, auc) for mine, auc in zip(ours, paper, strict=True))
            lines.append(("", "difference", *differences))
    frozen = mode == "frozen"
    return Table(
        title=f"Table {'II' if frozen else 'III'}: {mode} imputer, AUC by schedule",
        header=("model", "", *(f"{column} {split}" for column in PROTOCOL_COLUMNS for split in ("val", "test"))),
        lines=tuple(lines),
        remark="" if frozen else "Of the paper's Table III we know only the averages that its text quotes.",
    )


def non_neural_table(rows: Sequence[VariantRow]) -> Table | None:
    """Return xgboost and svm by input, the paper's figure beside ours; None without such variants."""
    lines = [
        (
            row.head,
            row.input,
            spread_text(row.val_auc_mean, row.val_auc_std),
            spread_text(row.test_auc_mean, row.test_auc_std),
            auc_text(row.paper_test_auc),
            difference_from(Spread(row.test_auc_mean, row.test_auc_std), row.paper_test_auc),
            spread_text(row.test_auprc_mean, row.test_auprc_std),
        )
        for row in rows
        if row.schedule == "none" and row.head != "blend"
    ]
    if not lines:
        return None
    return Table(
        title="Non-neural heads",
        header=("head", "input", "val AUC", "test AUC", "paper", "difference", "test AUPRC"),
        lines=tuple(lines),
        remark="The paper does not say which input its figures are for; it did not try summary statistics.",
    )


def verdicts_table(verdicts: Sequence[Verdict]) -> Table | None:
    """Return the paper's claims and what our folds say about them; None without a claim to test."""
    if not verdicts:
        return None
    lines = [
        (
            verdict.claim,
            _compared(verdict),
            difference_text(verdict.difference, 4),
            f"{verdict.p_value:.3f}",
            verdict.verdict,
        )
        for verdict in verdicts
    ]
    return Table(
        title="The paper's claims",
        header=("the paper's claim", "compared", "difference in test AUC", "p", "verdict at 0.05"),
        lines=tuple(lines),
        remark=f"Test on the differences of the folds: {CITATION}.",
    )


def variants_table(rows: Sequence[VariantRow], words: OutcomeWords) -> Table:
    """Return every variant with its scores."""
    lines = [
        (
            row.head,
            row.mode,
            row.input,
            row.schedule,
            f"{row.num_parameters:,}" if row.num_parameters else EMPTY,
            spread_text(row.val_auc_mean, row.val_auc_std),
            spread_text(row.test_auc_mean, row.test_auc_std),
            auc_text(row.paper_test_auc),
            spread_text(row.test_auprc_mean, row.test_auprc_std),
            spread_text(row.test_brier_mean, row.test_brier_std),
            spread_text(row.test_calibration_error_mean, row.test_calibration_error_std),
            slope_text(row),
            f"{row.seconds:,.0f}",
        )
        for row in rows
    ]
    return Table(
        title=f"Every variant of the protocol: {words.label}",
        header=(
            "head",
            "mode",
            "input",
            "schedule",
            "params",
            "val AUC",
            "test AUC",
            "paper",
            "test AUPRC",
            "test Brier",
            "calibration error",
            "calibration slope",
            "seconds",
        ),
        lines=tuple(lines),
        remark=(
            "Mean ± sample standard deviation over the test folds. Each fold's epoch was chosen on its validation "
            "stays. A calibration slope below 1 says that risks are too extreme, above 1 too moderate; variants "
            "trained before it was recorded have none. Params: parameters of the head alone. Seconds: training time of "
            "all folds together; for an unfrozen variant it includes the frozen head that it starts from. Paper: the "
            "paper's test AUC, by schedule for frozen variants, averaged over the schedules for unfrozen ones."
        ),
    )


def time_table(rows: Sequence[VariantRow]) -> Table:
    """Return how long each part of the protocol took."""
    kinds: dict[str, list[VariantRow]] = {"frozen": [], "unfrozen": [], "non-neural": [], "blend": []}
    for row in rows:
        kinds["blend" if row.head == "blend" else "non-neural" if row.schedule == "none" else row.mode].append(row)
    lines = [
        (kind, str(len(chosen)), minutes_text(sum(row.seconds for row in chosen)))
        for kind, chosen in kinds.items()
        if chosen
    ]
    return Table(
        title="Training time",
        header=("variants", "number", "minutes, all folds together"),
        lines=tuple(lines),
        remark=(
            "Folds run in parallel: on two cores a command takes about half of this time. The minutes of unfrozen "
            "variants include the frozen heads that they start from."
        ),
    )


def references_table(references: Mapping[str, float] = REFERENCES) -> Table:
    """Return test AUCs of other models, as published."""
    return Table(
        title="Other protocols",
        header=("model", "test AUC"),
        lines=tuple((name, auc_text(auc)) for name, auc in references.items()),
        remark="As published, by other protocols on other splits: these AUCs cannot be compared directly with ours.",
    )


def _by_schedule(rows: Sequence[VariantRow]) -> list[Spread | None]:
    """Return validation and test AUC of each schedule and of their average, None for those that were not run."""
    of_schedule: dict[str, VariantRow] = {row.schedule: row for row in rows}
    spreads: list[Spread | None] = []
    for schedule in SCHEDULES:
        row = of_schedule.get(schedule)
        spreads.append(None if row is None else Spread(row.val_auc_mean, row.val_auc_std))
        spreads.append(None if row is None else Spread(row.test_auc_mean, row.test_auc_std))
    return [*spreads, *(schedule_average(rows, score) for score in AUC_SCORES)]


def _published(dataset: str, head: str, mode: Mode, input: str) -> list[float | None]:
    """Return the paper's validation and test AUC for each column; for unfrozen heads we know only the averages."""
    figures: list[float | None] = []
    for column in PROTOCOL_COLUMNS:
        paper = quoted(dataset, head, mode=mode, input=input, schedule=column)
        if paper is None or (mode == "unfrozen" and column != AVERAGE):
            figures += [None, None]
        else:
            figures += [paper.val_auc, paper.test_auc]
    return figures


def _compared(verdict: Verdict) -> str:
    if verdict.compared_variants is None:
        return f"{verdict.variants} variants; AUC lost each time the parameters double"
    plural = "s" if verdict.variants > 1 else ""
    return f"{verdict.variants} variant{plural} against {verdict.compared_variants}"
