"""The calibration and decision curves of a variant in artifacts."""

import numpy as np

from imputune.artifacts.stage_files import read_test_risks
from imputune.artifacts.stage_output import TrainingOutput
from imputune.data.cohort import Cohort
from imputune.evaluation.decision_curve import DecisionPoint, decision_curve
from imputune.evaluation.metrics import ReliabilityPoint, reliability
from imputune.pipeline.project import Project


def calibration_of(project: Project, cohort: Cohort, output: TrainingOutput) -> list[ReliabilityPoint]:
    """Return the calibration curve of a variant over its test stays; UserError without predictions."""
    return reliability(*outcomes_and_risks(project, cohort, output))


def decision_of(project: Project, cohort: Cohort, output: TrainingOutput) -> tuple[DecisionPoint, ...]:
    """Return the decision curve of a variant over its test stays; UserError without predictions."""
    return decision_curve(*outcomes_and_risks(project, cohort, output))


def outcomes_and_risks(project: Project, cohort: Cohort, output: TrainingOutput) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcomes, 0/1, and risks, both (N,), of a variant's test stays; UserError without predictions."""
    folder = project.variant_folder(output.variant)
    stay_ids, risks = read_test_risks(folder, f"delete {folder}, or fine-tune that variant again")
    return cohort.outcome_of(stay_ids), risks
