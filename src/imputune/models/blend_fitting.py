"""Fitting a blend to validation stays.

Letters: M members, N stays.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from imputune.models.blending import SMALLEST, Blend, Ranks, Scale, Sigmoid, logit, sigmoid
from imputune.settings.names import BlendScale, BlendWeights

GROUPS = 5
"""What is fitted to four fifths of the validation stays is applied to the other fifth."""
LOWEST_SLOPE = 0.01
"""A calibration never turns the order of risks round, also where a member's risks say nothing of the outcome."""


class BlendFit:
    """How a blend is fitted: on which scale, with which weights; the groups of stays are drawn from a seed."""

    def __init__(self, scale: BlendScale, weights: BlendWeights, seed: int) -> None:
        self.scale, self.weights, self.seed = scale, weights, seed

    def fit(self, risk_MN: np.ndarray, outcome_N: np.ndarray) -> Blend:
        """Fit a blend to stays.

        Weights are equal, or `cross_fitted`: those with the lowest log loss on members' scores that were cross-fitted.
        Shapes: risk_MN in [0, 1], (M, N); outcome_N 0/1, (N,).
        """
        scales = self._scales(risk_MN, outcome_N)
        weight_M = np.full(len(risk_MN), 1 / len(risk_MN))
        if self.weights == "cross_fitted":
            weight_M = best_weights(self._cross_fitted_scores(risk_MN, outcome_N), outcome_N, self.scale)
        final = None
        if self.scale == "ranks":
            score_MN = np.stack([scale(risk_N) for scale, risk_N in zip(scales, risk_MN, strict=True)])
            final = fit_sigmoid(weight_M @ score_MN, outcome_N)
        return Blend(weight_M=weight_M, scales=scales, final=final)

    def cross_fitted_risk(self, risk_MN: np.ndarray, outcome_N: np.ndarray) -> np.ndarray:
        """Return each stay's risk, (N,), from a blend fitted to the stays of the four other groups; see `fit`."""

        def blended(chosen_N: np.ndarray, others_N: np.ndarray) -> np.ndarray:
            return self.fit(risk_MN[:, others_N], outcome_N[others_N]).risk(risk_MN[:, chosen_N])

        return self._by_group(outcome_N, blended)

    def _scales(self, risk_MN: np.ndarray, outcome_N: np.ndarray) -> tuple[Scale, ...]:
        if self.scale == "ranks":
            return tuple(map(Ranks.of, risk_MN))
        return tuple(fit_sigmoid(risk_N, outcome_N) for risk_N in risk_MN)

    def _cross_fitted_scores(self, risk_MN: np.ndarray, outcome_N: np.ndarray) -> np.ndarray:
        """Return the members' calibrated risks or ranks, (M, N), by scales fitted to the stays of the other groups."""

        def scored(chosen_N: np.ndarray, others_N: np.ndarray) -> np.ndarray:
            scales = self._scales(risk_MN[:, others_N], outcome_N[others_N])
            return np.stack([scale(risk_N[chosen_N]) for scale, risk_N in zip(scales, risk_MN, strict=True)])

        return self._by_group(outcome_N, scored)

    def _by_group(self, outcome_N: np.ndarray, result: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Return results whose last axis is the stays: of each group's stays, given theirs and all other stays."""
        group_N = groups_of(outcome_N, self.seed)
        stays_N = np.arange(len(outcome_N))
        numbers = np.unique(group_N)
        parts = [result(stays_N[group_N == number], stays_N[group_N != number]) for number in numbers]
        order_N = np.concatenate([stays_N[group_N == number] for number in numbers])
        return np.concatenate(parts, axis=-1)[..., np.argsort(order_N)]


def groups_of(outcome_N: np.ndarray, seed: int) -> np.ndarray:
    """Return each stay's group, from 0 to GROUPS - 1, (N,): equal sizes, and equal numbers of each outcome, to one."""
    random = np.random.default_rng(seed)
    by_outcome = [random.permutation(np.flatnonzero((outcome_N > 0) == outcome)) for outcome in (True, False)]
    group_N = np.empty(len(outcome_N), dtype=np.int64)
    group_N[np.concatenate(by_outcome)] = np.arange(len(outcome_N)) % GROUPS
    return group_N


def fit_sigmoid(score_N: np.ndarray, outcome_N: np.ndarray) -> Sigmoid:
    """Fit slope and intercept by maximum likelihood; the slope is at least LOWEST_SLOPE.

    Shapes: score_N in [0, 1] and outcome_N 0/1, both (N,). The outcomes are smoothed as Platt (1999) has it: 0 becomes
    1 / (number of 0 + 2), and 1 becomes 1 - 1 / (number of 1 + 2). So scores that separate the outcomes, and stays that
    all have the same outcome, give finite numbers too.
    """
    positives = float(outcome_N.sum())
    target_N = np.where(outcome_N > 0, 1 - 1 / (positives + 2), 1 / (len(outcome_N) - positives + 2))
    logit_N = logit(score_N)
    centre, spread = float(logit_N.mean()), float(logit_N.std())
    spread = spread if spread > SMALLEST else 1.0  # all scores are the same
    place_N = (logit_N - centre) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        linear_N = parameters[0] * place_N + parameters[1]
        error_N = sigmoid(linear_N) - target_N
        value_N = np.logaddexp(0, linear_N) - target_N * linear_N
        return float(value_N.mean()), np.array([(error_N * place_N).mean(), error_N.mean()])

    lowest = LOWEST_SLOPE * spread
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    start = [max(1.0, lowest), float(logit(target_N.mean()))]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(lowest, None), (None, None)], options=options)
    slope, intercept = found.x
    return Sigmoid(slope=float(slope / spread), intercept=float(intercept - slope * centre / spread))


def best_weights(score_MN: np.ndarray, outcome_N: np.ndarray, scale: BlendScale) -> np.ndarray:
    """Return the weights (M,), not negative, sum 1, whose weighted mean of scores has the lowest log loss.

    A mean of ranks goes through a sigmoid, which is fitted together with the weights. Where the search does not end,
    the weights are equal.
    """
    members, ranked = len(score_MN), scale == "ranks"
    equal_M = np.full(members, 1 / members)
    start = equal_M
    if ranked:
        first = fit_sigmoid(equal_M @ score_MN, outcome_N)
        start = np.array([*equal_M, first.slope, first.intercept])

    def loss(parameters: np.ndarray) -> float:
        mean_N = parameters[:members] @ score_MN
        risk_N = mean_N
        if ranked:
            risk_N = Sigmoid(slope=parameters[members], intercept=parameters[members + 1])(mean_N)
        kept_N = np.clip(risk_N, SMALLEST, 1 - SMALLEST)
        return float(-np.log(np.where(outcome_N > 0, kept_N, 1 - kept_N)).mean())

    bounds = [(0.0, 1.0)] * members + ([(LOWEST_SLOPE, None), (None, None)] if ranked else [])
    sum_is_one = {"type": "eq", "fun": lambda parameters: parameters[:members].sum() - 1}
    options = {"ftol": 1e-10, "maxiter": 500}
    found = minimize(loss, start, method="SLSQP", bounds=bounds, constraints=[sum_is_one], options=options)
    if not found.success or not np.isfinite(found.x).all() or found.fun > loss(start):
        return equal_M
    weight_M = np.clip(found.x[:members], 0, None)
    return weight_M / weight_M.sum()
