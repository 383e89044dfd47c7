"""The command assess: score imputers alone, each on the same held-out cells of the same folds' test stays."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from imputune.artifacts.stage_files import find_assessment, write_assessment
from imputune.artifacts.stage_output import AssessmentOutput, MadeFrom, example_bins
from imputune.data.cohort import Cohort
from imputune.data.raw.synthetic import example_stay
from imputune.data.window import Window
from imputune.pipeline.inputs import PretrainedImputer, assessment_made_from
from imputune.pipeline.kept_results import keep_assessment, keep_finished_assessment
from imputune.pipeline.project import Project, read_divided_cohort
from imputune.pipeline.run_subject import divided_input, training_subject
from imputune.pipeline.tracked import track_training
from imputune.pipeline.variant_training import Say
from imputune.reporting.run_notes import assessment_result
from imputune.runtime.workers import run_fold_jobs
from imputune.settings.names import ImputerName
from imputune.training.assess import AssessJob, assess_fold

MISSING_GROUPS = 4  # of stays, by their share of missing cells


def run_assess(project: Project, imputers: Sequence[ImputerName], again: bool, say: Say) -> list[AssessmentOutput]:
    """Assess imputers, track each, write artifacts; return their outputs, also of those assessed before.

    Raises UserError when one was not pretrained, or on other variables, data or folds, its package is not installed, or
    a masking rate masks none or all of the cells.
    """
    data = read_divided_cohort(project)
    pretrained = [PretrainedImputer.read(project, data, name) for name in imputers]
    outputs = []
    for imputer in pretrained:
        made_from = assessment_made_from(imputer.project, data.origin, imputer.name, imputer.run_id)
        output = None if again else finished_assessment(project, imputer.name, made_from)
        if output is None:
            output = _assess(imputer, made_from)
            mean = fmean(scores.mae for fold in output.folds for scores in fold.scores)
            say(f"{imputer.name}: MAE {mean:.3f} over all masking patterns")
        else:
            keep_finished_assessment(imputer, output)
            say(f"{imputer.name} is assessed already")
        outputs.append(output)
    return outputs


def finished_assessment(project: Project, imputer: ImputerName, made_from: MadeFrom) -> AssessmentOutput | None:
    """Return an imputer's assessment if it was made from what `made_from` says, else None."""
    output = find_assessment(project.assess_folder(imputer))
    return None if output is None or output.made_from.differences(made_from) else output


def missing_groups(cohort: Cohort) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return each stay's group by its share of missing cells, 0 for the fullest records, and the groups' borders.

    Shapes: int (N,); borders are shares, from the lowest to the highest. The groups are of equal size, to a few stays.
    """
    missing_N = 1 - cohort.observed_bins_ND.sum(axis=1) / np.prod(cohort.values_NTD.shape[1:])
    cohort.release()
    edges = np.quantile(missing_N, np.linspace(0, 1, MISSING_GROUPS + 1))
    return np.searchsorted(edges[1:-1], missing_N, side="right"), tuple(round(float(edge), 4) for edge in edges)


def _assess(imputer: PretrainedImputer, made_from: MadeFrom) -> AssessmentOutput:
    project, cohort = imputer.project, imputer.data.cohort
    group_N, edges = missing_groups(cohort)
    example = example_stay(cohort.variable_names, project.params.seed)
    if cohort.window != Window():
        example = cohort.window.of_hourly(example)
    masked = example.copy()
    masked[:, example_bins(cohort.window.bins)] = np.nan
    jobs = [
        AssessJob(
            cohort=cohort,
            fold=fold,
            params=project.params,
            imputer=imputer.name,
            pretrained=imputer.weights[fold.number],
            group_N=group_N,
            example_NTD=masked,
        )
        for fold in imputer.data.folds
    ]
    subject = training_subject(made_from, [divided_input(imputer.data, "evaluation")])
    with track_training(project, made_from, imputer.data, subject) as run:
        folds = run_fold_jobs(assess_fold, jobs, run, project.engine)
        metrics = [fold.final_metrics for fold in folds]
        run.log_metrics({name: fmean(fold[name] for fold in metrics) for name in metrics[0]})
        run.log_metrics({"mae": fmean(scores.mae for fold in folds for scores in fold.scores)})
        run.describe(assessment_result(metrics))
        run.log_dict({"folds": [fold.model_dump(exclude={"example"}) for fold in folds]}, "assessment.json")
        output = AssessmentOutput(
            made_from=made_from,
            run_id=run.run_id,
            missing_share_edges=edges,
            example=[[None if math.isnan(value) else round(value, 4) for value in row] for row in example[0].tolist()],
            folds=tuple(folds),
        )
        write_assessment(project.assess_folder(imputer.name), output)
        keep_assessment(imputer, output, run)
        return output
