"""Promotion: the candidate with the best validation AUC becomes champion if its test folds let it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from filelock import FileLock, Timeout

from imputune.errors import UserError
from imputune.evaluation.gates import Gate, PairedDifference, TestFold, paired_difference, reproduced_gate, score_gates
from imputune.project import Divided, Project, read_divided, track
from imputune.tracking.bundle import Bundle
from imputune.tracking.registry import classifier_name
from imputune.tracking.versions import Registry, Version

CHAMPION, PREVIOUS = "champion", "previous"
LOCK = ".promote.lock"
NEEDED = ("validation_auc", "test_auc", "test_calibration_error")


@dataclass(frozen=True)
class Decision:
    """What became of a candidate, with the numbers behind it.

    outcome: promoted, refused, or unchanged (the best candidate is the champion). champion: the one before, None where
    there was none. difference: None without a champion on the same data and folds. left_out: why other versions were
    not looked at, counted.
    """

    model: str
    outcome: str
    candidate: int
    candidate_cell: str
    validation_auc: float
    test_auc: float
    champion: int | None
    gates: tuple[Gate, ...]
    difference: PairedDifference | None
    left_out: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """What a user asks of a promotion: a version by number or alias, "" for the best; whether other data may do."""

    version: str = ""
    other_data: bool = False
    dry_run: bool = False


def run_promote(project: Project, choice: Choice) -> Decision:
    """Choose a candidate, put it to the gates, and move the aliases if it passes; write the decision on its version.

    The candidate is chosen by validation AUC alone; its test folds only confirm or refuse it. With `dry_run` nothing is
    written. Raises UserError when there is no candidate, another promotion is running, or the champion changed
    meanwhile.
    """
    data = read_divided(project)
    registry = Registry(project.root, classifier_name(project.dataset))
    with _alone(project):
        versions, aliases = registry.versions(), registry.aliases()
        candidate, left_out = _candidate(registry, versions, data, choice)
        champion = next((each for each in versions if each.number == aliases.get(CHAMPION)), None)
        decision = _decide(project, data, registry, candidate, champion, choice, left_out)
        if choice.dry_run:
            return decision
        tags = {"model": registry.name, "candidate": str(candidate.number)}
        settings = {"promote": project.params.promote.model_dump()}
        with track(project, data.origin.cohort_hash, "promote", settings, tags, folds=()) as run:
            run.log_metrics({"validation_auc": decision.validation_auc, "test_auc": decision.test_auc})
            if decision.difference:
                found = decision.difference
                run.log_metrics({"test_auc_difference": found.mean, "p_value": found.p_value})
            run.log_dict(decision.as_json(), "decision.json")
            if decision.outcome != "unchanged":
                registry.set_tags(candidate, {"decision": json.dumps(decision.as_json()), "decision_run": run.run_id})
            if decision.outcome == "promoted":
                _move(registry, candidate.number, champion.number if champion else None)
    return decision


def run_rollback(project: Project) -> tuple[int, int]:
    """Make the previous champion champion again; return its number and the number of the one it replaces.

    Raises UserError when there is no previous champion, or a promotion is running.
    """
    registry = Registry(project.root, classifier_name(project.dataset))
    with _alone(project):
        aliases = registry.aliases()
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous is None or champion == previous:
            raise UserError(f"{registry.name} has no previous champion: nothing to roll back to")
        _move(registry, previous, champion)
    return previous, champion


def _candidate(
    registry: Registry, versions: list[Version], data: Divided, choice: Choice
) -> tuple[Version, dict[str, int]]:
    """Return the version wanted, or of those with scores, and of this data, the best by validation AUC."""
    if choice.version:
        wanted = registry.find(choice.version)
        if not _has_scores(wanted):
            raise UserError(f"version {wanted.number} was registered without fold scores: fine-tune its cell again")
        return wanted, {}
    scored = [version for version in versions if _has_scores(version)]
    ours = [version for version in scored if choice.other_data or _is_of(version, data)]
    left_out = {
        "registered without fold scores": len(versions) - len(scored),
        "of other data or folds": len(scored) - len(ours),
    }
    left_out = {reason: count for reason, count in left_out.items() if count}
    if not ours:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(
            f"{registry.name} has no candidate ({why}): fine-tune on the present data first, or allow other data with "
            "--other-data"
        )
    return max(ours, key=lambda version: (version.mean("validation_auc"), version.number)), left_out


def _decide(
    project: Project,
    data: Divided,
    registry: Registry,
    candidate: Version,
    champion: Version | None,
    choice: Choice,
    left_out: Mapping[str, int],
) -> Decision:
    gates: tuple[Gate, ...] = ()
    difference, outcome = None, "unchanged"
    if champion is None or candidate.number != champion.number:
        settings = project.params.promote
        bundle = registry.load(candidate)
        rival = registry.load(champion) if champion else None
        comparable = champion is not None and _has_scores(champion)
        gates = (
            _origin_gate(candidate, bundle, data, champion, rival, choice.other_data),
            *score_gates(_means(candidate), _means(champion) if champion and comparable else None, settings),
        )
        if _is_of(candidate, data):
            paired = champion is not None and rival is not None and _is_of(champion, data)
            folds = _test_folds(data, bundle, rival if paired else None)
            recorded = [candidate.fold_scores[fold.number]["test_auc"] for fold in data.folds]
            gates += (reproduced_gate(folds, recorded),)
            if paired:
                difference = paired_difference(folds, settings.resamples, project.params.seed)
        outcome = "promoted" if all(gate.passed for gate in gates) else "refused"
    return Decision(
        registry.name,
        outcome,
        candidate.number,
        candidate.cell,
        candidate.mean("validation_auc"),
        candidate.mean("test_auc"),
        champion.number if champion else None,
        gates,
        difference,
        left_out,
    )


def _origin_gate(
    candidate: Version,
    bundle: Bundle,
    data: Divided,
    champion: Version | None,
    rival: Bundle | None,
    other_data: bool,
) -> Gate:
    """Return the gate that what a candidate reads and was trained on is what data/ and the champion have."""
    differing = []
    if bundle.about.variables != data.cohort.variables:
        differing.append("other variables than data/")
    if rival is not None and rival.about.variables != bundle.about.variables:
        differing.append("other variables than the champion")
    if not _is_of(candidate, data):
        differing.append("other data or folds than data/")
    if champion is not None and champion.tag("cohort_hash") != candidate.tag("cohort_hash"):
        differing.append("other data than the champion")
    found = (", ".join(differing) or "same") + (" (allowed)" if differing and other_data else "")
    return Gate("same variables and data", "same, or --other-data", found, not differing or other_data)


def _test_folds(data: Divided, candidate: Bundle, champion: Bundle | None) -> list[TestFold]:
    """Ask each fold's model about the test stays of its fold, which it has never seen."""
    folds = []
    for fold in data.folds:
        values_NTD = data.cohort.values_NTD[fold.test]
        folds.append(
            TestFold(
                data.cohort.died_N[fold.test],
                candidate.risk_of(fold.number, values_NTD),
                champion.risk_of(fold.number, values_NTD) if champion else None,
            )
        )
    return folds


def _move(registry: Registry, number: int, champion: int | None) -> None:
    """Make a version champion and keep the one before it as previous; UserError if the champion is another by now."""
    if registry.aliases().get(CHAMPION) != champion:
        raise UserError(f"the champion of {registry.name} changed meanwhile: run the command again")
    if champion is not None:
        registry.set_alias(PREVIOUS, champion)
    registry.set_alias(CHAMPION, number)


def _has_scores(version: Version) -> bool:
    scores = version.fold_scores.values()
    return bool(scores) and all(name in fold for fold in scores for name in NEEDED)


def _is_of(version: Version, data: Divided) -> bool:
    """Say whether a version was trained on the present data and folds."""
    there = (version.tag("cohort_hash"), version.tag("folds_hash"))
    return there == (data.origin.cohort_hash, data.origin.folds_hash)


def _means(version: Version) -> dict[str, float]:
    return {name: version.mean(name) for name in NEEDED}


@contextmanager
def _alone(project: Project) -> Iterator[None]:
    path = project.folds_file.with_name(LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise UserError(f"another command is promoting a model of {project.dataset}: wait for its end") from None
