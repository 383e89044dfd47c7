"""A model card in Markdown: what a registered version is, for whom, and how well it does. The numbers are handed in."""

from collections.abc import Callable
from dataclasses import dataclass

from imputune.artifacts.model_card import ModelCard
from imputune.data.raw.synthetic import GENERATED
from imputune.protocol.imputers import imputer_kind
from imputune.reporting.card_scores import (
    calibration_part,
    errors_part,
    folds_part,
    groups_part,
    recalibration_part,
    threshold_part,
)
from imputune.reporting.card_texts import (
    calls_part,
    cohort_lines,
    inputs_part,
    limits_part,
    lineage_part,
)

HISTORY_ROOM = 700
"""Characters of a description that are kept for what will happen to the version."""
FULL_CARD = "The whole card is model_card.md, in the artifacts of this version's run and of its model."
INPUTS = {
    "hidden": "the hidden state",
    "hidden_both": "both final hidden states",
    "hidden_pooled": "the hidden states of all hours",
    "imputed": "the imputed series",
    "raw": "the raw series",
    "summary": "statistics of the record",
    "static": "static facts",
}


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What a card shows.

    groups: the table of subgroups. remarks: what each score means, and hashes in full. names: of all variables. origin:
    lineage and rules. folds: each fold's scores.
    """

    groups: bool = True
    remarks: bool = True
    names: bool = True
    origin: bool = True
    folds: bool = True


LEVELS = (
    Detail(),
    Detail(groups=False),
    Detail(groups=False, remarks=False),
    Detail(groups=False, remarks=False, names=False),
    Detail(groups=False, remarks=False, names=False, origin=False),
    Detail(groups=False, remarks=False, names=False, origin=False, folds=False),
)
"""From the whole card to the shortest."""


def card_text(card: ModelCard, detail: Detail = LEVELS[0]) -> str:
    """Return a card as Markdown."""
    parts = [f"# {card.model}, version {card.version}"]
    if detail != LEVELS[0]:
        parts.append(FULL_CARD)
    for title, part in _sections(card):
        if text := part(detail):
            parts += [f"## {title}", text]
    return "\n\n".join(parts) + "\n"


def description_text(card: ModelCard, limit: int) -> str:
    """Return the card in at most `limit` characters, less the room for its history: as much detail as fits."""
    room = limit - HISTORY_ROOM
    texts = [card_text(card, detail) for detail in LEVELS]
    return next((text for text in texts if len(text) <= room), texts[-1][:room])


def model_text(card: ModelCard) -> str:
    """Return the description of the registered model that a version belongs to."""
    what = (
        f"Risk of in-hospital death of stays like those of {card.dataset}, from the first 48 hours in intensive care."
        if card.head
        else f"Fills in missing hourly values of the first 48 hours of stays like those of {card.dataset}, by "
        f"{imputer_kind(card.imputer).label}."
    )
    aliases = (
        "The alias `champion` is the version in use, `previous` the one before it; `imputune promote` moves them.\n\n"
        if card.head
        else ""
    )
    return (
        f"{what}\n\nEvery version is the fold models of one training, used together. Its description is its model "
        f"card. Its tags name the run, the hash of the data and each fold's scores.\n\n{aliases}For research. It is no "
        "medical device.\n"
    )


def _sections(card: ModelCard) -> list[tuple[str, Callable[[Detail], str]]]:
    """Return the titles of a card's sections, and what writes each."""
    if not card.head:
        return [
            ("What it does, and for whom", lambda _: _purpose(card)),
            ("Cohort", lambda detail: cohort_lines(card.cohort, card.lineage, with_rules=detail.origin)),
            ("Inputs", lambda detail: inputs_part(card, names=detail.names)),
            (
                "Imputation errors by fold",
                lambda detail: errors_part(card, each_fold=detail.folds, remarks=detail.remarks),
            ),
            ("Limits", lambda _: limits_part(card, is_generated=card.dataset == GENERATED)),
            ("Lineage", lambda detail: lineage_part(card, whole=detail.remarks) if detail.origin else ""),
            ("How to call it", lambda _: calls_part(card)),
        ]
    return [
        ("What it predicts, and for whom", lambda _: _purpose(card)),
        ("Cohort", lambda detail: cohort_lines(card.cohort, card.lineage, with_rules=detail.origin)),
        ("Recalibration", lambda detail: recalibration_part(card, with_rules=detail.origin)),
        ("Inputs", lambda detail: inputs_part(card, names=detail.names)),
        (
            "Scores on test stays by fold",
            lambda detail: folds_part(card, each_fold=detail.folds, remarks=detail.remarks),
        ),
        ("Calibration", lambda detail: calibration_part(card, remarks=detail.remarks)),
        ("Subgroups", lambda detail: groups_part(card, table=detail.groups)),
        ("Threshold", lambda _: threshold_part(card)),
        ("Limits", lambda _: limits_part(card, is_generated=card.dataset == GENERATED)),
        ("Lineage", lambda detail: lineage_part(card, whole=detail.remarks) if detail.origin else ""),
        ("How to call it", lambda _: calls_part(card)),
    ]


def _purpose(card: ModelCard) -> str:
    models = f"{len(card.folds)} fold models" if card.folds else "fold models"
    if not card.head:
        kind = imputer_kind(card.imputer)
        return (
            "It fills in the missing hourly values of a stay's first 48 hours in intensive care. Observed values stay "
            f"as they are. It is {kind.label} ({kind.source}); the answer is the mean of {models}. It is for research "
            "on stays like those of the cohort. Its values are estimates: nobody should treat a patient by them."
        )
    return (
        "It predicts the risk of in-hospital death, a number from 0 to 1, from the first 48 hours of a stay in "
        f"intensive care. It is {_made_of(card)}; the risk is the mean of {models}. It is for research on stays like "
        "those of the cohort. It is no medical device: nobody should treat a patient by it alone."
    )


def _made_of(card: ModelCard) -> str:
    if card.members:
        return f"a blend of {', '.join(card.members)} ({card.variant})"
    reads = " and ".join(INPUTS.get(part, part) for part in card.input.split("+"))
    on = f" on {imputer_kind(card.imputer).label}" if card.imputer else ""
    return f"{card.head}{on}, reading {reads} ({card.variant})"
