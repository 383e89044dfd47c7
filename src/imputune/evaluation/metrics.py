"""Scores of imputations and of predicted risks."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score, roc_curve


def imputation_scores(
    estimate_NTD: np.ndarray, truth_NTD: np.ndarray, held_out_NTD: np.ndarray, variables: Sequence[str]
) -> list[dict[str, str | int | float]]:
    """Score estimates on held-out cells: one row over all variables, then one per variable with such cells.

    Shapes: estimate and truth standardised (N, T, D), held_out 0/1 or boolean. A row has variable ("all" first),
    cells, mae and rmse (in training standard deviations) and mre (sum of errors over sum of magnitudes).
    """
    by_variable = []
    for number, name in enumerate(variables):
        held_NT = held_out_NTD[..., number].astype(bool)
        truth_M, estimate_M = truth_NTD[..., number][held_NT], estimate_NTD[..., number][held_NT]
        error, size = (np.abs(each_M).sum(dtype=np.float64) for each_M in (estimate_M - truth_M, truth_M))
        square = np.square(estimate_M - truth_M).sum(dtype=np.float64)
        by_variable.append((name, error, square, size, len(truth_M)))
    totals = (sum(column) for column in list(zip(*by_variable, strict=True))[1:])
    groups = [("all", *totals), *(row for row in by_variable if row[4])]
    return [
        {
            "variable": name,
            "cells": int(cells),
            "mae": float(error / max(cells, 1)),
            "rmse": float(np.sqrt(square / max(cells, 1))),
            "mre": float(error / max(size, 1e-12)),
        }
        for name, error, square, size, cells in groups
    ]


def risk_scores(died_N: np.ndarray, risk_N: np.ndarray) -> dict[str, float]:
    """Score predicted risks of death: auc, auprc, brier, log_loss, calibration_error.

    The calibration error is the mean distance between the risk and the share of deaths over ten groups of stays of
    equal size, ordered by risk (expected calibration error). Shapes: died_N 0/1 and risk_N in [0, 1], both (N,). Needs
    at least one death and one survivor.
    """
    return {
        "auc": float(roc_auc_score(died_N, risk_N)),
        "auprc": float(average_precision_score(died_N, risk_N)),
        "brier": float(brier_score_loss(died_N, risk_N)),
        "log_loss": float(log_loss(died_N, risk_N, labels=[0, 1])),
        "calibration_error": sum(
            abs(group["risk"] - group["died"]) * group["stays"] for group in reliability(died_N, risk_N)
        )
        / len(died_N),
    }


def reliability(died_N: np.ndarray, risk_N: np.ndarray, groups: int = 10) -> list[dict[str, float]]:
    """Return the points of a calibration curve: stays ordered by risk, in groups of equal size (to one stay).

    Shapes: died_N 0/1 and risk_N in [0, 1], both (N,). A group has its mean risk, the share that died, and its number
    of stays; there are fewer groups where there are fewer stays.
    """
    order_N = np.argsort(risk_N, kind="stable")
    return [
        {"risk": float(risk_N[each].mean()), "died": float(died_N[each].mean()), "stays": len(each)}
        for each in np.array_split(order_N, min(groups, len(order_N)))
    ]


def youden_threshold(died_N: np.ndarray, risk_N: np.ndarray) -> float:
    """Return the risk from which on sensitivity + specificity - 1 is highest (Youden 1950).

    Shapes: died_N 0/1 and risk_N in [0, 1], both (N,). Needs at least one death and one survivor.
    """
    false_positive_M, true_positive_M, threshold_M = roc_curve(died_N, risk_N)
    return float(min(threshold_M[np.argmax(true_positive_M - false_positive_M)], 1.0))


def curve_scores(died_N: np.ndarray, risk_N: np.ndarray) -> dict[str, float]:
    """Return auc and log_loss as `risk_scores` does (to 1e-6), in a tenth of its time: a head's epochs are short.

    Shapes: died_N 0/1 and risk_N in [0, 1], float32, both (N,). Without a death or without a survivor auc is NaN.
    """
    died = died_N > 0
    _, place_N, count_R = np.unique(risk_N, return_inverse=True, return_counts=True)
    rank_R = np.cumsum(count_R) - (count_R - 1) / 2  # of each risk, from 1, the middle one where several are equal
    deaths, survivors = died.sum(), (~died).sum()
    ordered = rank_R[place_N[died]].sum() - deaths * (deaths + 1) / 2  # pairs where the one who died has more risk
    auc = ordered / (deaths * survivors) if deaths and survivors else np.nan
    smallest = np.finfo(np.float32).eps
    given_N = np.where(died, risk_N, 1 - risk_N).clip(smallest, 1 - smallest)
    return {"auc": float(auc), "log_loss": float(-np.log(given_N).mean(dtype=np.float64))}
