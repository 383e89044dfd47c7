"""A model card in Markdown: what a registered version is, for whom, and how well it does. The numbers are handed in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from imputune.artifacts.model_card import ModelCard
from imputune.data.raw.synthetic import is_generated
from imputune.protocol.imputers import imputer_kind
from imputune.reporting.card_calibration import calibration_part
from imputune.reporting.card_calls import calls_part
from imputune.reporting.card_scores import (
    errors_part,
    folds_part,
    groups_part,
    mean_text,
    recalibration_part,
    threshold_part,
)
from imputune.reporting.card_texts import (
    cohort_label,
    cohort_lines,
    inputs_part,
    limits_part,
    lineage_part,
)
from imputune.settings.names import Mode

HISTORY_ROOM = 700
"""Characters of a description that are kept for what will happen to the version."""
FULL_CARD = "The whole card is model_card.md, among the artifacts of its run and model."
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

    groups: the table of subgroups. calls: a request by curl, and what the answer's columns mean. remarks: what each
    score means, and hashes. rules: by which the cohort was made. names: of all variables.
    lineage: where it comes from. folds: each fold's scores.
    """

    groups: bool = True
    calls: bool = True
    remarks: bool = True
    rules: bool = True
    names: bool = True
    lineage: bool = True
    folds: bool = True


LEFT_OUT = ("groups", "calls", "remarks", "rules", "names", "lineage", "folds")
"""What a card leaves out where it would be too long, the first first."""
LEVELS = tuple(Detail(**dict.fromkeys(LEFT_OUT[:count], False)) for count in range(len(LEFT_OUT) + 1))
"""From the whole card to the shortest."""


def card_text(card: ModelCard) -> str:
    """Return the whole card as Markdown."""
    return _joined(card, f"# {card.model}, version {card.version}", f"{title(card)}.", LEVELS[0])


def description_text(card: ModelCard, limit: int) -> str:
    """Return the card in at most `limit` characters, less the room for its history: as much detail as fits.

    Its first line is the title alone: MLflow shows it in the table of versions.
    """
    room = limit - HISTORY_ROOM
    texts = [_joined(card, title(card), FULL_CARD, detail) for detail in LEVELS]
    return next((text for text in texts if len(text) <= room), texts[-1][:room])


def title(card: ModelCard) -> str:
    """Return a version in one line: its head, what that reads, its cohort, and its mean test score over folds."""
    name, words, score = imputer_kind(card.imputer).label if card.imputer else "", "test AUC", "test_auc"
    if not card.head:
        what, words, score = name, "test MAE (uniform)", "test_mae_uniform"
    elif card.members:
        what = f"blend of {len(card.members)} variants"
    else:
        what = " · ".join((card.head, card.input, *([name] if name else []), *_further(card)))
    mean = mean_text(card.folds, score)
    corrected = f", recalibrated on {cohort_label(card.recalibration.cohort)}" if card.recalibration else ""
    return f"{what} on {card.dataset}{corrected}{f': {words} {mean}' if mean else ''}"


def model_text(card: ModelCard) -> str:
    """Return the description of the registered model that a version belongs to."""
    what = (
        f"Risk of {card.words.label} for stays of the cohort {card.dataset}, from the first {card.window.hours} "
        f"hours in intensive care{_in_bins(card)}."
        if card.head
        else f"Fills in missing {card.window.often} values of the first {card.window.hours} hours, for stays of the "
        f"cohort {card.dataset}, by "
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
            ("Cohort", lambda detail: cohort_lines(card.cohort, card.lineage, with_rules=detail.rules)),
            ("Inputs", lambda detail: inputs_part(card, names=detail.names, remarks=detail.remarks)),
            (
                "Imputation errors by fold",
                lambda detail: errors_part(card, each_fold=detail.folds, remarks=detail.remarks),
            ),
            (
                "Limits",
                lambda detail: limits_part(card, is_generated=is_generated(card.dataset), remarks=detail.remarks),
            ),
            ("Lineage", lambda detail: lineage_part(card, hashes=detail.remarks) if detail.lineage else ""),
            ("How to call it", lambda detail: calls_part(card, whole=detail.calls)),
        ]
    return [
        ("What it predicts, and for whom", lambda _: _purpose(card)),
        ("Cohort", lambda detail: cohort_lines(card.cohort, card.lineage, with_rules=detail.rules)),
        ("Recalibration", lambda detail: recalibration_part(card, with_rules=detail.rules)),
        ("Inputs", lambda detail: inputs_part(card, names=detail.names, remarks=detail.remarks)),
        (
            "Scores on test stays by fold",
            lambda detail: folds_part(card, each_fold=detail.folds, remarks=detail.remarks),
        ),
        ("Calibration", lambda detail: calibration_part(card, remarks=detail.remarks)),
        ("Subgroups", lambda detail: groups_part(card, table=detail.groups)),
        ("Threshold", lambda _: threshold_part(card)),
        ("Limits", lambda detail: limits_part(card, is_generated=is_generated(card.dataset), remarks=detail.remarks)),
        ("Lineage", lambda detail: lineage_part(card, hashes=detail.remarks) if detail.lineage else ""),
        ("How to call it", lambda detail: calls_part(card, whole=detail.calls)),
    ]


def _joined(card: ModelCard, first: str, second: str, detail: Detail) -> str:
    parts = [first, second]
    for heading, part in _sections(card):
        if text := part(detail):
            parts += [f"## {heading}", text]
    return "\n\n".join(parts) + "\n"


def _further(card: ModelCard) -> list[str]:
    """Return what the name of a variant has beside head and input: schedule, and mode where there is an imputer."""
    known = (card.head, card.input, "none", *(() if card.imputer else get_args(Mode)))
    return [word for word in card.variant.rpartition("/")[2].split("-") if word and word not in known]


def _purpose(card: ModelCard) -> str:
    models = f"{len(card.folds)} fold models" if card.folds else "fold models"
    if not card.head:
        kind = imputer_kind(card.imputer)
        return (
            f"It fills in the missing {card.window.often} values of a stay's first {card.window.hours} hours in "
            f"intensive care. Observed values stay as they are. It is {kind.label} ({kind.source}); the answer is the "
            f"mean of {models}. It is for research on stays of the cohort below. Its values are estimates. It is no "
            "medical device, and must not guide treatment."
        )
    return (
        f"It predicts the risk of {card.words.label}, a number from 0 to 1, from the first {card.window.hours} hours "
        f"of a stay in intensive care{_in_bins(card)}. It is {_made_of(card)}; the risk is the mean of {models}. It is "
        "for research on stays of the cohort below. It is no medical device, and must not guide treatment."
    )


def _made_of(card: ModelCard) -> str:
    if card.members:
        return f"a blend of {', '.join(card.members)} ({card.variant})"
    reads = " and ".join(INPUTS.get(part, part) for part in card.input.split("+"))
    on = f" on {imputer_kind(card.imputer).label}" if card.imputer else ""
    return f"{card.head}{on}, reading {reads} ({card.variant})"


def _in_bins(card: ModelCard) -> str:
    return "" if card.window.bin_hours == 1 else f", in {card.window.bin_words}"
