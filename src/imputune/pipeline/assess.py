"""Imputers alone: each scored on the same held-out cells of the same folds' test stays, and tracked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from imputune.artifacts.stage_output import differences, read_result, write_result
from imputune.data.cohort import Cohort
from imputune.data.raw.synthetic import example_stay
from imputune.errors import UserError
from imputune.imputers.held_out_scoring import AssessedFold, AssessJob, assess_fold
from imputune.pipeline.inputs import Source
from imputune.pipeline.project import (
    Divided,
    Project,
    about,
    read_divided,
    track_training,
)
from imputune.runtime.workers import run_folds
from imputune.settings.names import ImputerName

GROUPS = 4  # of stays, by their share of missing cells
EXAMPLE_HOURS = slice(18, 30)  # hidden from imputers in the invented stay


def run_assess(
    project: Project, imputers: Sequence[ImputerName], again: bool, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Assess imputers, track each, write artifacts; return their results, those that were there already among them.

    Raises UserError when one was not pretrained, or on other variables, data or folds, its package is not installed, or
    a share of cells cannot be hidden.
    """
    data = read_divided(project)
    sources = {imputer: Source.read(project, data, imputer) for imputer in imputers}
    results = []
    for imputer, source in sources.items():
        told = assessed_from(source, imputer)
        folder = project.assess_folder(imputer)
        found = None if again else _made_from(project, imputer, told)
        if found is None:
            found = _assess(source, data, imputer, told)
            write_result(folder, found)
            rows = [fold["scores"] for fold in found["folds"]]
            tell(f"{imputer}: MAE {fmean(row['mae'] for fold in rows for row in fold):.3f} over all ways of hiding")
        else:
            tell(f"{imputer} is assessed already")
        results.append(found)
    return results


def assessed_from(source: Source, imputer: ImputerName) -> dict[str, Any]:
    """Return what the assessment of an imputer says of what it was made from, where that is what there is now."""
    params = source.project.params
    return about(source.project, source.data) | {
        "stage": "assess",
        "imputer": imputer,
        "imputer_run_id": source.imputer_run_id,
        "params": params.model_dump(include={"assess", "masking"}, mode="json"),
    }


def _made_from(project: Project, imputer: ImputerName, told: dict[str, Any]) -> dict[str, Any] | None:
    try:
        found = read_result(project.assess_folder(imputer), "")
    except UserError:
        return None
    return None if differences(found, told) else found


def _assess(source: Source, data: Divided, imputer: ImputerName, told: dict[str, Any]) -> dict[str, Any]:
    project, cohort = source.project, data.cohort
    group_N, edges = missing_groups(cohort)
    example = example_stay(cohort.variable_names, project.params.seed)
    holed = example.copy()
    holed[:, EXAMPLE_HOURS] = np.nan
    jobs = [
        AssessJob(cohort, fold, project.params, imputer, source.imputers[fold.number], group_N, holed)
        for fold in data.folds
    ]
    tags = {"imputer": imputer, "imputer_run": source.imputer_run_id}
    with track_training(project, data, "assess", told, tags) as run:
        results = run_folds(assess_fold, jobs, run, project.params.workers)
        run.log_metrics({name: fmean(r.final_metrics[name] for r in results) for name in results[0].final_metrics})
        content = told | {
            "run_id": run.run_id,
            "missing_share_edges": edges,
            "example": [
                [None if math.isnan(value) else round(value, 4) for value in row] for row in example[0].tolist()
            ],
            "folds": [asdict(result) for result in results],
        }
        run.log_dict({"folds": [_scores(result) for result in results]}, "assessment.json")
    return content


def _scores(result: AssessedFold) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if name != "example"}


def missing_groups(cohort: Cohort) -> tuple[np.ndarray, list[float]]:
    """Return each stay's group by its share of missing cells, 0 the fullest records, and the edges between the groups.

    The groups are of equal size, to a few stays; edges are shares, from the lowest to the highest there is.
    """
    missing_N = 1 - cohort.observed_NTD.mean(axis=(1, 2))
    cohort.release()
    edges = np.quantile(missing_N, np.linspace(0, 1, GROUPS + 1))
    return np.searchsorted(edges[1:-1], missing_N, side="right"), [round(float(edge), 4) for edge in edges]
