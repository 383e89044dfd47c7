"""ROC, precision-recall and calibration curves of predicted risks.

Letters: N stays, P points.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from imputune.evaluation.metrics import ReliabilityPoint, reliability

POINTS = np.linspace(0, 1, 101)  # curves are given at these points, so that none shows a single stay


@dataclass(frozen=True, eq=False, kw_only=True)
class RiskCurves:
    """The curves of a model over some stays.

    sensitivity_P: by 1 - specificity, at POINTS. precision_P: by recall, at POINTS without the first. calibration: the
    points of `metrics.reliability`. outcome_rate: the fraction with the outcome.
    """

    auc: float
    sensitivity_P: np.ndarray
    precision_P: np.ndarray
    calibration: list[ReliabilityPoint]
    outcome_rate: float


def risk_curves(outcome_N: np.ndarray, risk_N: np.ndarray) -> RiskCurves:
    """Return the curves of predicted risks, interpolated between their thresholds.

    Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,). At least one stay must have the outcome and one must not.
    """
    false_positive, true_positive, _ = roc_curve(outcome_N, risk_N)
    precision, recall, _ = precision_recall_curve(outcome_N, risk_N)
    return RiskCurves(
        auc=float(roc_auc_score(outcome_N, risk_N)),
        sensitivity_P=np.interp(POINTS, false_positive, true_positive),
        precision_P=np.interp(POINTS[1:], recall[::-1], precision[::-1]),
        calibration=reliability(outcome_N, risk_N),
        outcome_rate=float(outcome_N.mean()),
    )
