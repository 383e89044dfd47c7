"""Measuring a registered model on a cohort that it was not trained on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imputune.data.cohort import Cohort, cohort_hash, read_cohort
from imputune.errors import UserError
from imputune.evaluation.subgroups import GroupScores, score_cohort
from imputune.files import replace_text
from imputune.pipeline.predict import Model, load_model
from imputune.pipeline.project import Project, track


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on a cohort: `groups` has all stays first.

    checked_against_training: whether the cohort that the model was trained on was there to see that no stay is in both.
    """

    model: str
    version: int
    run_id: str
    cohort: str
    cohort_hash: str
    threshold: float
    checked_against_training: bool
    groups: tuple[GroupScores, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


def run_evaluate(project: Project, wanted: str, folder: Path) -> tuple[Evaluation, Path]:
    """Measure a model on a cohort folder, track it, write results/<dataset>/external-<cohort>.json.

    Raises UserError for an unknown model, a cohort of other variables, or one with stays the model was trained on.
    """
    model = load_model(project, wanted)
    cohort, digest = read_cohort(folder), cohort_hash(folder)
    checked = _check(project, model, cohort, digest, folder)
    risk_N = model.bundle.risk_by_fold(np.asarray(cohort.values_NTD)).mean(axis=0, dtype=np.float64)
    threshold = model.bundle.threshold
    name = "-".join(cohort.source.get("sets", [])) or folder.resolve().name
    settings = project.params.evaluate
    groups = score_cohort(cohort.died_N, risk_N, cohort.descriptors, threshold, settings.resamples, project.params.seed)
    version = model.version
    evaluation = Evaluation(version.name, version.number, version.run_id, name, digest, threshold, checked, groups)
    path = project.results_folder / f"external-{name}.json"
    tags = {"model": version.name, "model_version": str(version.number), "evaluated_on": name}
    with track(project, digest, "evaluate", {"resamples": settings.resamples}, tags, folds=()) as run:
        run.log_metrics({score: interval.value for score, interval in groups[0].scores.items()})
        run.log_dict(evaluation.as_json(), "evaluation.json")
        replace_text(path, json.dumps(evaluation.as_json(), indent=1) + "\n")
    return evaluation, path


def _check(project: Project, model: Model, cohort: Cohort, digest: str, folder: Path) -> bool:
    """Refuse a cohort that says nothing of the model; return whether its stays could be held against the training's."""
    about = model.bundle.about
    if cohort.variables != about.variables:
        theirs, ours = set(cohort.variables), set(about.variables)
        differing = sorted({variable.name for variable in theirs ^ ours}) or ["their order"]
        raise UserError(f"{folder} has other variables or units than {model.name} ({', '.join(differing)})")
    if digest == model.version.tag("cohort_hash"):
        raise UserError(
            f"{folder} is the cohort that {model.name} was trained on: `imputune compare` has its test folds; evaluate "
            "another one"
        )
    there = (project.cohort_folder / "source.json").is_file()
    comparable = there and cohort_hash(project.cohort_folder) == model.version.tag("cohort_hash")
    if comparable and (shared := _shared(project.cohort_folder, cohort)):
        raise UserError(
            f"{shared:,} of the {len(cohort.died_N):,} stays of {folder} are in {project.cohort_folder} too, where "
            f"{model.name} was trained: evaluate stays that it has not seen"
        )
    if not 0 < cohort.died_N.sum() < len(cohort.died_N):
        raise UserError(f"{folder} needs stays that died and stays that survived, to measure risks by")
    return comparable


def _shared(folder: Path, cohort: Cohort) -> int:
    """Return how many stays, by id and values, are in a cohort folder too."""
    trained = read_cohort(folder)
    _, ours, theirs = np.intersect1d(cohort.stay_ids_N, trained.stay_ids_N, assume_unique=True, return_indices=True)
    pairs = zip(cohort.values_NTD[ours], trained.values_NTD[theirs], strict=True)
    return sum(np.array_equal(one, other, equal_nan=True) for one, other in pairs)
