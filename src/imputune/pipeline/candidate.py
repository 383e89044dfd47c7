"""A candidate before the gates: compared with the champion on the same test stays, and the decision."""

from dataclasses import dataclass
from typing import Literal

from imputune.errors import UserError
from imputune.evaluation.gates import (
    Gate,
    PairedDifference,
    TestStays,
    mean_scores,
    paired_difference,
    reproduced_gate,
    score_gates,
)
from imputune.evaluation.stored import Stored
from imputune.pipeline.project import DividedCohort, Project
from imputune.registry.bundle import Bundle
from imputune.registry.version import Version
from imputune.registry.versions import Registry

NEEDED_SCORES = ("validation_auc", "test_auc", "test_calibration_error")


class Decision(Stored):
    """The outcome of a promotion, with the numbers behind it.

    outcome: promoted, refused, or unchanged (the best candidate is the champion); with dry_run, what it would be.
    validation_auc and test_auc: as recorded when the candidate was trained, mean over folds. champion: the one before,
    None where there was none. difference: None without a champion on the same data and folds. left_out: the number of
    versions that were not considered, by reason.
    """

    model: str
    outcome: Literal["promoted", "refused", "unchanged"]
    dry_run: bool
    candidate: int
    candidate_variant: str
    validation_auc: float
    test_auc: float
    champion: int | None
    gates: tuple[Gate, ...]
    difference: PairedDifference | None
    left_out: dict[str, int]

    @property
    def outcome_sentence(self) -> str:
        """The outcome, in words."""
        return {
            "promoted": f"version {self.candidate} is champion"
            + ("" if self.champion else "; there was no champion before to compare it with"),
            "refused": f"version {self.candidate} was refused; nothing changed",
            "unchanged": f"version {self.candidate} is the champion already",
        }[self.outcome]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a user asks for: a version by number or alias, "" for the best; whether it may be of other data."""

    version: str = ""
    other_data: bool = False
    dry_run: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class ChampionCheck:
    """A candidate, and the champion it is compared with."""

    project: Project
    data: DividedCohort
    registry: Registry
    candidate: Version
    champion: Version | None
    choice: Choice

    def decide(self, left_out: dict[str, int]) -> Decision:
        """Apply all gates to the candidate; none if it is the champion already."""
        gates: tuple[Gate, ...] = ()
        difference = None
        outcome: Literal["promoted", "refused", "unchanged"] = "unchanged"
        if self.champion is None or self.candidate.number != self.champion.number:
            gates, difference = self._apply_gates()
            outcome = "promoted" if all(gate.passed for gate in gates) else "refused"
        return Decision(
            model=self.registry.name,
            outcome=outcome,
            dry_run=self.choice.dry_run,
            candidate=self.candidate.number,
            candidate_variant=self.candidate.variant,
            validation_auc=self.candidate.mean("validation_auc"),
            test_auc=self.candidate.mean("test_auc"),
            champion=self.champion.number if self.champion else None,
            gates=gates,
            difference=difference,
            left_out=left_out,
        )

    def _apply_gates(self) -> tuple[tuple[Gate, ...], PairedDifference | None]:
        settings, seed = self.project.params.promote, self.project.params.seed
        bundle = self.registry.load(self.candidate)
        differing = []
        if bundle.about.variables != self.data.cohort.variables:
            differing.append("other variables than data/")
        if not was_trained_on(self.candidate, self.data):
            differing.append("other data or folds than data/")
        gates = [self._allowed("same variables and data", differing)]
        rival, obstacle = self._rival(bundle)
        if self.champion is not None:
            gates.append(self._allowed("comparable with the champion", [obstacle] if obstacle else []))
        if not was_trained_on(self.candidate, self.data):
            return (*gates, *score_gates(_recorded_scores(self.candidate), None, settings)), None
        folds = _test_folds(self.data, bundle, rival)
        recorded = [self.candidate.fold_scores[fold.number]["test_auc"] for fold in self.data.folds]
        champion = mean_scores(folds, "champion") if rival else None
        gates += [*score_gates(mean_scores(folds, "candidate"), champion, settings), reproduced_gate(folds, recorded)]
        if rival is None:
            return tuple(gates), None
        ratio = self.project.division.test_to_train
        return tuple(gates), paired_difference(folds, ratio, resamples=settings.resamples, seed=seed)

    def _rival(self, bundle: Bundle) -> tuple[Bundle | None, str]:
        """Return the champion's bundle, or why the candidate cannot be compared with it on the same test stays."""
        champion = self.champion
        if champion is None:
            return None, ""
        if not was_trained_on(champion, self.data):
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
        return Gate(name=name, wanted="yes, or --other-data", found=found, passed=not obstacles or allowed)


def _test_folds(data: DividedCohort, candidate: Bundle, champion: Bundle | None) -> list[TestStays]:
    """Ask each fold's model about the test stays of its fold, which it has never seen."""
    folds = []
    for fold in data.labelled_folds:
        values_NTD, static = data.cohort.values_NTD[fold.test], data.cohort.static.iloc[fold.test]
        folds.append(
            TestStays(
                outcome_N=data.cohort.outcome_N[fold.test],
                candidate_N=candidate.risk_of(fold.number, values_NTD, static),
                champion_N=champion.risk_of(fold.number, values_NTD, static) if champion else None,
            )
        )
    return folds


def was_trained_on(version: Version, data: DividedCohort) -> bool:
    """Say whether a version was trained on the present data and folds."""
    there = (version.tag("cohort_hash"), version.tag("folds_hash"), version.tag("outcome_hash"))
    return there == (data.origin.cohort_hash, data.origin.folds_hash, data.head_origin.outcome_hash)


def _recorded_scores(version: Version) -> dict[str, float]:
    return {name: version.mean(name) for name in NEEDED_SCORES}
