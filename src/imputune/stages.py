"""The stages before fine-tuning, and what all training stages log and register of their results."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pandas as pd

from imputune.catalogue import PRETRAINED, check_installed
from imputune.cells import Cell
from imputune.config import ImputerName
from imputune.data.cohort import Cohort, cohort_hash, read_cohort
from imputune.data.folds import Fold, draw_folds, write_folds
from imputune.evaluation.figures import curves_figure
from imputune.evaluation.metrics import youden_threshold
from imputune.project import (
    IMPUTER_SECTIONS,
    Divided,
    Project,
    Watch,
    about,
    only_one,
    read_divided,
    settings_of,
    track,
    track_training,
)
from imputune.tracking.bundle import BundleAbout
from imputune.tracking.interrupted import end_interrupted
from imputune.tracking.registry import classifier_name, imputer_name, register_bundle, version_of_run
from imputune.tracking.runs import TrackedRun
from imputune.training.checkpoints import Checkpoints
from imputune.training.imputers import csai_sizes
from imputune.training.outputs import TrainedFold, write_stage
from imputune.training.parallel import run_folds
from imputune.training.pretrain import PretrainJob, pretrain_fold


def run_folds_stage(project: Project) -> list[Fold]:
    """Draw the folds of the project's cohort, write and track them; see `data.folds` for the errors."""
    cohort, digest = read_cohort(project.cohort_folder), cohort_hash(project.cohort_folder)
    folds = draw_folds(cohort, project.params.folds.count, project.params.seed)
    settings = {"folds": project.params.folds.model_dump()}
    with track(project, digest, "folds", settings, {}, folds=()) as run:
        write_folds(folds, cohort, digest, project.folds_file)
        sizes = {part: float(len(getattr(folds[0], part))) for part in ("train", "validation", "test")}
        run.log_metrics({f"{part}_stays_of_fold_0": size for part, size in sizes.items()})
    return folds


def run_pretrain(project: Project, watch: Watch, imputer: ImputerName = PRETRAINED) -> dict[str, Any]:
    """Pretrain an imputer on every fold, track it, write artifacts, register it if it is CSAI; return the result.

    Folds that an interrupted command had finished, from the same data, folds and settings, are not trained again.
    Raises UserError when the cohort or its folds are missing or do not belong together, the imputer's package is not
    installed, or another command is pretraining the same imputer.
    """
    check_installed(imputer)
    data = read_divided(project)
    params = project.params
    told = about(project, data) | {
        "stage": "pretrain",
        "imputer": imputer,
        "params": settings_of(project, *IMPUTER_SECTIONS),
    }
    folder = project.unfinished_folder / f"pretrain-{imputer}"
    with only_one(project.unfinished_folder / f"lock.{imputer}", f"pretraining {imputer} on {project.dataset}"):
        checkpoints = Checkpoints(folder, told)
        if (interrupted := checkpoints.run_id) and end_interrupted(project.root, interrupted):
            checkpoints.remove()  # the command was killed between the end of its run and this
        done = checkpoints.begin()
        with track_training(project, data, "pretrain", told, {"imputer": imputer}) as run:
            checkpoints.run_id = run.run_id
            for result in done.values():
                retell(run, result)
            jobs = [PretrainJob(data.cohort, fold, params, imputer) for fold in data.folds if fold.number not in done]
            with watch(run, project.budget.pretrain_epochs) as recorder:
                trained = run_folds(pretrain_fold, jobs, recorder, params.workers, checkpoints.save)
            done |= {result.fold: result for result in trained}
            results = [done[fold.number] for fold in data.folds]
            log_summary(run, told, results)
            if results[0].history:
                log_curves(run, results, "loss")
                if "validation_mae" in results[0].history[0]:  # CSDI looks at none
                    log_curves(run, results, "mae")
            run.log_dict({str(result.fold): result.imputation for result in results}, "imputation.json")
            write_stage(project.imputer_folder(imputer), told | {"run_id": run.run_id}, results)
            if imputer == PRETRAINED:
                register(run, project, data, results)
        checkpoints.remove()
    return told | {"run_id": run.run_id, "results": results}


def retell(run: TrackedRun, result: TrainedFold) -> None:
    """Tell a run all about a fold that was finished before it began."""
    for epoch, metrics in enumerate(result.history):
        run.epoch(result.fold, epoch, metrics)
    for trial in result.trials:
        run.trial_finished(result.fold, trial)
    run.fold_finished(result.fold, result.final_metrics)


def log_summary(run: TrackedRun, told: Mapping[str, Any], results: list[TrainedFold]) -> None:
    """Log the means over folds, the seconds of all, and every fold's scores as scores.json."""
    means = {name: fmean(result.scores[name] for result in results) for name in results[0].scores}
    run.log_metrics(means | {"seconds": sum(result.seconds for result in results)})
    summary = {"cohort_hash": told["cohort_hash"], "folds": [{"fold": r.fold, **r.scores} for r in results]}
    run.log_dict(summary, "scores.json")


def log_curves(run: TrackedRun, results: list[TrainedFold], metric: str) -> None:
    """Log a picture of every fold's training and validation curves."""
    histories = {result.fold: result.history for result in results}
    run.log_figure(curves_figure(histories, metric, f"{metric} by epoch"), f"figures/{metric}.png")


def register(
    run: TrackedRun,
    project: Project,
    data: Divided,
    results: list[TrainedFold],
    cell: Cell | None = None,
    imputer_run_id: str = "",
) -> None:
    """Register the fold models as a bundle: imputers, or with a cell the classifiers of that."""
    _, hours, variables = data.cohort.values_NTD.shape
    bundle = BundleAbout(
        project.dataset,
        data.cohort.variables,
        csai_sizes(project.params, variables, hours),
        cell.head if cell else None,
        cell.input if cell else None,
        tuple(result.fold for result in results),
        _threshold(results, data.cohort) if cell else None,
    )
    lineage = {"cohort_hash": data.origin.cohort_hash, "folds_hash": data.origin.folds_hash}
    if cell:
        imputer_version = version_of_run(run.tracking_uri, imputer_name(project.dataset), imputer_run_id)
        lineage |= {"imputer_run": imputer_run_id, "imputer_version": imputer_version} | cell.tags()
    name = classifier_name(project.dataset) if cell else imputer_name(project.dataset)
    register_bundle(run, name, bundle, results, lineage)


def _threshold(results: list[TrainedFold], cohort: Cohort) -> float:
    """Return the threshold of a bundle, from what each fold's model says of its validation stays."""
    told = pd.concat([result.predictions for result in results])
    validation = told[told["partition"] == "validation"]
    return youden_threshold(cohort.died(validation["stay_id"].to_numpy()), validation["risk"].to_numpy())
