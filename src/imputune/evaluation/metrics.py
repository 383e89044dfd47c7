"""Scores of imputations and of predicted risks."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score


def imputation_scores(
    estimate_NTD: np.ndarray, truth_NTD: np.ndarray, held_out_NTD: np.ndarray, variables: Sequence[str]
) -> list[dict[str, str | int | float]]:
    """Score estimates on held-out cells: one row over all variables, then one per variable with such cells.

    Shapes: estimate and truth standardised (N, T, D), held_out 0/1 or boolean. A row has variable ("all" first),
    cells, mae (in training standard deviations) and mre (sum of errors over sum of magnitudes).
    """
    held_NTD = held_out_NTD.astype(bool)
    error_D = np.abs(estimate_NTD - truth_NTD, where=held_NTD, out=np.zeros(truth_NTD.shape)).sum(axis=(0, 1))
    size_D = np.abs(truth_NTD, where=held_NTD, out=np.zeros(truth_NTD.shape)).sum(axis=(0, 1))
    cells_D = held_NTD.sum(axis=(0, 1))
    groups = [("all", error_D.sum(), size_D.sum(), cells_D.sum())]
    groups += [row for row in zip(variables, error_D, size_D, cells_D, strict=True) if row[3]]
    return [
        {
            "variable": name,
            "cells": int(cells),
            "mae": float(error / max(cells, 1)),
            "mre": float(error / max(size, 1e-12)),
        }
        for name, error, size, cells in groups
    ]


def risk_scores(died_N: np.ndarray, risk_N: np.ndarray) -> dict[str, float]:
    """Score predicted risks of death: auc, auprc, brier, log_loss.

    Shapes: died_N 0/1 and risk_N in [0, 1], both (N,). Needs at least one death and one survivor.
    """
    return {
        "auc": float(roc_auc_score(died_N, risk_N)),
        "auprc": float(average_precision_score(died_N, risk_N)),
        "brier": float(brier_score_loss(died_N, risk_N)),
        "log_loss": float(log_loss(died_N, risk_N, labels=[0, 1])),
    }
