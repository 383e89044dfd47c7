"""Decision curves: the net benefit of treating the stays of high risk, by the threshold that counts as high.

Letters: N stays.
"""

from collections.abc import Sequence

import numpy as np

from imputune.evaluation.stored import Stored

THRESHOLDS = tuple(percent / 100 for percent in range(1, 61))


class DecisionPoint(Stored):
    """Net benefit at a threshold: of treating stays with at least this risk, and of treating all stays.

    Treating none has net benefit 0. A net benefit of 0.05 is worth as much as five true positives, and no false ones,
    among 100 stays.
    """

    threshold: float
    net_benefit: float
    treat_all: float


def decision_curve(
    outcome_N: np.ndarray, risk_N: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[DecisionPoint, ...]:
    """Return the decision curve of predicted risks.

    At threshold t, the net benefit is TP / N - FP / N * t / (1 - t): who treats from risk t on holds a missed event to
    be as bad as (1 - t) / t treated non-events. Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,). Thresholds are
    above 0 and below 1.

    Source: Vickers and Elkin 2006, Decision curve analysis, Medical Decision Making 26:565-574.
    """
    event_N = outcome_N > 0
    return tuple(
        DecisionPoint(
            threshold=threshold,
            net_benefit=_net_benefit(event_N, risk_N >= threshold, threshold),
            treat_all=_net_benefit(event_N, np.ones_like(event_N), threshold),
        )
        for threshold in thresholds
    )


def _net_benefit(event_N: np.ndarray, treated_N: np.ndarray, threshold: float) -> float:
    harm = threshold / (1 - threshold)
    return float(((treated_N & event_N).sum() - (treated_N & ~event_N).sum() * harm) / len(event_N))
