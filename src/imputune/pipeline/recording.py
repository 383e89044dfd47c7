"""The stages before fine-tuning, and what all training stages log and register of their results."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pandas as pd

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.cohort import Cohort
from imputune.evaluation.metrics import youden_threshold
from imputune.imputers.build import csai_sizes
from imputune.pipeline.project import (
    Divided,
    Project,
)
from imputune.protocol.variants import Cell
from imputune.registry.bundle import BundleAbout
from imputune.registry.register import (
    classifier_name,
    imputer_name,
    register_bundle,
    version_of_run,
)
from imputune.reporting.figures import curves_figure
from imputune.tracking.runs import TrackedRun


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
