"""The paper's claims, each tested on our folds."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from imputune.evaluation.rows import VariantRow
from imputune.evaluation.significance import SIGNIFICANCE_LEVEL, corrected_t_test
from imputune.evaluation.stored import Stored

RECURRENT, MLPS = ("lstm", "gru"), ("mlp2", "mlp5")
Claim = Literal[
    "unfrozen beats frozen",
    "recurrent heads win frozen",
    "MLPs win unfrozen",
    "more parameters do not help (unfrozen)",
]
Conclusion = Literal["supported", "contradicted", "undecided", "not contradicted"]


class Verdict(Stored):
    """A claim of the paper and what our test folds say.

    variants: the number of variants on the better side of the claim; compared_variants: on the other side, None if the
    claim is about a trend over all variants. difference: in test AUC, mean over folds, positive if it favours the
    claim; for a trend, the AUC lost each time the head's parameters double. differences: by fold. verdict: `supported`
    or `contradicted` if p_value is below 0.05; otherwise `undecided`, or `not contradicted` if the claim says that
    there is no benefit.
    """

    claim: Claim
    variants: int
    compared_variants: int | None
    difference: float
    differences: tuple[float, ...]
    p_value: float
    verdict: Conclusion


@dataclass(frozen=True, kw_only=True)
class ClaimEvidence:
    """The variants that a claim compares, and the differences in test AUC by fold; see `Verdict`."""

    claim: Claim
    variants: int
    compared_variants: int | None
    differences: list[float]


def judge(rows: Sequence[VariantRow], test_to_train: float) -> tuple[Verdict, ...]:
    """Return a verdict on every claim of the paper for which there are variants to compare on at least two folds.

    test_to_train: test stays over training stays of a fold.
    """
    neural = [row for row in rows if row.num_parameters]
    frozen = [row for row in neural if row.mode == "frozen"]
    unfrozen = [row for row in neural if row.mode == "unfrozen"]
    evidence = (
        _difference("unfrozen beats frozen", unfrozen, frozen, lambda row: (row.head, row.input, row.schedule)),
        _difference("recurrent heads win frozen", _of(frozen, RECURRENT), _of(frozen, MLPS), lambda row: row.schedule),
        _difference("MLPs win unfrozen", _of(unfrozen, MLPS), _of(unfrozen, RECURRENT), lambda row: row.schedule),
        _trend("more parameters do not help (unfrozen)", unfrozen),
    )
    return tuple(_verdict(each, test_to_train) for each in evidence if each and len(each.differences) > 1)


def _of(rows: Iterable[VariantRow], heads: tuple[str, ...]) -> list[VariantRow]:
    return [row for row in rows if row.head in heads]


def _difference(
    claim: Claim, better: list[VariantRow], worse: list[VariantRow], key: Callable[[VariantRow], Hashable]
) -> ClaimEvidence | None:
    """Return the mean difference between two groups of variants, over the keys that both groups have."""
    better_by_key, worse_by_key = _by_key(better, key), _by_key(worse, key)
    keys = [each for each in better_by_key if each in worse_by_key]
    if not keys:
        return None
    folds = _folds([*better, *worse])
    return ClaimEvidence(
        claim=claim,
        variants=sum(len(better_by_key[each]) for each in keys),
        compared_variants=sum(len(worse_by_key[each]) for each in keys),
        differences=[
            fmean(_mean_auc(better_by_key[each], fold) for each in keys)
            - fmean(_mean_auc(worse_by_key[each], fold) for each in keys)
            for fold in folds
        ],
    )


def _by_key(rows: list[VariantRow], key: Callable[[VariantRow], Hashable]) -> dict[Hashable, list[VariantRow]]:
    grouped: dict[Hashable, list[VariantRow]] = {}
    for row in rows:
        grouped.setdefault(key(row), []).append(row)
    return grouped


def _folds(rows: list[VariantRow]) -> list[int]:
    return sorted({each.fold for row in rows for each in row.folds})


def _mean_auc(rows: list[VariantRow], fold: int) -> float:
    return fmean(row.by_fold("test_auc")[fold] for row in rows)


def _trend(claim: Claim, rows: list[VariantRow]) -> ClaimEvidence | None:
    """Return how much test AUC falls each time the head's parameters double, by least squares."""
    doublings = [math.log2(row.num_parameters or 1) for row in rows]
    if len(set(doublings)) < 2:
        return None
    slopes = [np.polyfit(doublings, [row.by_fold("test_auc")[fold] for row in rows], 1)[0] for fold in _folds(rows)]
    return ClaimEvidence(
        claim=claim,
        variants=len(rows),
        compared_variants=None,
        differences=[-float(slope) for slope in slopes],
    )


def _verdict(evidence: ClaimEvidence, test_to_train: float) -> Verdict:
    p_value = corrected_t_test(evidence.differences, test_to_train)
    mean = float(np.mean(evidence.differences))
    verdict: Conclusion
    if p_value < SIGNIFICANCE_LEVEL:
        verdict = "supported" if mean > 0 else "contradicted"
    else:
        # The claim about parameters says that there is no benefit, so finding none does not leave it undecided.
        verdict = "undecided" if evidence.compared_variants is not None else "not contradicted"
    return Verdict(
        claim=evidence.claim,
        variants=evidence.variants,
        compared_variants=evidence.compared_variants,
        difference=mean,
        differences=tuple(evidence.differences),
        p_value=p_value,
        verdict=verdict,
    )
