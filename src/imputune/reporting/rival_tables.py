"""The table of rivals beside our heads, and the sentence that says whether a small head comes close."""

from imputune.evaluation.rival_rows import CompetitorRow, RivalComparison
from imputune.evaluation.rows import Score
from imputune.evaluation.significance import CITATION, SIGNIFICANCE_LEVEL
from imputune.reporting.tables import EMPTY, Table, auc_text, difference_text, p_text, spread_text

CLOSE = 0.01  # up to this difference in mean AUC a head comes close; over folds of set-a, AUC deviates by 0.02


def rivals_table(found: RivalComparison) -> Table:
    """Return our heads and all rivals, a line for each."""
    return Table(
        title="Complex models on the same folds",
        header=(
            "part",
            "model",
            "input",
            "folds",
            "val AUC",
            "test AUC",
            "test AUPRC",
            "calibration error",
            "params",
            "training seconds",
            "seconds for 1,000 stays",
            "minus best small head",
            "p",
            "quoted AUC",
        ),
        lines=tuple(_line(row, found) for row in (*found.heads, *found.rivals)),
        remark=(
            f"{answer(found)} A head comes close if its mean AUC is at most {CLOSE} lower. Best small head: "
            f"{found.reference.label}, chosen by validation AUC. Mean ± sample "
            "standard deviation over the test folds; difference in test AUC with its 95% confidence interval. "
            f"{CITATION[0].upper()}{CITATION[1:]}; p is adjusted for the number of rivals (Holm 1979), the intervals "
            "are not. Params and training seconds of our heads include CSAI and its pretraining; seconds are of all "
            "folds together, with the tries of learning rates. Every rival takes the learning rate that fared best on "
            "the validation stays of the first fold. Input raw: values, mask and hours; a head that also reads static "
            "facts or statistics is told more. Quoted AUC: of the literature, by other protocols on more stays; "
            "no comparison."
        ),
    )


def answer(found: RivalComparison) -> str:
    """Say whether a small head on CSAI comes close to complex models, with the difference and what complexity costs."""
    best, head = found.best_rival, found.reference
    if best is None:
        return "No rival has all folds yet, so small heads are not compared with complex models."
    difference = found.difference(best)
    verdict = "comes close to" if difference <= CLOSE else "does not come close to"
    return (
        f"A simple head on CSAI {'is not behind' if difference <= 0 else verdict} the best complex model, {best.label} "
        f"({best.input}): the test AUC of the complex model minus the head's is {_certainty(found, best)}. "
        f"{_cost(best, head)}"
    ).rstrip()


def _certainty(found: RivalComparison, best: CompetitorRow) -> str:
    """Return a rival's difference with its interval and p, which one split does not have."""
    if best.lead is None:
        return f"{_difference(found, best)}, on one split, which gives no interval and no p-value"
    certain = "significant" if best.lead.p_value < SIGNIFICANCE_LEVEL else "not significant"
    return f"{_difference(found, best)}, p {_equals(best.lead.p_value)}, {certain}"


def _cost(rival: CompetitorRow, head: CompetitorRow) -> str:
    """Say how many times the parameters, training time and time of prediction a rival takes."""
    pairs = {
        "parameters": (rival.num_parameters, head.num_parameters),
        "training time": (rival.seconds, head.seconds),
        "time for a risk": (rival.seconds_for_1000_stays, head.seconds_for_1000_stays),
    }
    parts = [f"{_times(theirs / ours)} the {what}" for what, (theirs, ours) in pairs.items() if theirs and ours]
    return f"The complex model takes {' and '.join(', '.join(parts).rsplit(', ', 1))}." if parts else ""


def _times(ratio: float) -> str:
    """Return how many times: one decimal place, two digits below 1."""
    return f"{ratio:,.1f} times" if ratio >= 1 else f"{ratio:.2g} times"


def _line(row: CompetitorRow, found: RivalComparison) -> tuple[str, ...]:
    is_compared = row.part == "rival" and found.has_all_folds(row)
    return (
        row.part,
        row.label,
        row.input,
        f"{row.folds}" if not row.failure else f"{row.folds}; failed: {row.failure}",
        *(_score(row, name) for name in ("validation_auc", "test_auc", "test_auprc", "test_calibration_error")),
        f"{row.num_parameters:,}" if row.num_parameters else EMPTY,
        f"{row.seconds:,.0f}" if row.seconds is not None else EMPTY,
        f"{row.seconds_for_1000_stays:.2f}" if row.seconds_for_1000_stays is not None else EMPTY,
        _difference(found, row) if is_compared else EMPTY,
        p_text(row.lead.p_value) if row.lead else EMPTY,
        auc_text(row.quoted_auc),
    )


def _score(row: CompetitorRow, name: Score) -> str:
    return spread_text(*row.scores[name]) if name in row.scores else EMPTY


def _difference(found: RivalComparison, row: CompetitorRow) -> str:
    """Return the difference of a rival with all folds, with its interval if there is one."""
    mean = difference_text(found.difference(row), 3)
    if row.lead is None:
        return mean
    return f"{mean} ({difference_text(row.lead.low, 3)} to {difference_text(row.lead.high, 3)})"


def _equals(p_value: float) -> str:
    text = p_text(p_value)
    return text if text.startswith("<") else f"= {text}"
