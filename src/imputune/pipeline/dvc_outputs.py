"""What compare leaves for DVC: a small file of metrics for each variant, and tables that `dvc plots` draws.

The tables hold means and curves over many stays. No line tells of fewer than POINT_STAYS stays.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from statistics import fmean

import numpy as np

from imputune.data.cohort import read_cohort
from imputune.evaluation.comparison import VariantComparison
from imputune.evaluation.risk_curves import POINTS, risk_curves
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.small_groups import POINT_STAYS
from imputune.files import replacing_folder
from imputune.pipeline.assembled import Assembled
from imputune.pipeline.calibration import outcomes_and_risks
from imputune.protocol.choice import in_order

PLACES = 4  # decimal places
Line = Sequence[str | float]


def write_dvc_outputs(comparison: VariantComparison, found: Assembled) -> None:
    """Write the metrics of each variant and the tables of plots to metrics/<dataset> and plots/<dataset>.

    The tables have the variants whose outputs are in artifacts/; AUCs and calibration also those of other sources.
    """
    with replacing_folder(found.project.metrics_folder) as folder:
        for name, scores in comparison.metrics().items():
            path = folder / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(scores, indent=1) + "\n")
    with replacing_folder(found.project.plots_folder) as folder:
        for name, text in plot_tables(comparison.rows, found).items():
            (folder / f"{name}.csv").write_text(text)


def plot_tables(rows: Sequence[VariantRow], found: Assembled) -> dict[str, str]:
    """Return the tables of all plots in dvc.yaml by name, as CSV text; a table without lines has its header."""
    cohort = read_cohort(found.project.cohort_folder) if found.cohort is None else found.cohort
    roc: list[Line] = []
    precision: list[Line] = []
    names = {row.label: row.short_name for row in rows}
    for variant in in_order(found.outputs):
        name = names[variant.label]
        outcome_N, risk_N = outcomes_and_risks(found.project, cohort, found.outputs[variant])
        events = int(outcome_N.sum())
        if min(events, len(outcome_N) - events) < POINT_STAYS:
            continue
        curves = risk_curves(outcome_N, risk_N)
        non_events = len(outcome_N) - events
        roc += [(name, *point) for point in _thinned(POINTS, curves.sensitivity_P, non_events)]
        precision += [(name, *point) for point in _thinned(POINTS[1:], curves.precision_P, events)]
    return {
        "roc": _csv(("variant", "false_positive_rate", "sensitivity"), roc),
        "precision_recall": _csv(("variant", "recall", "precision"), precision),
        "calibration": _csv(("variant", "risk", "outcome_rate"), _calibration(rows)),
        "training": _csv(("variant", "epoch", "validation_auc"), _training(names, found)),
        "auc": _csv(("variant", "test_auc"), [(row.short_name, row.test_auc_mean) for row in rows]),
        "parameters": _csv(
            ("variant", "parameters", "test_auc"),
            [(row.short_name, row.num_parameters, row.test_auc_mean) for row in rows if row.num_parameters],
        ),
    }


def _thinned(x_P: np.ndarray, y_P: np.ndarray, stays: int) -> Iterator[tuple[float, float]]:
    """Yield points of a curve, so far apart along x, which counts `stays`, that POINT_STAYS lie between two."""
    step = -(-POINT_STAYS * (len(POINTS) - 1) // stays)
    yield from zip(x_P[::-step][::-1].tolist(), y_P[::-step][::-1].tolist(), strict=True)


def _calibration(rows: Sequence[VariantRow]) -> Iterator[Line]:
    for row in rows:
        if all(point.stays >= POINT_STAYS for point in row.calibration):
            yield from ((row.short_name, point.risk, point.outcome_rate) for point in row.calibration)


def _training(names: dict[str, str], found: Assembled) -> Iterator[Line]:
    """Yield the validation AUC after each epoch, the mean over the folds that still train."""
    for variant in in_order(found.outputs):
        histories = found.outputs[variant].histories.values()
        curves = [[row["validation_auc"] for row in history if "validation_auc" in row] for history in histories]
        for epoch, values in enumerate(zip_longest(*curves), 1):
            yield names[variant.label], epoch, fmean(value for value in values if value is not None)


def _csv(header: Sequence[str], lines: Iterable[Line]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([round(each, PLACES) if isinstance(each, float) else each for each in line] for line in lines)
    return text.getvalue()
