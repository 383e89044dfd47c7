"""Whether a candidate may become champion: its scores on the test folds, and the gates it must pass.

Letters: N test stays of a fold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from imputune.evaluation.intervals import Resample, bootstrap_intervals
from imputune.evaluation.metrics import curve_scores, risk_scores
from imputune.evaluation.significance import corrected_t_test
from imputune.evaluation.stored import Stored
from imputune.settings.schema import Promote

REPRODUCED_TO = 1e-4  # AUC


@dataclass(frozen=True, eq=False, kw_only=True)
class TestStays:
    """A fold's test stays: outcome, and risk by the candidate and, if there is one, by the champion, all (N,)."""

    __test__ = False  # pytest must not collect it

    outcome_N: np.ndarray
    candidate_N: np.ndarray
    champion_N: np.ndarray | None


class PairedDifference(Stored):
    """The candidate's test AUC minus the champion's: by fold, the mean with its 95 % interval, and a p-value.

    p_value: None if there is one fold.
    """

    by_fold: tuple[float, ...]
    mean: float
    interval: tuple[float, float]
    p_value: float | None


class Gate(Stored):
    """A condition of promotion: what is wanted, what was found, and whether that is enough."""

    name: str
    wanted: str
    found: str
    passed: bool


def mean_scores(folds: Sequence[TestStays], whose: Literal["candidate", "champion"]) -> dict[str, float]:
    """Return a model's test_auc and test_calibration_error, means over test folds, as `score_gates` takes them.

    Raises ValueError if the champion's are asked for and a fold has none.
    """
    scores = [
        risk_scores(fold.outcome_N, fold.candidate_N if whose == "candidate" else _champion(fold)) for fold in folds
    ]
    return {f"test_{name}": fmean(score[name] for score in scores) for name in ("auc", "calibration_error")}


def paired_difference(
    folds: Sequence[TestStays], test_to_train: float, *, resamples: int, seed: int
) -> PairedDifference:
    """Compare candidate and champion on the same test folds.

    The interval comes from a bootstrap of each fold's test stays, with the same resamples for both models. The p-value
    comes from the corrected resampled t-test over folds, to which test_to_train belongs. Raises ValueError for a fold
    without the champion's risks.
    """

    def differences(resample: Resample) -> list[float]:
        pairs = zip(folds, resample, strict=True)
        return [_auc(fold, fold.candidate_N, stays) - _auc(fold, _champion(fold), stays) for fold, stays in pairs]

    by_fold = differences([_all_stays(fold) for fold in folds])
    sizes = [len(fold.outcome_N) for fold in folds]
    [interval] = bootstrap_intervals(lambda resample: [fmean(differences(resample))], sizes, resamples, seed)
    return PairedDifference(
        by_fold=tuple(by_fold),
        mean=fmean(by_fold),
        interval=interval,
        p_value=corrected_t_test(by_fold, test_to_train) if len(folds) > 1 else None,
    )


def score_gates(
    candidate: Mapping[str, float], champion: Mapping[str, float] | None, settings: Promote
) -> tuple[Gate, ...]:
    """Return the gates on scores: mean test AUC and calibration error over folds, alone and beside the champion's.

    Both mappings hold test_auc and test_calibration_error. Without a champion only the minimum AUC counts.
    """
    auc, error = candidate["test_auc"], candidate["test_calibration_error"]
    minimum = Gate(
        name="minimum AUC",
        wanted=f"≥ {settings.minimum_auc:.3f}",
        found=f"{auc:.4f}",
        passed=auc >= settings.minimum_auc,
    )
    if champion is None:
        return (minimum,)
    lowest_auc = champion["test_auc"] - settings.auc_margin
    highest_error = champion["test_calibration_error"] + settings.calibration_margin
    near_auc = Gate(
        name="AUC near the champion's or above",
        wanted=f"≥ {lowest_auc:.4f}",
        found=f"{auc:.4f}",
        passed=auc >= lowest_auc,
    )
    near_error = Gate(
        name="calibration error near the champion's",
        wanted=f"≤ {highest_error:.4f}",
        found=f"{error:.4f}",
        passed=error <= highest_error,
    )
    return minimum, near_auc, near_error


def reproduced_gate(folds: Sequence[TestStays], recorded: Sequence[float]) -> Gate:
    """Return the gate that the registered model has the recorded AUC on every test fold."""
    aucs = [_auc(fold, fold.candidate_N, _all_stays(fold)) for fold in folds]
    furthest = float(np.max(np.abs(np.subtract(aucs, recorded))))  # NaN if one is NaN, which fails
    return Gate(
        name="reproduces its test AUC",
        wanted=f"within {REPRODUCED_TO:g}",
        found=f"off by {furthest:.1e}",
        passed=furthest <= REPRODUCED_TO,
    )


def _all_stays(fold: TestStays) -> np.ndarray:
    return np.arange(len(fold.outcome_N))


def _auc(fold: TestStays, risk_N: np.ndarray, stays: np.ndarray) -> float:
    return curve_scores(fold.outcome_N[stays], risk_N[stays])["auc"]


def _champion(fold: TestStays) -> np.ndarray:
    if fold.champion_N is None:
        raise ValueError("a comparison needs the champion's risks")
    return fold.champion_N
