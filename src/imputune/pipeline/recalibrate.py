"""The command recalibrate: fit a registered model's risks to another site's stays, as a new version of the model."""

import json
from math import isnan
from pathlib import Path

import numpy as np

from imputune import signals
from imputune.artifacts.stage_output import ALSO_TAG, Settings
from imputune.data.cohort import Cohort, cohort_hash
from imputune.errors import UserError
from imputune.evaluation.calibration import CalibrationLine, fit_line
from imputune.evaluation.metrics import risk_scores
from imputune.evaluation.stored import Stored
from imputune.evaluation.subgroups import SCORED_EVENTS
from imputune.pipeline.evaluate import check_cohort, read_measured
from imputune.pipeline.further_cohorts import cohort_name, shared_with_lineage
from imputune.pipeline.model_cards import Recalibrated, card_failures, write_recalibrated_card
from imputune.pipeline.predict import Model, load_model
from imputune.pipeline.project import Project
from imputune.pipeline.run_subject import cohort_input, model_subject
from imputune.pipeline.tracked import track
from imputune.protocol.outcome_words import outcome_words
from imputune.registry.names import FOLD_SCORES
from imputune.registry.register import fold_scores_text, register_copy
from imputune.registry.version import (
    EVALUATED,
    RECALIBRATED_COHORTS,
    RECALIBRATED_FROM,
    RECALIBRATED_ON,
    UNCHANGED_SCORES,
)
from imputune.registry.versions import Registry
from imputune.reporting.run_notes import before_and_after
from imputune.runtime.console import counted

NOT_INHERITED = {FOLD_SCORES, "run_id", "bundle_sha256", "trained_run", "decision", "decision_run", "rolled_back_to"}
"""Tags that belong to one version, and not to a version recalibrated from it."""


class Recalibration(Stored):
    """A model's recalibration on a cohort.

    version: the new version, recalibrated from version `source`. line: what now corrects the mean of the fold models'
    risks. before, after: `metrics.risk_scores` on the cohort; those after are of the stays that the line was fitted to.
    pretrained_on: how many of these stays pretrained the model's imputer, by further cohort. unlabelled: the number of
    stays that were left out because they have no label of the outcome.
    """

    model: str
    version: int
    source: int
    cohort: str
    cohort_hash: str
    stays: int
    events: int
    outcome: str
    unlabelled: int
    line: CalibrationLine
    before: dict[str, float]
    after: dict[str, float]
    checked_against_training: bool
    pretrained_on: dict[str, int]


def run_recalibrate(project: Project, wanted: str, folder: Path) -> Recalibration:
    """Fit slope and intercept of a model's risks on a cohort folder, and register the result as a new version.

    The line is fitted to the final risks, the mean over fold models. The new version has the same weights; its lineage
    is its source's, with the source and the cohort beside it. Of the fold scores it keeps those that do not depend on
    calibration.

    Raises UserError for an unknown model, a cohort that cannot measure it (see `evaluate.check_cohort`), too few events
    or non-events, and risks that do not rise with the outcome rate.
    """
    model = load_model(project, wanted)
    cohort, unlabelled = read_measured(model, folder)
    digest = cohort_hash(folder)
    checked = check_cohort(project, model, cohort, folder, doing="recalibrate on")
    pretrained_on, _ = shared_with_lineage(project, model.version.tag(ALSO_TAG), cohort, digest)
    events, words = cohort.events, outcome_words(cohort.outcome)
    if min(events, len(cohort.outcome_N) - events) < SCORED_EVENTS:
        raise UserError(
            f"{folder} has {words.counted(events)} among {counted(len(cohort.outcome_N), 'stay')}: recalibrate on a "
            f"cohort with at least {SCORED_EVENTS} {words.events} and {SCORED_EVENTS} {words.non_events}"
        )
    risk_N = model.bundle.risk(np.asarray(cohort.values_NTD), cohort.static)
    fitted = _fitted(model, cohort, risk_N, folder)
    earlier = model.bundle.about.recalibration
    line = fitted.after(earlier) if earlier else fitted
    about = model.bundle.about.model_copy(update={"recalibration": line})
    corrected_N = fitted.apply(risk_N)
    before, after = (risk_scores(cohort.outcome_N, each) for each in (risk_N, corrected_N))
    name, version = cohort_name(cohort, folder), model.version
    lineage = _inherited(model) | {
        RECALIBRATED_FROM: str(version.number),
        RECALIBRATED_ON: name,
        RECALIBRATED_COHORTS: ",".join([*version.recalibrated_cohorts, digest]),
        "recalibration": line.model_dump_json(),
        "recalibrated_stays": str(len(cohort.outcome_N)),
        "recalibrated_events": str(events),
        "calibration_before": _calibration(before),
        "calibration_after": _calibration(after),
    }
    settings: Settings = {}
    tags = {"model": version.name, RECALIBRATED_FROM: str(version.number), RECALIBRATED_ON: name}
    source = Registry(project.root, version.name).folder_of(version)
    subject = model_subject(version, "recalibrate", cohort_input(name, cohort, digest, "training"), "Recalibrates")
    with track(project, subject, settings=settings, tags=tags) as run, signals.held():
        number = register_copy(run, version.name, about, source, {**lineage})
        recalibrated = Recalibrated(
            cohort=cohort, folder=folder, digest=digest, risk_N=corrected_N, before=before, after=after
        )
        with card_failures(version.name, number):
            write_recalibrated_card(project, version, number, about, recalibrated)
        result = Recalibration(
            model=version.name,
            version=int(number),
            source=version.number,
            cohort=name,
            cohort_hash=digest,
            stays=len(cohort.outcome_N),
            events=events,
            outcome=cohort.outcome,
            unlabelled=unlabelled,
            line=line,
            before=before,
            after=after,
            checked_against_training=checked,
            pretrained_on=pretrained_on,
        )
        run.log_metrics({f"external_before_{score}": value for score, value in before.items()})
        run.log_metrics({f"external_after_{score}": value for score, value in after.items()})
        run.log_dict(result.model_dump(mode="json"), "recalibration.json")
        run.describe(f"The new version is {number}.\n\n{before_and_after(before, after)}")
    return result


def _fitted(model: Model, cohort: Cohort, risk_N: np.ndarray, folder: Path) -> CalibrationLine:
    """Return the line that corrects the present risks; UserError where there is none, or it turns their order round."""
    line, words = fit_line(cohort.outcome_N, risk_N), outcome_words(cohort.outcome)
    if isnan(line.slope):
        raise UserError(
            f"the risks of {model.name} separate all {words.events} from all {words.non_events} of {folder}, or are "
            "all equal, so that no slope fits best: recalibrate on a larger cohort"
        )
    if line.slope <= 0:
        raise UserError(
            f"the slope on {folder} is {line.slope:.3f}: stays of higher risk by {model.name} do not {words.happen} "
            "more often there, and no recalibration can mend this; check the units of its values, or train on its stays"
        )
    return line


def _inherited(model: Model) -> dict[str, str]:
    """Return the lineage that a recalibrated version has from its source, and the scores that stay the same."""
    prefix, version = "imputune.", model.version
    lineage = {key.removeprefix(prefix): text for key, text in version.tags.items() if key.startswith(prefix)}
    scores = {
        fold: {name: score for name, score in of.items() if name in UNCHANGED_SCORES}
        for fold, of in version.fold_scores.items()
    }
    kept = {key: text for key, text in lineage.items() if key not in NOT_INHERITED and not key.startswith(EVALUATED)}
    return kept | ({FOLD_SCORES: fold_scores_text(scores)} if scores else {})


def _calibration(scores: dict[str, float]) -> str:
    return json.dumps({name: round(score, 6) for name, score in scores.items() if name.startswith("calibration_")})
