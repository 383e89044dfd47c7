"""The two scores of the PhysioNet/Computing in Cardiology Challenge 2012.

Source: Silva et al. 2012, Predicting in-hospital mortality of ICU patients, Computing in Cardiology 39:245-248, and the
challenge's own scoring code, lemeshow.m version 1.4.

Letters: N stays, G groups of stays.
"""

from collections.abc import Sequence

import numpy as np

from imputune.evaluation.metrics import ReliabilityPoint

ADDED_VARIANCE = 0.001  # so that a group of risks of 0 or 1 divides by no 0


def event_1(outcome_N: np.ndarray, risk_N: np.ndarray, threshold: float) -> float:
    """Return the score of event 1: the smaller of sensitivity and positive predictive value; 1 is best.

    Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,). A stay with at least the threshold as risk counts as
    predicted to die. The score is 0 if no such stay is an event, NaN without events.
    """
    high_N, event_N = risk_N >= threshold, outcome_N > 0
    if not event_N.any():
        return float("nan")
    found = int((high_N & event_N).sum())
    return found / max(int(event_N.sum()), int(high_N.sum()))


def event_2(points: Sequence[ReliabilityPoint]) -> float:
    """Return the score of event 2, H: Hosmer and Lemeshow's statistic over the range of risk; 0 is best.

    points: `metrics.reliability` of all stays, ten groups by risk. With E the sum of a group's risks, O its events, n
    its stays and p its mean risk, H is the sum of (O - E)^2 / (n p (1 - p) + 0.001), divided by the mean risk of the
    last group minus that of the first. H grows with the number of stays. NaN if all groups have the same mean risk.

    The challenge's groups all have N // 10 stays, so that up to nine stays of the highest risks do not count; here the
    first groups have one stay more instead. For the challenge's 4,000 stays both are the same.
    """
    risk_G, rate_G, stays_G = (
        np.array([getattr(each, name) for each in points]) for name in ReliabilityPoint.model_fields
    )
    spread = risk_G[-1] - risk_G[0]
    if not spread > 0:
        return float("nan")
    squared_G = (stays_G * (rate_G - risk_G)) ** 2
    return float((squared_G / (stays_G * risk_G * (1 - risk_G) + ADDED_VARIANCE)).sum() / spread)
