"""The command evaluate: measure a registered model on a cohort that it was not trained on."""

import json
from pathlib import Path

import numpy as np

from imputune.artifacts.stage_output import Settings
from imputune.data.cohort import Cohort, cohort_hash, read_cohort
from imputune.errors import UserError
from imputune.evaluation.stored import Stored
from imputune.evaluation.subgroups import GroupScores, score_cohort
from imputune.files import replace_text
from imputune.pipeline.predict import Model, load_model
from imputune.pipeline.project import Project
from imputune.pipeline.tracked import track_if_allowed


class Evaluation(Stored):
    """The scores of a model on a cohort: `groups` has all stays first.

    checked_against_training: whether the model's training cohort was in data/, so that shared stays could be found.
    """

    model: str
    version: int
    run_id: str
    cohort: str
    cohort_hash: str
    threshold: float
    checked_against_training: bool
    groups: tuple[GroupScores, ...]


def run_evaluate(project: Project, wanted: str, folder: Path) -> tuple[Evaluation, Path | None]:
    """Measure a model on a cohort folder, track it, write results/<dataset>/external-<cohort>.json.

    Returns the scores, and the path of the file or None if the user may not write in the project. A cohort's name is
    its sets, or its folder; two cohorts of the same name get two files.

    Raises UserError for an unknown model, a cohort of other variables, or one with stays the model was trained on.
    """
    model = load_model(project, wanted)
    cohort, digest = read_cohort(folder), cohort_hash(folder)
    checked = _check(project, model, cohort, digest, folder)
    risk_N = model.bundle.risk_by_fold(np.asarray(cohort.values_NTD), cohort.static).mean(axis=0, dtype=np.float64)
    threshold = model.bundle.threshold
    sets = cohort.source.get("sets")
    name = "-".join(map(str, sets)) if isinstance(sets, list) and sets else folder.resolve().name
    settings = project.params.evaluate
    groups = score_cohort(
        cohort.outcome_N,
        risk_N,
        cohort.static,
        threshold=threshold,
        resamples=settings.resamples,
        seed=project.params.seed,
    )
    version = model.version
    evaluation = Evaluation(
        model=version.name,
        version=version.number,
        run_id=version.run_id,
        cohort=name,
        cohort_hash=digest,
        threshold=threshold,
        checked_against_training=checked,
        groups=groups,
    )
    tags = {"model": version.name, "model_version": str(version.number), "evaluated_on": name}
    content = evaluation.model_dump(mode="json")
    run_settings: Settings = {"resamples": settings.resamples}
    with track_if_allowed(project, "evaluate", cohort_hash=digest, settings=run_settings, tags=tags) as run:
        if run is None:
            return evaluation, None
        path = _free_path(project.results_folder, name, digest)
        run.log_metrics({score: interval.value for score, interval in groups[0].scores.items()})
        run.log_dict(content, "evaluation.json")
        replace_text(path, json.dumps(content, indent=1) + "\n")
    return evaluation, path


def _free_path(folder: Path, name: str, digest: str) -> Path:
    """Return the file for a cohort's scores; a second cohort of the same name has its hash in the file's name."""
    path = folder / f"external-{name}.json"
    if path.is_file():
        try:
            earlier = json.loads(path.read_text())["cohort_hash"]
        except (ValueError, KeyError, TypeError):
            earlier = ""
        if earlier != digest:
            return folder / f"external-{name}-{digest[:8]}.json"
    return path


def _check(project: Project, model: Model, cohort: Cohort, digest: str, folder: Path) -> bool:
    """Refuse a cohort that cannot measure the model; return whether its stays could be compared with the training's."""
    about = model.bundle.about
    if cohort.variables != about.variables:
        theirs, ours = set(cohort.variables), set(about.variables)
        differing = sorted({variable.name for variable in theirs ^ ours}) or ["their order"]
        raise UserError(
            f"{folder} has other variables or units than {model.name} ({', '.join(differing)}): "
            "evaluate a cohort with the model's variables"
        )
    if missing := {each.name for each in about.static} - {each.name for each in cohort.static_variables}:
        raise UserError(
            f"{folder} lacks static facts that {model.name} reads ({', '.join(sorted(missing))}): extract it with them"
        )
    if digest == model.version.tag("cohort_hash"):
        raise UserError(
            f"{folder} is the cohort that {model.name} was trained on: `imputune compare` has its test folds; evaluate "
            "another one"
        )
    there = (project.cohort_folder / "source.json").is_file()
    comparable = there and cohort_hash(project.cohort_folder) == model.version.tag("cohort_hash")
    if comparable and (shared := _shared(project.cohort_folder, cohort)):
        raise UserError(
            f"{shared:,} of the {len(cohort.outcome_N):,} stays of {folder} are in {project.cohort_folder} too, where "
            f"{model.name} was trained: evaluate other stays"
        )
    if not 0 < cohort.outcome_N.sum() < len(cohort.outcome_N):
        raise UserError(f"{folder} needs deaths and survivors: scores of risks need both")
    return comparable


def _shared(folder: Path, cohort: Cohort) -> int:
    """Return how many stays, by id and values, are also in a cohort folder."""
    trained = read_cohort(folder)
    _, ours, theirs = np.intersect1d(cohort.stay_ids_N, trained.stay_ids_N, assume_unique=True, return_indices=True)
    pairs = zip(cohort.values_NTD[ours], trained.values_NTD[theirs], strict=True)
    return sum(np.array_equal(one, other, equal_nan=True) for one, other in pairs)
