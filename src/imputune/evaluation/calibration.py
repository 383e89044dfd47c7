"""The calibration line of predicted risks: how the outcome goes with logit(risk), and risks that are corrected by it.

Letters: N stays, P parameters.
"""

import numpy as np

from imputune.evaluation.stored import Stored

SMALLEST_RISK = 1e-6  # fits clip risks to this and to 1 minus this, because logit(0) is infinite
MOST_STEPS = 100
CLOSE_ENOUGH = 1e-10  # gradient of the log-likelihood per stay


class CalibrationLine(Stored):
    """logit(outcome rate) = intercept + slope * logit(risk).

    Intercept 0 and slope 1: risks are right on average, and neither too extreme (slope below 1) nor too moderate.
    """

    intercept: float
    slope: float

    def apply(self, risk_N: np.ndarray) -> np.ndarray:
        """Return the corrected risks, float64, of any shape; risks of exactly 0 and 1 stay as they are.

        With a positive slope the order of the stays does not change.
        """
        risk_N = np.asarray(risk_N, dtype=np.float64)
        with np.errstate(divide="ignore", over="ignore"):
            logit_N = np.log(risk_N) - np.log1p(-risk_N)
            return np.asarray(1 / (1 + np.exp(-(self.intercept + self.slope * logit_N))))

    def after(self, earlier: "CalibrationLine") -> "CalibrationLine":
        """Return the line that corrects by an earlier line first, and by this one then."""
        return CalibrationLine(
            intercept=self.intercept + self.slope * earlier.intercept, slope=self.slope * earlier.slope
        )


def fit_line(outcome_N: np.ndarray, risk_N: np.ndarray) -> CalibrationLine:
    """Return intercept and slope of the logistic regression of the outcome on logit(risk).

    Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,). Both numbers are NaN where no line fits best: without events
    or non-events, with equal risks, or if one risk separates all events from all non-events.

    Source: Cox 1958, Two further applications of a model for binary regression, Biometrika 45.
    """
    logit_N, event_N = logits(risk_N), outcome_N > 0
    with_it, without_it = logit_N[event_N], logit_N[~event_N]
    if not (len(with_it) and len(without_it) and with_it.min() < without_it.max() and without_it.min() < with_it.max()):
        return CalibrationLine(intercept=np.nan, slope=np.nan)
    design_NP = np.column_stack([np.ones_like(logit_N), logit_N])
    intercept, slope = _fit(event_N, design_NP, np.zeros_like(logit_N), np.array([0.0, 1.0]))
    return CalibrationLine(intercept=float(intercept), slope=float(slope))


def intercept_at_slope_1(outcome_N: np.ndarray, risk_N: np.ndarray) -> float:
    """Return the calibration intercept: what to add to every logit(risk) so that the mean risk is the outcome rate.

    Below 0 risks are too high on average, above 0 too low. The slope is fixed at 1, because at another slope the
    intercept says only how the line lies at a risk of 0.5. Shapes: as `fit_line`. NaN without events or non-events.

    Source: Van Calster et al. 2016, A calibration hierarchy for risk models was defined, J Clin Epidemiol 74.
    """
    event_N, logit_N = outcome_N > 0, logits(risk_N)
    if not 0 < event_N.sum() < len(event_N):
        return float("nan")
    [intercept] = _fit(event_N, np.ones((len(logit_N), 1)), logit_N, np.zeros(1))
    return float(intercept)


def logits(risk_N: np.ndarray) -> np.ndarray:
    """Return logit(risk), float64, of the shape of the risks, which are clipped as `SMALLEST_RISK` says."""
    clipped_N = np.asarray(risk_N, dtype=np.float64).clip(SMALLEST_RISK, 1 - SMALLEST_RISK)
    return np.asarray(np.log(clipped_N) - np.log1p(-clipped_N))


def _fit(event_N: np.ndarray, design_NP: np.ndarray, offset_N: np.ndarray, start_P: np.ndarray) -> np.ndarray:
    """Return the maximum of the likelihood, which must exist, by Newton's steps, halved where one goes too far."""

    def log_likelihood(parameter_P: np.ndarray) -> float:
        logit_N = offset_N + design_NP @ parameter_P
        return float(logit_N[event_N].sum() - np.logaddexp(0, logit_N).sum())

    parameter_P, reached = start_P, log_likelihood(start_P)
    for _ in range(MOST_STEPS):
        logit_N = offset_N + design_NP @ parameter_P
        risk_N = np.exp(-np.logaddexp(0, -logit_N))
        gradient_P = design_NP.T @ (event_N - risk_N)
        if np.abs(gradient_P).max() < CLOSE_ENOUGH * len(event_N):
            break
        step_P = np.linalg.solve((design_NP.T * (risk_N * (1 - risk_N))) @ design_NP, gradient_P)
        while (found := log_likelihood(parameter_P + step_P)) < reached and np.abs(step_P).max() > CLOSE_ENOUGH:
            step_P = step_P / 2
        parameter_P, reached = parameter_P + step_P, found
    return parameter_P
