"""Whether a candidate may become champion: its test folds beside the champion's, and the gates it must pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from imputune.evaluation.intervals import bootstrap_intervals
from imputune.evaluation.metrics import curve_scores, risk_scores
from imputune.evaluation.significance import corrected_t_test
from imputune.settings.schema import Promote

REPRODUCED_TO = 1e-4  # AUC


@dataclass(frozen=True, eq=False)
class TestFold:
    """A fold's test stays: who died, and the risk that the candidate and, if there is one, the champion give them."""

    __test__ = False  # no test of pytest's

    died_N: np.ndarray
    candidate_N: np.ndarray
    champion_N: np.ndarray | None


@dataclass(frozen=True)
class PairedDifference:
    """The candidate's test AUC minus the champion's: by fold, the mean with its 95 % interval, and a p-value."""

    by_fold: tuple[float, ...]
    mean: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class Gate:
    """A condition of promotion: what was wanted, what was found, and whether that is enough."""

    name: str
    wanted: str
    found: str
    passed: bool


def mean_scores(folds: Sequence[TestFold], whose: Literal["candidate", "champion"]) -> dict[str, float]:
    """Return the mean over test folds of a model's AUC and calibration error, as `score_gates` takes them.

    Raises ValueError for a champion that a fold does not have.
    """
    scores = [
        risk_scores(fold.died_N, _present(fold.candidate_N if whose == "candidate" else fold.champion_N))
        for fold in folds
    ]
    return {f"test_{name}": fmean(score[name] for score in scores) for name in ("auc", "calibration_error")}


def paired_difference(folds: Sequence[TestFold], resamples: int, seed: int) -> PairedDifference:
    """Compare two models on the same test folds.

    The interval comes from a bootstrap of each fold's test stays, the same draws for both models; the p-value from the
    corrected resampled t-test over folds. Raises ValueError for a fold without the champion's risks.
    """

    def pairs(drawn: Sequence[np.ndarray]) -> Iterator[tuple[TestFold, np.ndarray]]:
        return zip(folds, drawn, strict=True)

    def differences(drawn: Sequence[np.ndarray]) -> list[float]:
        return [_auc(fold, fold.candidate_N, at) - _auc(fold, fold.champion_N, at) for fold, at in pairs(drawn)]

    by_fold = differences([np.arange(len(fold.died_N)) for fold in folds])
    sizes = [len(fold.died_N) for fold in folds]
    [interval] = bootstrap_intervals(lambda drawn: [fmean(differences(drawn))], sizes, resamples, seed)
    test_to_train = 1 / (len(folds) - 2)  # of the folds one tests and one validates
    return PairedDifference(tuple(by_fold), fmean(by_fold), interval, corrected_t_test(by_fold, test_to_train))


def score_gates(
    candidate: Mapping[str, float], champion: Mapping[str, float] | None, settings: Promote
) -> tuple[Gate, ...]:
    """Return the gates on scores: mean test AUC and calibration error over folds, alone and beside the champion's."""
    auc, error = candidate["test_auc"], candidate["test_calibration_error"]
    gates = [Gate("minimum AUC", f"≥ {settings.minimum_auc:.3f}", f"{auc:.4f}", auc >= settings.minimum_auc)]
    if champion is not None:
        lowest = champion["test_auc"] - settings.auc_margin
        highest = champion["test_calibration_error"] + settings.calibration_margin
        gates += [
            Gate("AUC near the champion's or above", f"≥ {lowest:.4f}", f"{auc:.4f}", auc >= lowest),
            Gate("calibration error near the champion's", f"≤ {highest:.4f}", f"{error:.4f}", error <= highest),
        ]
    return tuple(gates)


def reproduced_gate(folds: Sequence[TestFold], recorded: Sequence[float]) -> Gate:
    """Return the gate that the registered model scores on test folds what was recorded of it."""
    found = [_auc(fold, fold.candidate_N, np.arange(len(fold.died_N))) for fold in folds]
    furthest = float(np.max(np.abs(np.subtract(found, recorded))))  # NaN where one is, which fails
    return Gate(
        "reproduces its test AUC", f"within {REPRODUCED_TO:g}", f"off by {furthest:.1e}", furthest <= REPRODUCED_TO
    )


def _auc(fold: TestFold, risk_N: np.ndarray | None, at: np.ndarray) -> float:
    return curve_scores(fold.died_N[at], _present(risk_N)[at])["auc"]


def _present(risk_N: np.ndarray | None) -> np.ndarray:
    if risk_N is None:
        raise ValueError("a comparison needs the champion's risks")
    return risk_N
