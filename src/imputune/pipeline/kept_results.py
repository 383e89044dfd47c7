"""Writing the committed files of results/: scores of a variant, errors of an imputer, as soon as they are there."""

import imputune
from imputune.artifacts.imputer_file import AssessmentFile, ImputerFile
from imputune.artifacts.results_files import Code, find_results_file, write_results_file
from imputune.artifacts.stage_output import AssessmentOutput, TrainingOutput
from imputune.artifacts.variant_file import VariantFile
from imputune.pipeline.calibration import calibration_of
from imputune.pipeline.inputs import PretrainedImputer
from imputune.pipeline.project import Project
from imputune.tracking.runs import TrackedRun
from imputune.tracking.store import active_run, has_store, open_existing_store


def keep_imputer(project: Project, output: TrainingOutput, run: TrackedRun) -> None:
    """Write the file of an imputer that `run` has just pretrained; UserError when the system refuses."""
    path = project.imputer_results_file(output.made_from.imputer)
    write_results_file(path, ImputerFile.of(output, _code(project, run)))


def keep_variant(imputer: PretrainedImputer, output: TrainingOutput, run: TrackedRun) -> None:
    """Write the file of a variant that `run` has just completed; UserError when the system refuses."""
    _write_variant(imputer, output, _code(imputer.project, run))


def keep_assessment(imputer: PretrainedImputer, output: AssessmentOutput, run: TrackedRun) -> None:
    """Write the file of an imputer that `run` has just assessed; UserError when the system refuses."""
    _write_assessment(imputer, output, _code(imputer.project, run))


def keep_finished_imputer(imputer: PretrainedImputer) -> None:
    """Write the file of an imputer in artifacts where it is missing or tells of other data or settings."""
    project, output = imputer.project, imputer.output
    path = project.imputer_results_file(imputer.name)
    found = find_results_file(path, ImputerFile)
    if found is None or not found.tells_of(output):
        write_results_file(path, ImputerFile.of(output, _recorded_code(project, output)))


def keep_finished_variant(imputer: PretrainedImputer, output: TrainingOutput) -> None:
    """Write the file of a variant in artifacts where it is missing or tells of other data or settings."""
    found = find_results_file(imputer.project.variant_results_file(output.variant), VariantFile)
    if found is None or not found.tells_of(output, imputer.output):
        _write_variant(imputer, output, _recorded_code(imputer.project, output))


def keep_finished_assessment(imputer: PretrainedImputer, output: AssessmentOutput) -> None:
    """Write the file of an assessment in artifacts where it is missing or tells of other data or settings."""
    found = find_results_file(imputer.project.assessment_results_file(imputer.name), AssessmentFile)
    if found is None or not found.tells_of(output, imputer.output):
        _write_assessment(imputer, output, _recorded_code(imputer.project, output))


def _write_assessment(imputer: PretrainedImputer, output: AssessmentOutput, code: Code) -> None:
    path = imputer.project.assessment_results_file(imputer.name)
    write_results_file(path, AssessmentFile.of(output, imputer.output, code))


def _write_variant(imputer: PretrainedImputer, output: TrainingOutput, code: Code) -> None:
    calibration = calibration_of(imputer.project, imputer.data.cohort, output)
    file = VariantFile.of(output, imputer.output, calibration, code)
    write_results_file(imputer.project.variant_results_file(output.variant), file)


def _code(project: Project, run: TrackedRun) -> Code:
    device = project.engine.device(project.params.device)
    return Code.of(run.source, version=imputune.__version__, device=device)


def _recorded_code(project: Project, output: TrainingOutput | AssessmentOutput) -> Code:
    """Return what the run that made an output says of its code; nothing where the run is gone."""
    run = active_run(open_existing_store(project.root), output.run_id) if has_store(project.root) else None
    return Code.of(run.data.tags if run else {})
