"""The model card of a registered version: made when it is registered; promote, rollback and evaluate add to it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from imputune.artifacts.model_card import (
    CardFact,
    CardRecalibration,
    ModelCard,
    parsed_card,
)
from imputune.artifacts.stage_files import each_tested_once
from imputune.artifacts.stage_output import ALSO_TAG, FURTHER_COHORTS, MadeFrom, TrainedFold
from imputune.data.cohort import Cohort
from imputune.errors import UserError
from imputune.evaluation.card_scores import FoldLine, StaysScores, fold_line, score_stays
from imputune.pipeline.cohort_cards import card_cohort
from imputune.pipeline.project import DividedCohort, Project
from imputune.registry.bundle import BundleAbout
from imputune.registry.cards import (
    CARD,
    DESCRIPTION_LIMIT,
    NUMBERS,
    change_card,
    describe_model,
    read_file,
    write_card,
)
from imputune.registry.version import Version
from imputune.registry.versions import Registry
from imputune.reporting.card_history import CardEvent, shortened, with_event
from imputune.reporting.card_texts import LINEAGE
from imputune.reporting.model_card import card_text, description_text, model_text
from imputune.runtime.console import warn

COMMIT_TAG = "mlflow.source.git.commit"


@dataclass(frozen=True, eq=False, kw_only=True)
class Trained:
    """What a version was registered from: its data, fold models and their description."""

    data: DividedCohort
    folds: Sequence[TrainedFold]
    made_from: MadeFrom
    about: BundleAbout


@dataclass(frozen=True, eq=False, kw_only=True)
class Recalibrated:
    """What a version was recalibrated on: the cohort, its folder and hash, and the corrected risks of its stays (N,).

    before, after: the scores of the risks before and after.
    """

    cohort: Cohort
    folder: Path
    digest: str
    risk_N: np.ndarray
    before: dict[str, float]
    after: dict[str, float]


def now() -> str:
    """Return the present minute as cards have it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


@contextmanager
def card_failures(name: str, number: str | int, remedy: str = "") -> Iterator[None]:
    """Turn a failure of the store while a version's card is written into a warning: what the card tells of is done."""
    try:
        yield
    except UserError as failure:
        warn(f"warning: the model card of {name} version {number} was not written: {failure}{remedy}")


def write_trained_card(project: Project, name: str, number: str, trained: Trained) -> None:
    """Give a version, and its registered model if it has none, the card of its training.

    Raises UserError if the store fails.
    """
    registry = Registry(project.root, name)
    version = registry.find(number)
    data, about, variant = trained.data, trained.about, trained.made_from.variant
    folds, test = ([_errors(trained, fold) for fold in trained.folds], None)
    if variant is not None:
        folds, test = _test_scores(project, trained)
    card = ModelCard(
        model=name,
        version=version.number,
        dataset=about.dataset,
        outcome=about.outcome,
        imputer=trained.made_from.imputer if about.reads_imputer and not about.members else "",
        head=about.head or "",
        input=about.input or "",
        variant=variant.label if variant else "",
        members=tuple(member.label for member in about.members),
        variables=about.variables,
        static=_facts(about),
        cohort=card_cohort(data.cohort, project.cohort_folder, data.origin.cohort_hash),
        division=trained.made_from.division,
        folds=tuple(folds),
        test=test,
        threshold=about.threshold,
        threshold_rule=about.threshold_rule or "",
        lineage=_lineage(version),
    )
    _write(registry, version, card)


def write_recalibrated_card(
    project: Project, source: Version, number: str, about: BundleAbout, found: Recalibrated
) -> None:
    """Give a version that was recalibrated from `source` its card.

    What does not change comes from the source's card; without one, from the source's tags. UserError if the store
    fails.
    """
    registry = Registry(project.root, source.name)
    version = registry.find(number)
    earlier = parsed_card(read_file(registry, source, NUMBERS))
    if about.recalibration is None or about.threshold is None:
        raise ValueError(f"version {number} must have a recalibration and a threshold")
    threshold = float(about.recalibration.apply(np.array(about.threshold)))
    scores = score_stays(
        found.cohort.outcome_N,
        found.risk_N,
        found.cohort.static,
        threshold=threshold,
        resamples=project.params.evaluate.resamples,
        seed=project.params.seed,
    )
    card = ModelCard(
        model=source.name,
        version=version.number,
        dataset=about.dataset,
        outcome=about.outcome,
        imputer=version.tag("imputer") if about.reads_imputer and not about.members else "",
        head=about.head or "",
        input=about.input or "",
        variant=f"{version.tag('imputer')}/{version.variant.rpartition('/')[2]}",
        members=tuple(member.label for member in about.members),
        variables=about.variables,
        static=_facts(about),
        cohort=earlier.cohort if earlier else None,
        division=earlier.division if earlier else None,
        folds=tuple(_kept_folds(version, earlier)),
        threshold=threshold,
        threshold_rule=about.threshold_rule or "youden",
        lineage=_lineage(version),
        recalibration=CardRecalibration(
            source=source.number,
            cohort=card_cohort(found.cohort, found.folder, found.digest),
            line=about.recalibration,
            before=found.before,
            after=found.after,
            scores=scores,
        ),
    )
    _write(registry, version, card)


def add_event(registry: Registry, version: Version, event: CardEvent) -> None:
    """Add an event to the history of a version's card, as `card_history.with_event` does; a failure is a warning."""
    with card_failures(registry.name, version.number):
        change_card(
            registry,
            version,
            lambda card: with_event(card, event),
            lambda description: shortened(description, DESCRIPTION_LIMIT),
        )


def add_missing_event(registry: Registry, version: Version, event: CardEvent) -> None:
    """Add an event unless the version has no model_card.md, or that has a line with the event's words already."""
    with card_failures(registry.name, version.number):
        card = read_file(registry, version, CARD)
        if card and not event.is_in(card):
            add_event(registry, version, event)


def _write(registry: Registry, version: Version, card: ModelCard) -> None:
    describe_model(registry, model_text(card))
    write_card(
        registry,
        version,
        card=card_text(card),
        description=description_text(card, DESCRIPTION_LIMIT),  # last: register gives a card where there is none
        numbers=card.model_dump_json(indent=1) + "\n",
    )


def _test_scores(project: Project, trained: Trained) -> tuple[list[FoldLine], StaysScores]:
    """Return the scores of every fold's test stays, and of all together with their subgroups."""
    cohort, lines = trained.data.cohort, []
    resamples, seed = project.params.evaluate.resamples, project.params.seed
    for fold in trained.folds:
        test = fold.predictions[fold.predictions["split"] == "test"]
        outcome_N, risk_N = cohort.outcome_of(test["stay_id"].to_numpy()), test["risk"].to_numpy()
        lines.append(fold_line(fold.fold, fold.scores, outcome_N, risk_N, resamples=resamples, seed=seed))
    together = each_tested_once(pd.concat([fold.predictions for fold in trained.folds]))
    row_N = np.searchsorted(cohort.stay_ids_N, together["stay_id"].to_numpy())
    scores = score_stays(
        cohort.outcome_N[row_N],
        together["risk"].to_numpy(np.float64),
        cohort.static.iloc[row_N],
        threshold=trained.about.threshold or 0.0,
        resamples=resamples,
        seed=seed,
    )
    return lines, scores


def _errors(trained: Trained, fold: TrainedFold) -> FoldLine:
    """Return an imputer's errors on a fold."""
    tested = next(each for each in trained.data.folds if each.number == fold.fold)
    return FoldLine(fold=fold.fold, stays=len(tested.test), scores=fold.scores)


def _kept_folds(version: Version, earlier: ModelCard | None) -> list[FoldLine]:
    """Return the fold scores that a recalibrated version keeps, with the intervals of its source's card."""
    known = {line.fold: line for line in earlier.folds} if earlier else {}
    lines = []
    for fold, scores in version.fold_scores.items():
        line = known.get(fold, FoldLine(fold=fold, stays=0, scores={}))
        intervals = {name: interval for name, interval in line.intervals.items() if name in scores}
        lines.append(line.model_copy(update={"scores": scores, "intervals": intervals}))
    return lines


def _facts(about: BundleAbout) -> tuple[CardFact, ...]:
    return tuple(
        CardFact(parameter=each.parameter, unit=each.unit, categories=each.categories) for each in about.static
    )


def _lineage(version: Version) -> dict[str, str]:
    known = {name: version.tag(name) for name in LINEAGE} | {"commit": version.tags.get(COMMIT_TAG, "")}
    if also := known[ALSO_TAG]:
        known[ALSO_TAG] = ", ".join(
            f"{each.name} ({each.stays:,} stays)" for each in FURTHER_COHORTS.validate_json(also)
        )
    return {name: text for name, text in known.items() if text}
