"""The command evaluate: measure a registered model on a cohort that it was not trained on."""

import json
from pathlib import Path

import numpy as np
from pydantic import Field

from imputune.artifacts.stage_output import ALSO_TAG, Settings
from imputune.data.cohort import Cohort, cohort_hash, read_cohort
from imputune.data.overlap import shared_stays, shared_words
from imputune.errors import UserError
from imputune.evaluation.decision_curve import DecisionPoint, decision_curve
from imputune.evaluation.small_groups import without_small_groups
from imputune.evaluation.stored import Stored
from imputune.evaluation.subgroups import SCORED_EVENTS, GroupScores, score_cohort
from imputune.files import replace_bytes, replace_text
from imputune.pipeline.further_cohorts import cohort_name, shared_with_lineage
from imputune.pipeline.model_cards import add_event, now
from imputune.pipeline.predict import Model, load_model
from imputune.pipeline.project import Project
from imputune.pipeline.run_subject import cohort_input, model_subject
from imputune.pipeline.tracked import track_if_allowed
from imputune.protocol.outcome_words import outcome_words
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.protocol.published import CHALLENGE_2012, REFERENCE_DATASET, published_dataset
from imputune.registry.version import EVALUATED, RECALIBRATED_ON
from imputune.registry.versions import Registry
from imputune.reporting import card_events
from imputune.reporting.figures import decision_figure, to_png
from imputune.reporting.run_notes import intervals_result
from imputune.runtime.console import warn

HASH_IN_TAG = 12  # characters
YOUDEN = "youden"  # the rule of versions from before it was a setting


class Evaluation(Stored):
    """The scores of a model on a cohort: `groups` has all stays first.

    checked_against_training: whether the model's training cohort was in data/, so that shared stays could be found.
    threshold_rule: how the threshold was found. recalibrated_on: the cohort that the version was recalibrated on, ""
    for none. decision_curve: over all stays. landmarks: for some scores, what the winners of the 2012 challenge reached
    on its set-c.
    is_external: False if stays of this cohort pretrained the model's imputer, though without their outcomes.
    pretrained_on: the number of these stays by further cohort. unchecked_cohorts: further cohorts that are not in
    data/, so that shared stays could not be found. unlabelled: the number of stays that were left out because they have
    no label of the outcome.
    The files of earlier versions lack these nine.
    """

    model: str
    version: int
    run_id: str
    cohort: str
    cohort_hash: str
    threshold: float
    checked_against_training: bool
    groups: tuple[GroupScores, ...]
    threshold_rule: str = YOUDEN
    recalibrated_on: str = ""
    decision_curve: tuple[DecisionPoint, ...] = ()
    landmarks: dict[str, float] = Field(default_factory=dict)
    is_external: bool = True
    pretrained_on: dict[str, int] = Field(default_factory=dict)
    unchecked_cohorts: tuple[str, ...] = ()
    outcome: str = DEFAULT_OUTCOME
    unlabelled: int = 0


def run_evaluate(project: Project, wanted: str, folder: Path) -> tuple[Evaluation, Path | None]:
    """Measure a model on a cohort folder, track it, write results/<dataset>/external-<cohort>.json and .png.

    The picture is the decision curve; there is none with too few events or non-events for scores. Returns the scores,
    and the path of the .json, None if the user may not write in the project. The version's card gets a line, and the
    version a tag. A cohort's name is its sets, or its folder; two cohorts of the same name get two files, and so do two
    versions of the model. A cohort that pretrained the model's imputer is measured, and marked as not external. The
    files and the run lack subgroups that are too small (see `small_groups.without_small_groups`).

    Raises UserError for an unknown model, a cohort of other variables or without the model's outcome, or one with stays
    the model was trained on.
    """
    model = load_model(project, wanted)
    cohort, unlabelled = read_measured(model, folder)
    digest = cohort_hash(folder)
    checked = check_cohort(project, model, cohort, folder, doing="evaluate")
    risk_N = model.bundle.risk(np.asarray(cohort.values_NTD), cohort.static)
    threshold = model.bundle.threshold
    shared, unchecked = shared_with_lineage(project, model.version.tag(ALSO_TAG), cohort, digest)
    name = cohort_name(cohort, folder)
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
        threshold_rule=model.bundle.about.threshold_rule or YOUDEN,
        recalibrated_on=version.tag(RECALIBRATED_ON),
        decision_curve=decision_curve(cohort.outcome_N, risk_N) if groups[0].scores else (),
        landmarks=CHALLENGE_2012 if published_dataset(project.dataset, cohort.outcome) == REFERENCE_DATASET else {},
        is_external=not shared,
        pretrained_on=shared,
        unchecked_cohorts=unchecked,
        outcome=cohort.outcome,
        unlabelled=unlabelled,
    )
    tags = {"model": version.name, "model_version": str(version.number), "evaluated_on": name}
    tags["is_external"] = str(evaluation.is_external).lower()
    kept = without_small_groups(groups, cohort.static, cohort.outcome_N)
    content = evaluation.model_copy(update={"groups": kept}).model_dump(mode="json")
    run_settings: Settings = {"resamples": settings.resamples}
    subject = model_subject(version, "evaluate", cohort_input(name, cohort, digest, "evaluation"), "Measures")
    with track_if_allowed(project, subject, settings=run_settings, tags=tags) as run:
        if run is None:
            return evaluation, None
        path = _free_path(project.results_folder, evaluation)
        run.log_metrics({f"external_{score}": interval.value for score, interval in groups[0].scores.items()})
        run.log_dict(content, "evaluation.json")
        if curve := evaluation.decision_curve:
            picture = to_png(decision_figure({f"{version.variant} on {name}": {"model": curve}}))
            run.log_picture(picture, "figures/decision.png")
            replace_bytes(path.with_suffix(".png"), picture)
        else:
            path.with_suffix(".png").unlink(missing_ok=True)
        run.describe(intervals_result(groups[0].scores) if groups[0].scores else too_few(groups[0], cohort.outcome))
        replace_text(path, json.dumps(content, indent=1) + "\n")
        _tell(Registry(project.root, version.name), model, evaluation, run.run_id)
    return evaluation, path


def read_measured(model: Model, folder: Path) -> tuple[Cohort, int]:
    """Read the stays of a cohort that have a label of the model's outcome; return them, and the number of the others.

    Raises UserError as `read_cohort` does, and for a cohort without the outcome.
    """
    cohort = read_cohort(folder).with_outcome(model.bundle.about.outcome)
    return cohort.labelled(), int((~cohort.labelled_N).sum())


def too_few(every: GroupScores, outcome: str) -> str:
    """Say why a cohort has no scores."""
    words = outcome_words(outcome)
    return (
        f"no scores, calibration or decision curve: they need at least {SCORED_EVENTS} {words.events} and "
        f"{SCORED_EVENTS} {words.non_events}, and these stays have {words.counted(every.events)} and "
        f"{words.counted_without(every.stays - every.events)}"
    )


def _tell(registry: Registry, model: Model, found: Evaluation, run_id: str) -> None:
    """Write what was found on the version: as a tag, and as a line of its card. The same cohort replaces both.

    A failure, such as of a user who may not change the registry, is a warning.
    """
    every, when = found.groups[0], now()
    told = {
        "cohort": found.cohort,
        "cohort_hash": found.cohort_hash,
        "stays": every.stays,
        "outcome": found.outcome,
        "events": every.events,
        "is_external": found.is_external,
        "scores": {name: list(interval.model_dump().values()) for name, interval in every.scores.items()},
        "when": when,
        "run_id": run_id,
    }
    try:
        registry.set_tags(model.version, {f"{EVALUATED}{found.cohort_hash[:HASH_IN_TAG]}": json.dumps(told)})
    except UserError as failure:
        warn(f"warning: the scores were not noted on {model.name}: {failure}")
        return
    unchecked = [] if found.checked_against_training else ["the training cohort"]
    unchecked += [found.recalibrated_on] if found.recalibrated_on else []
    event = card_events.evaluated(
        when,
        found.cohort,
        found.cohort_hash,
        every,
        pretrained_on=found.pretrained_on,
        unchecked=[*unchecked, *found.unchecked_cohorts],
        outcome=found.outcome,
    )
    add_event(registry, model.version, event)


def _free_path(folder: Path, found: Evaluation) -> Path:
    """Return the file for a version's scores on a cohort: the one that has them already, or a new one.

    A second cohort of the same name has its hash in the file's name, and a second version of the model its number.
    """
    digest, version = f"-{found.cohort_hash[:8]}", f"-version-{found.version}"
    first, second, third, last = (
        folder / f"external-{found.cohort}{further}.json" for further in ("", version, digest, digest + version)
    )
    ours = found.cohort_hash, found.version
    held = {path: _held_by(path) for path in (first, second, third, last) if path.is_file()}
    if same := [path for path, subject in held.items() if subject == ours]:
        return same[0]
    if first not in held:
        return first
    nearest = second if held[first][0] == found.cohort_hash else third
    return last if nearest in held else nearest


def _held_by(path: Path) -> tuple[str, int]:
    """Return whose scores a file has, as hash of the cohort and version; "" and 0 if it cannot be read."""
    try:
        content = json.loads(path.read_text())
        return str(content["cohort_hash"]), int(content["version"])
    except (ValueError, KeyError, TypeError):
        return "", 0


def check_cohort(project: Project, model: Model, cohort: Cohort, folder: Path, *, doing: str) -> bool:
    """Refuse a cohort that is not external to the model, or cannot measure it; `doing`: what the user is told to do.

    Returns whether its stays could be compared with the training's. Raises UserError for other variables, the cohort
    that the model was trained or recalibrated on, stays that it was trained on, and a cohort without events or without
    non-events.
    """
    about, digest = model.bundle.about, cohort_hash(folder)
    if cohort.variables != about.variables:
        theirs, ours = set(cohort.variables), set(about.variables)
        differing = sorted({variable.name for variable in theirs ^ ours}) or ["their order"]
        raise UserError(
            f"{folder} has other variables or units than {model.name} ({', '.join(differing)}): "
            f"{doing} a cohort with the model's variables"
        )
    if cohort.window != about.window:
        raise UserError(
            f"{folder} has {cohort.window} and {model.name} reads {about.window}: {doing} a cohort "
            "with the model's window"
        )
    facts = {(each.name, each.unit, each.categories) for each in cohort.static_variables}
    if lacking := sorted(each.name for each in about.static if (each.name, each.unit, each.categories) not in facts):
        raise UserError(
            f"{folder} lacks static facts that {model.name} reads, or has them in other units or categories "
            f"({', '.join(lacking)}): extract it with them"
        )
    if digest == model.version.tag("cohort_hash"):
        raise UserError(
            f"{folder} is the cohort that {model.name} was trained on: `imputune compare` has its test folds; {doing} "
            "another one"
        )
    if digest in model.version.recalibrated_cohorts:
        raise UserError(
            f"{folder} is a cohort that {model.name} was recalibrated on, and would flatter it: {doing} another one"
        )
    there = (project.cohort_folder / "source.json").is_file()
    comparable = there and cohort_hash(project.cohort_folder) == model.version.tag("cohort_hash")
    training = read_cohort(project.cohort_folder) if comparable else None
    if training is not None and (shared := int(shared_stays(cohort, training).sum())):
        raise UserError(
            f"{shared:,} of the {len(cohort.outcome_N):,} stays of {folder} {shared_words(cohort, training)} in "
            f"{project.cohort_folder} too, where {model.name} was trained: {doing} other stays"
        )
    if not 0 < cohort.events < len(cohort.outcome_N):
        raise UserError(f"{folder} needs {outcome_words(cohort.outcome).both}: scores of risks need both")
    return comparable
