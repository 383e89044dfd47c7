"""What promote and evaluate add to the history of a model card."""

from collections.abc import Mapping, Sequence

from imputune.evaluation.gates import Gate, PairedDifference
from imputune.evaluation.subgroups import GroupScores
from imputune.protocol.outcome_words import outcome_words
from imputune.reporting.card_history import CardEvent
from imputune.reporting.tables import difference_text, p_text

SCORES = {
    "auc": "AUC",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "calibration_error": "calibration error",
}
HASH_SHOWN = 8
PROMOTED, REFUSED, REPLACED = "Promoted to champion", "Refused as champion", "Replaced as champion by version"
ROLLED_BACK, RESTORED = "Rolled back to version", "Champion again in place of version"
CHAMPION = (PROMOTED, REFUSED, REPLACED, ROLLED_BACK, RESTORED)
"""How the lines begin that tell whether a version is champion: each stays, unless the next says the same."""


def promoted(when: str, champion: int | None, gates: Sequence[Gate], difference: PairedDifference | None) -> CardEvent:
    """Return that a version became champion, over the version `champion`, None if there was none."""
    over = f" over version {champion}" if champion is not None else ""
    parts = [f"{when}; gates passed: {_found(gates)}"]
    if difference is not None:
        low, high = (difference_text(bound, 4) for bound in difference.interval)
        p_value = "" if difference.p_value is None else f", p {_equals(p_text(difference.p_value))}"
        parts.append(
            f"Test AUC minus version {champion}'s on the same stays {difference_text(difference.mean, 4)} (95 % {low} "
            f"to {high}){p_value}"
        )
    return CardEvent(kind=CHAMPION, what=f"{PROMOTED}{over}:", text=f"{'. '.join(parts)}.")


def refused(when: str, champion: int | None, gates: Sequence[Gate]) -> CardEvent:
    """Return that a version was not promoted, with the gates that it failed."""
    beside = f" beside version {champion}" if champion is not None else ""
    failed = _found([gate for gate in gates if not gate.passed])
    return CardEvent(kind=CHAMPION, what=f"{REFUSED}{beside}:", text=f"{when}; gates failed: {failed}.")


def replaced(when: str, by: int) -> CardEvent:
    """Return that another version became champion in place of this one."""
    return CardEvent(kind=CHAMPION, what=f"{REPLACED} {by}:", text=f"{when}.")


def rolled_back(when: str, to: int) -> CardEvent:
    """Return that a rollback took the alias champion from a version."""
    return CardEvent(kind=CHAMPION, what=f"{ROLLED_BACK} {to}:", text=f"{when}; it is no longer champion.")


def restored(when: str, instead_of: int) -> CardEvent:
    """Return that a rollback made a version champion again."""
    return CardEvent(kind=CHAMPION, what=f"{RESTORED} {instead_of}:", text=f"{when}, by a rollback.")


def evaluated(
    when: str,
    cohort: str,
    digest: str,
    scores: GroupScores,
    *,
    pretrained_on: Mapping[str, int],
    unchecked: Sequence[str],
    outcome: str,
) -> CardEvent:
    """Return how a version did on another cohort.

    scores: of all its stays. pretrained_on: how many of them pretrained the model's imputer, by further cohort.
    unchecked: cohorts with which they could not be compared, and which may share stays.
    """
    words = outcome_words(outcome)
    numbers = [
        f"{title} {found.value:.3f} ({found.low:.3f} to {found.high:.3f})".replace("-", "−")
        for name, title in SCORES.items()
        if (found := scores.scores.get(name))
    ] or [f"too few {words.events} or {words.non_events} for scores"]
    shared = sum(pretrained_on.values())
    external = f"not external: {shared:,} of these stays pretrained the imputer" if shared else "external"
    open_question = f"; shared stays not checked: {', '.join(unchecked)}" if unchecked else ""
    rate = scores.events / scores.stays
    return CardEvent(
        what=f"Evaluated on {cohort} ({digest[:HASH_SHOWN]}):",
        text=f"{when}; {scores.stays:,} stays, {scores.events:,} {words.events} ({rate:.1%}); {'; '.join(numbers)}; "
        f"{external}{open_question}.",
    )


def _found(gates: Sequence[Gate]) -> str:
    return "; ".join(f"{gate.name}: {gate.found} (wanted: {gate.wanted})" for gate in gates)


def _equals(p_value: str) -> str:
    return p_value if p_value.startswith("<") else f"= {p_value}"
