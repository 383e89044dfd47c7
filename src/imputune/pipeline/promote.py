"""Promotion: the candidate with the best validation AUC becomes champion if its test folds let it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from filelock import FileLock, Timeout

from imputune.errors import UserError
from imputune.evaluation.gates import (
    Gate,
    PairedDifference,
    TestFold,
    mean_scores,
    paired_difference,
    reproduced_gate,
    score_gates,
)
from imputune.pipeline.project import (
    Divided,
    Project,
    read_divided,
    track,
)
from imputune.registry.bundle import Bundle
from imputune.registry.register import classifier_name
from imputune.registry.versions import Registry, Version

CHAMPION, PREVIOUS = "champion", "previous"
LOCK = ".promote.lock"
NEEDED = ("validation_auc", "test_auc", "test_calibration_error")


@dataclass(frozen=True)
class Decision:
    """What became of a candidate, with the numbers behind it.

    outcome: promoted, refused, or unchanged (the best candidate is the champion); with dry_run, what it would be.
    validation_auc and test_auc: as recorded when it was trained, mean over folds. champion: the one before, None where
    there was none. difference: None without a champion on the same data and folds. left_out: why other versions were
    not looked at, counted.
    """

    model: str
    outcome: str
    dry_run: bool
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

    The candidate is chosen by validation AUC alone, among the versions of the present data and folds; its test folds
    only confirm or refuse it. With `dry_run` nothing is written to the store. Raises UserError when there is no
    candidate, another promotion is running, or the champion changed meanwhile.
    """
    data = read_divided(project)
    registry = Registry(project.root, classifier_name(project.dataset))
    with _alone(project):
        versions, aliases = registry.versions(), registry.aliases()
        candidate, left_out = _candidate(registry, versions, data, choice)
        champion = next((each for each in versions if each.number == aliases.get(CHAMPION)), None)
        decision = _Trial(project, data, registry, candidate, champion, choice).decide(left_out)
        if choice.dry_run:
            return decision
        tags = {"model": registry.name, "candidate": str(candidate.number)}
        settings = {"promote": project.params.promote.model_dump()}
        with track(project, data.origin.cohort_hash, "promote", settings, tags, folds=()) as run:
            if decision.outcome == "promoted":
                _move(registry, candidate.number, champion.number if champion else None)
            if decision.outcome != "unchanged":
                registry.set_tags(candidate, {"decision": json.dumps(decision.as_json()), "decision_run": run.run_id})
            run.log_metrics({"validation_auc": decision.validation_auc, "test_auc": decision.test_auc})
            if found := decision.difference:
                run.log_metrics({"test_auc_difference": found.mean, "p_value": found.p_value})
            run.log_dict(decision.as_json(), "decision.json")
    return decision


def run_rollback(project: Project) -> tuple[int, int]:
    """Make the previous champion champion again; return its number and the number of the one it replaces.

    The replaced version's tag `imputune.rolled_back_to` keeps it. Raises UserError when there is no previous champion,
    it cannot be loaded, or a promotion is running.
    """
    registry = Registry(project.root, classifier_name(project.dataset))
    with _alone(project):
        aliases = registry.aliases()
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous is None or champion == previous:
            raise UserError(f"{registry.name} has no previous champion: nothing to roll back to")
        registry.load(registry.find(str(previous)))
        _move(registry, previous, champion)
        registry.set_tags(registry.find(str(champion)), {"rolled_back_to": str(previous)})
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
    ours = [version for version in scored if _is_of(version, data)]
    left_out = {
        "registered without fold scores": len(versions) - len(scored),
        "of other data or folds": len(scored) - len(ours),
    }
    left_out = {reason: count for reason, count in left_out.items() if count}
    if not ours:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(
            f"{registry.name} has no candidate of the present data and folds ({why}): fine-tune one first, or name a "
            "version with --version and allow it with --other-data"
        )
    return max(ours, key=lambda version: (version.mean("validation_auc"), version.number)), left_out


@dataclass(frozen=True, eq=False)
class _Trial:
    """A candidate before the gates, beside the champion."""

    project: Project
    data: Divided
    registry: Registry
    candidate: Version
    champion: Version | None
    choice: Choice

    def decide(self, left_out: Mapping[str, int]) -> Decision:
        """Put the candidate to all gates; it needs none where it is the champion."""
        gates: tuple[Gate, ...] = ()
        difference, outcome = None, "unchanged"
        if self.champion is None or self.candidate.number != self.champion.number:
            gates, difference = self._judged()
            outcome = "promoted" if all(gate.passed for gate in gates) else "refused"
        return Decision(
            self.registry.name,
            outcome,
            self.choice.dry_run,
            self.candidate.number,
            self.candidate.cell,
            self.candidate.mean("validation_auc"),
            self.candidate.mean("test_auc"),
            self.champion.number if self.champion else None,
            gates,
            difference,
            left_out,
        )

    def _judged(self) -> tuple[tuple[Gate, ...], PairedDifference | None]:
        settings, seed = self.project.params.promote, self.project.params.seed
        bundle = self.registry.load(self.candidate)
        differing = []
        if bundle.about.variables != self.data.cohort.variables:
            differing.append("other variables than data/")
        if not _is_of(self.candidate, self.data):
            differing.append("other data or folds than data/")
        gates = [self._allowed("same variables and data", differing)]
        rival, obstacle = self._rival(bundle)
        if self.champion is not None:
            gates.append(self._allowed("comparable with the champion", [obstacle] if obstacle else []))
        if not _is_of(self.candidate, self.data):
            return (*gates, *score_gates(_recorded(self.candidate), None, settings)), None
        folds = _test_folds(self.data, bundle, rival)
        recorded = [self.candidate.fold_scores[fold.number]["test_auc"] for fold in self.data.folds]
        champion = mean_scores(folds, "champion") if rival else None
        gates += [*score_gates(mean_scores(folds, "candidate"), champion, settings), reproduced_gate(folds, recorded)]
        return tuple(gates), paired_difference(folds, settings.resamples, seed) if rival else None

    def _rival(self, bundle: Bundle) -> tuple[Bundle | None, str]:
        """Return the champion's bundle, or why the candidate cannot be compared with it on the same test stays."""
        champion = self.champion
        if champion is None:
            return None, ""
        if not _is_of(champion, self.data):
            return None, "the champion is of other data or folds than data/"
        try:
            rival = self.registry.load(champion)
        except UserError as error:
            return None, f"the champion cannot be loaded: {error}"
        if rival.about.variables != bundle.about.variables:
            return None, "the champion has other variables"
        return rival, ""

    def _allowed(self, name: str, obstacles: list[str]) -> Gate:
        """Return a gate that obstacles close, unless they are allowed."""
        allowed = self.choice.other_data
        found = ("; ".join(obstacles) or "yes") + (" (allowed)" if obstacles and allowed else "")
        return Gate(name, "yes, or --other-data", found, not obstacles or allowed)


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
    changed = f"the champion of {registry.name} changed meanwhile: run the command again"
    if registry.aliases().get(CHAMPION) != champion:
        raise UserError(changed)
    registry.set_alias(CHAMPION, number)
    if registry.aliases().get(CHAMPION) != number:  # on a server, another machine's promotion can come between
        raise UserError(changed)
    if champion is not None:
        registry.set_alias(PREVIOUS, champion)


def _has_scores(version: Version) -> bool:
    scores = version.fold_scores.values()
    return bool(scores) and all(name in fold for fold in scores for name in NEEDED)


def _is_of(version: Version, data: Divided) -> bool:
    """Say whether a version was trained on the present data and folds."""
    there = (version.tag("cohort_hash"), version.tag("folds_hash"))
    return there == (data.origin.cohort_hash, data.origin.folds_hash)


def _recorded(version: Version) -> dict[str, float]:
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
