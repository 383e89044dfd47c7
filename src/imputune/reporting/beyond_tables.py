"""The tables of variants beyond the paper's protocol, and of what each ingredient adds."""

from collections.abc import Sequence

from imputune.evaluation.ablation import Ablation, Gain
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.significance import CITATION
from imputune.reporting.tables import EMPTY, Table, difference_text, p_text, spread_text


def beyond_table(rows: Sequence[VariantRow]) -> Table | None:
    """Return the variants that the paper does not have, in the order given; None without any."""
    lines = [
        (
            str(row.imputer),
            row.head,
            row.mode,
            row.input,
            row.schedule,
            spread_text(row.val_auc_mean, row.val_auc_std),
            spread_text(row.test_auc_mean, row.test_auc_std),
            spread_text(row.test_auprc_mean, row.test_auprc_std),
            spread_text(row.test_calibration_error_mean, row.test_calibration_error_std),
            f"{row.num_parameters:,}" if row.num_parameters else EMPTY,
            f"{row.seconds:,.0f}",
        )
        for row in rows
    ]
    if not lines:
        return None
    return Table(
        title="Beyond the paper",
        header=(
            "imputer",
            "head",
            "mode",
            "input",
            "schedule",
            "val AUC",
            "test AUC",
            "test AUPRC",
            "calibration error",
            "params",
            "seconds",
        ),
        lines=tuple(lines),
        remark=(
            "The best validation AUC comes first. Mean ± sample standard deviation over the test folds. Params: "
            "parameters of the head alone. Seconds: training time of all folds together."
        ),
    )


def ablation_table(ablations: Sequence[Ablation]) -> Table | None:
    """Return what each ingredient adds to each variant that has both; None without a pair."""
    lines = [
        (
            each.ingredient,
            each.without,
            each.with_it,
            _gain_text(each.auc),
            p_text(each.auc.p_value),
            _gain_text(each.auprc),
            p_text(each.auprc.p_value),
        )
        for each in ablations
    ]
    if not lines:
        return None
    return Table(
        title="What each ingredient adds",
        header=("ingredient", "without", "with", "test AUC", "p", "test AUPRC", "p of AUPRC"),
        lines=tuple(lines),
        remark=(
            "Mean of the differences of the test folds, with minus without, and its 95% confidence interval. A blend "
            f"stands against the single variant with the best validation AUC. {CITATION[0].upper()}{CITATION[1:]}; "
            "p is adjusted for the number of pairs (Holm 1979), the intervals are not."
        ),
    )


def _gain_text(gain: Gain) -> str:
    low, high = difference_text(gain.low, 3), difference_text(gain.high, 3)
    return f"{difference_text(gain.mean, 3)} ({low} to {high})"
