"""The calibration curve of a variant in artifacts."""

from imputune.artifacts.stage_files import read_test_risks
from imputune.artifacts.stage_output import TrainingOutput
from imputune.data.cohort import Cohort
from imputune.evaluation.metrics import ReliabilityPoint, reliability
from imputune.pipeline.project import Project


def calibration_of(project: Project, cohort: Cohort, output: TrainingOutput) -> list[ReliabilityPoint]:
    """Return the calibration curve of a variant over its test stays; UserError without predictions."""
    folder = project.variant_folder(output.variant)
    stay_ids, risks = read_test_risks(folder, f"delete {folder}, or fine-tune that variant again")
    return reliability(cohort.outcome_of(stay_ids), risks)
