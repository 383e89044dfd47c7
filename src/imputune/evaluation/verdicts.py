"""The paper's claims, each held against our folds by a test that knows that folds share training stays."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from imputune.evaluation.rows import Row
from imputune.evaluation.significance import LEVEL, corrected_t_test

RECURRENT, MLPS = ("lstm", "gru"), ("mlp2", "mlp5")


@dataclass(frozen=True)
class Verdict:
    """A claim of the paper and what our test folds say of it.

    difference: what the claim says is above 0, in test AUC, mean over folds; differences: by fold. verdict: `supported`
    or `contradicted` where p_value is below 0.05; else `undecided`, or `not contradicted` where nothing is to help.
    """

    claim: str
    compared: str
    difference: float
    differences: tuple[float, ...]
    p_value: float
    verdict: str


def judge(rows: Sequence[Row], test_to_train: float) -> tuple[Verdict, ...]:
    """Return a verdict on every claim of the paper for which there are cells to compare."""
    frozen, unfrozen = ([row for row in rows if row.mode == mode and row.num_parameters] for mode in MODES)
    judged = (
        _beats("unfrozen beats frozen", unfrozen, frozen, lambda row: (row.head, row.input, row.schedule)),
        _beats("recurrent heads win frozen", _of(frozen, RECURRENT), _of(frozen, MLPS), lambda row: row.schedule),
        _beats("MLPs win unfrozen", _of(unfrozen, MLPS), _of(unfrozen, RECURRENT), lambda row: row.schedule),
        _slope("more parameters do not help (unfrozen)", unfrozen),
    )
    return tuple(_verdict(*found, test_to_train) for found in judged if found and len(found[2]) > 1)


MODES = ("frozen", "unfrozen")
Found = tuple[str, str, list[float]]


def _of(rows: Iterable[Row], heads: tuple[str, ...]) -> list[Row]:
    return [row for row in rows if row.head in heads]


def _beats(claim: str, better: list[Row], worse: list[Row], key: Callable[[Row], object]) -> Found | None:
    """Return by fold the mean difference between two groups, over the keys that both have."""
    groups = [_by_key(rows, key) for rows in (better, worse)]
    shared = [each for each in groups[0] if each in groups[1]]
    if not shared:
        return None
    folds = sorted({fold["fold"] for row in (*better, *worse) for fold in row.folds})

    def mean(group: dict[object, list[Row]], fold: int) -> float:
        return fmean(fmean(row.by_fold("test_auc")[fold] for row in group[each]) for each in shared)

    means = [[mean(group, fold) for fold in folds] for group in groups]
    counts = [sum(len(group[each]) for each in shared) for group in groups]
    differences = [first - second for first, second in zip(*means, strict=True)]
    return claim, f"{counts[0]} cell{'s' if counts[0] > 1 else ''} against {counts[1]}", differences


def _by_key(rows: list[Row], key: Callable[[Row], object]) -> dict[object, list[Row]]:
    grouped: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[key(row)].append(row)
    return grouped


def _slope(claim: str, rows: list[Row]) -> Found | None:
    """Return by fold how much test AUC falls with every doubling of the head's parameters, by least squares."""
    doublings = [math.log2(row.num_parameters or 1) for row in rows]
    if len(set(doublings)) < 2:
        return None
    folds = sorted({fold["fold"] for row in rows for fold in row.folds})
    slopes = [np.polyfit(doublings, [row.by_fold("test_auc")[fold] for row in rows], 1)[0] for fold in folds]
    return claim, f"{len(rows)} cells; AUC lost with every doubling", [-float(slope) for slope in slopes]


def _verdict(claim: str, compared: str, differences: list[float], test_to_train: float) -> Verdict:
    p_value, mean = corrected_t_test(differences, test_to_train), float(np.mean(differences))
    if p_value >= LEVEL:
        # That more parameters do not help is claimed of a difference which is not there.
        verdict = "not contradicted" if "do not help" in claim else "undecided"
    else:
        verdict = "supported" if mean > 0 else "contradicted"
    return Verdict(claim, compared, mean, tuple(differences), p_value, verdict)
