"""The command promote: the version with the best validation AUC becomes champion if it passes the gates."""

import json
from contextlib import nullcontext

from pydantic import ValidationError

from imputune import signals
from imputune.errors import UserError
from imputune.pipeline.candidate import NEEDED_SCORES, ChampionCheck, Choice, Decision, was_trained_on
from imputune.pipeline.model_cards import add_event, add_missing_event, now
from imputune.pipeline.project import DividedCohort, Project, exclusive, read_divided_cohort
from imputune.pipeline.run_subject import RunSubject, divided_input, for_outcome
from imputune.pipeline.tracked import track
from imputune.registry.names import classifier_name
from imputune.registry.version import UNCHANGED_SCORES, Version
from imputune.registry.versions import Registry
from imputune.reporting import card_events
from imputune.reporting.run_notes import gates_result, run_name
from imputune.runtime.experiments import other_experiment
from imputune.tracking.provenance import DVC_EXPERIMENT

CHAMPION, PREVIOUS = "champion", "previous"
LOCK = ".promote.lock"


def run_promote(project: Project, choice: Choice) -> Decision:
    """Choose a candidate, put it to the gates, and move the aliases if it passes; write the decision on its version.

    The cards of the candidate and of a champion that it replaces get a line each.

    The candidate is chosen by validation AUC alone, among the versions of the present data and folds that were not
    recalibrated for another site and that no experiment of DVC made outside the project; its test folds only confirm
    or refuse it. With `dry_run` nothing is written, and no permission to write is needed. Raises UserError when there
    is no candidate, another promotion is running, or the champion changed meanwhile.
    """
    data = read_divided_cohort(project).for_outcome(project.outcome)
    registry = Registry(project.root, classifier_name(project.dataset, project.outcome))
    lock = project.artifacts_folder / LOCK
    with nullcontext() if choice.dry_run else exclusive(lock, f"promoting a model of {project.dataset}"):
        versions, aliases = registry.versions(), registry.aliases()
        candidate, left_out = _candidate(project, registry, versions, data, choice)
        champion = next((each for each in versions if each.number == aliases.get(CHAMPION)), None)
        check = ChampionCheck(
            project=project, data=data, registry=registry, candidate=candidate, champion=champion, choice=choice
        )
        decision = check.decide(left_out)
        if choice.dry_run:
            return decision
        tags = {"model": registry.name, "candidate": str(candidate.number)}
        settings = {"promote": project.params.promote.model_dump()}
        doing = f"Tests version {candidate.number} ({candidate.variant}) of **{registry.name}** for promotion."
        subject = RunSubject(
            command="promote",
            name=run_name("promote", f"version {candidate.number}"),
            doing=doing,
            cohorts=[divided_input(data, "evaluation")],
            options={"version": str(candidate.number)},
        )
        subject = for_outcome(project, subject)
        with track(project, subject, settings=settings, tags=tags) as run:
            before = champion.number if champion else None
            with signals.held():
                if decision.outcome == "promoted":
                    _check_champion(registry, before)
                # The decision is written first: if the command is killed then, the next one decides the same and moves.
                if decision.outcome != "unchanged":
                    content = json.dumps(decision.model_dump(mode="json"))
                    registry.set_tags(candidate, {"decision": content, "decision_run": run.run_id})
                if decision.outcome == "promoted":
                    _move(registry, candidate.number, before)
                # Cards come last: what they say has happened, and a store that fails then leaves a line out.
                _tell(registry, candidate, champion, decision)
            run.log_metrics({"validation_auc": decision.validation_auc, "test_auc": decision.test_auc})
            if difference := decision.difference:
                run.log_metrics({"test_auc_difference": difference.mean})
                if difference.p_value is not None:
                    run.log_metrics({"p_value": difference.p_value})
            run.log_dict(decision.model_dump(mode="json"), "decision.json")
            run.describe(gates_result(decision.outcome_sentence, decision.gates))
    return decision


def run_rollback(project: Project) -> tuple[int, int]:
    """Make the previous champion champion again; return its number and the number of the one it replaces.

    The replaced version's tag `imputune.rolled_back_to` keeps it, and the cards of both get a line. Raises UserError
    when there is no previous champion, it cannot be loaded, or a promotion is running.
    """
    registry = Registry(project.root, classifier_name(project.dataset, project.outcome))
    with exclusive(project.artifacts_folder / LOCK, f"promoting a model of {project.dataset}"):
        aliases = registry.aliases()
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous is None or champion == previous:
            raise UserError(f"{registry.name} has no previous champion: nothing to roll back to")
        restored, replaced = registry.find(str(previous)), registry.find(str(champion))
        registry.load(restored)
        with signals.held():
            _check_champion(registry, champion)
            registry.set_tags(replaced, {"rolled_back_to": str(previous)})
            # The champion moves first: if the command is killed then, no alias is lost, and a version has two of them.
            registry.set_alias(CHAMPION, previous)
            registry.set_alias(PREVIOUS, champion)
            add_event(registry, replaced, card_events.rolled_back(now(), previous))
            add_event(registry, restored, card_events.restored(now(), champion))
    return previous, champion


def _candidate(
    project: Project, registry: Registry, versions: list[Version], data: DividedCohort, choice: Choice
) -> tuple[Version, dict[str, int]]:
    """Return the version wanted, or of those with scores, and of this data, the best by validation AUC."""
    if choice.version:
        wanted = registry.find(choice.version)
        if wanted.is_recalibrated and not was_trained_on(wanted, data):
            raise UserError(
                f"version {wanted.number} was recalibrated, and its calibration on the data it was trained on is not "
                f"recorded: it can only be judged where data/ has that data and its folds"
            )
        if not _has_scores(wanted):
            raise UserError(f"version {wanted.number} was registered without fold scores: fine-tune its variant again")
        return wanted, {}
    original = [version for version in versions if not version.is_recalibrated]
    scored = [version for version in original if _has_scores(version)]
    trained_here = [version for version in scored if was_trained_on(version, data)]
    ours = [version for version in trained_here if not other_experiment(project.root, version.tag(DVC_EXPERIMENT))]
    left_out = {
        "registered without fold scores": len(original) - len(scored),
        "of other data or folds": len(scored) - len(trained_here),
        "of DVC experiments": len(trained_here) - len(ours),
        "recalibrated for another site": len(versions) - len(original),
    }
    left_out = {reason: count for reason, count in left_out.items() if count}
    if not ours:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(
            f"{registry.name} has no candidate of the present data and folds ({why}): fine-tune one first, or name a "
            "version with --version, and allow one of other data with --other-data"
        )
    return max(ours, key=lambda version: (version.mean("validation_auc"), version.number)), left_out


def _tell(registry: Registry, candidate: Version, champion: Version | None, decision: Decision) -> None:
    """Add a decision to the card of the candidate, and of the champion that it replaces.

    Of a version that is champion already, the lines of its promotion are added if they are missing: the command that
    promoted it was killed, or the store failed.
    """
    when, add = now(), add_event
    if decision.outcome == "refused":
        add_event(registry, candidate, card_events.refused(when, decision.champion, decision.gates))
        return
    if decision.outcome == "unchanged":
        earlier = _promotion_of(candidate)
        if earlier is None:
            return
        decision, when, add = earlier, f"noted {when}", add_missing_event
        champion = next((each for each in registry.versions() if each.number == earlier.champion), None)
    event = card_events.promoted(when, decision.champion, decision.gates, decision.difference)
    add(registry, candidate, event)
    if champion is not None:
        add(registry, champion, card_events.replaced(when, candidate.number))


def _promotion_of(version: Version) -> Decision | None:
    """Return the decision that promoted a version, None if it is not recorded."""
    try:
        decision = Decision.model_validate_json(version.tag("decision"))
    except ValidationError:
        return None
    return decision if decision.outcome == "promoted" else None


def _check_champion(registry: Registry, number: int | None) -> None:
    """Raise UserError if the champion is another by now."""
    if registry.aliases().get(CHAMPION) != number:
        raise UserError(f"the champion of {registry.name} changed meanwhile: run the command again")


def _move(registry: Registry, number: int, champion: int | None) -> None:
    """Make a version champion, the one before it previous; UserError if another promotion came between."""
    if champion is not None:
        registry.set_alias(PREVIOUS, champion)  # first: if the command is killed after it, the next one moves again
    registry.set_alias(CHAMPION, number)
    _check_champion(registry, number)  # on a server, another machine's promotion can come between


def _has_scores(version: Version) -> bool:
    scores, needed = version.fold_scores.values(), UNCHANGED_SCORES if version.is_recalibrated else NEEDED_SCORES
    return bool(scores) and all(name in fold for fold in scores for name in needed)
