"""What the report on imputers and heads is written from, out of their outputs and the cohort."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imputune.artifacts.stage_files import read_test_risks
from imputune.artifacts.stage_output import TrainingOutput, example_bins
from imputune.evaluation.comparison import ImputerComparison
from imputune.evaluation.rows import VariantRow
from imputune.pipeline.assembled_imputers import ComparedImputer
from imputune.pipeline.collected import Collected
from imputune.pipeline.project import DividedCohort
from imputune.protocol.variants import Variant
from imputune.reporting.report_inputs import HeadFindings, ImputerFindings, ReportInputs
from imputune.settings.names import ImputerName


def report_inputs(
    data: DividedCohort,
    comparison: ImputerComparison,
    imputers: Mapping[ImputerName, ComparedImputer],
    source: Mapping[str, str],
    report_folder: Path,
) -> ReportInputs:
    """Return what the report on compared imputers is written from.

    source: the tags of the run's source. report_folder: has the previous report's figures. They are reused if an
    imputer's artifacts are on another machine.
    """
    is_elsewhere = any(each.found is None for each in imputers.values())
    earlier = {path.stem: path.read_bytes() for path in report_folder.glob("*.png")} if is_elsewhere else {}
    assessments = [each.assessment for each in imputers.values() if each.assessment]
    window = data.cohort.window
    masked_T = np.zeros(window.bins, dtype=bool)
    masked_T[example_bins(window.bins)] = True
    return ReportInputs(
        comparison=comparison,
        variables=data.cohort.variables,
        seed=data.origin.seed,
        cohort_hash=data.origin.cohort_hash,
        folds_hash=data.origin.folds_hash,
        extract_command=str(data.cohort.source.get("command", f"imputune extract {comparison.dataset}")),
        source=source,
        findings={name: _findings(data, each) for name, each in imputers.items()},
        example_TD=np.array(assessments[0].example, dtype=float) if assessments else None,
        masked_T=masked_T,
        window=window,
        earlier=earlier,
    )


def _findings(data: DividedCohort, imputer: ComparedImputer) -> ImputerFindings:
    found, example = imputer.found, None
    if imputer.assessment:
        example = np.array([fold.example for fold in imputer.assessment.folds])
    return ImputerFindings(
        curves=_curves(found.imputer, "validation_mae") if found else [],
        epochs_kept=imputer.epochs_kept,
        epochs=max(fold.epochs for fold in imputer.file.folds),
        heads={variant.head: _head_findings(data, found, variant, row) for variant, row in imputer.rows.items()},
        example_FTD=example,
    )


def _head_findings(data: DividedCohort, found: Collected | None, variant: Variant, row: VariantRow) -> HeadFindings:
    if found is None or variant not in found.outputs:
        return HeadFindings(row=row)
    folder = found.project.variant_folder(variant)
    stay_ids_N, risk_N = read_test_risks(folder, f"delete {folder}, or fine-tune that variant again")
    return HeadFindings(
        row=row,
        curves=_curves(found.outputs[variant], "validation_auc"),
        risks=(data.cohort.outcome_of(stay_ids_N), risk_N),
    )


def _curves(output: TrainingOutput, metric: str) -> list[list[float]]:
    curves = [[epoch[metric] for epoch in fold.history if metric in epoch] for fold in output.folds]
    return [curve for curve in curves if curve]
