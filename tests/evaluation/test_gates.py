from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from imputune.evaluation.gates import (
    TestStays,
    mean_scores,
    paired_difference,
    reproduced_gate,
    score_gates,
)
from imputune.evaluation.metrics import risk_scores
from imputune.settings.schema import Promote

SETTINGS = Promote(minimum_auc=0.7, auc_margin=0.01, calibration_margin=0.02, resamples=200)
NEAR_AUC, NEAR_ERROR = "AUC near the champion's or above", "calibration error near the champion's"


def folds(better: float, seed: int = 0, count: int = 5, stays: int = 300) -> list[TestStays]:
    """Return folds in which the candidate separates the outcomes by `better` deviations more than the champion."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        outcome_N = (np.arange(stays) % 5 == 0).astype(np.int8)
        noise = generator.normal(size=(2, stays))
        candidate, champion = (
            1 / (1 + np.exp(-each - outcome_N * by)) for each, by in zip(noise, (1 + better, 1), strict=True)
        )
        made.append(
            TestStays(
                outcome_N=outcome_N, candidate_N=candidate.astype(np.float32), champion_N=champion.astype(np.float32)
            )
        )
    return made


def test_a_clear_difference_is_found() -> None:
    """Each fold's difference is that of the two AUCs; the interval holds the mean and leaves 0 out; p is small."""
    made = folds(1.0)
    found = paired_difference(made, 1 / 3, resamples=200, seed=0)
    for fold, difference in zip(made, found.by_fold, strict=True):
        aucs = [roc_auc_score(fold.outcome_N, risk) for risk in (fold.candidate_N, fold.champion_N)]
        assert difference == pytest.approx(aucs[0] - aucs[1], abs=1e-6)
    assert 0 < found.interval[0] < found.mean < found.interval[1]
    assert found.p_value < 0.05


def test_equal_models_do_not_differ() -> None:
    """The same risks give 0 and p = 1, because both models are scored on the same resamples."""
    same = [replace(fold, champion_N=fold.candidate_N) for fold in folds(0.0)]
    found = paired_difference(same, 1 / 3, resamples=50, seed=0)
    assert (found.mean, found.interval, found.p_value) == (0, (0, 0), 1)


def test_without_a_champion_there_is_no_difference() -> None:
    """A fold without the champion's risks cannot be compared."""
    alone = [replace(fold, champion_N=None) for fold in folds(0.0)]
    with pytest.raises(ValueError, match="needs the champion's risks"):
        paired_difference(alone, 1 / 3, resamples=10, seed=0)


@pytest.mark.parametrize(
    ("auc", "error", "failed"),
    [
        (0.80, 0.05, []),
        (0.79, 0.07, []),
        (0.7899, 0.05, [NEAR_AUC]),
        (0.80, 0.0701, [NEAR_ERROR]),
        (0.6, 0.2, ["minimum AUC", NEAR_AUC, NEAR_ERROR]),
    ],
)
def test_score_gates_by_hand(auc, error, failed) -> None:
    """Beside a champion of AUC 0.80 and calibration error 0.05, a candidate may lose 0.01 and 0.02, no more."""
    champion = {"test_auc": 0.80, "test_calibration_error": 0.05}
    gates = score_gates({"test_auc": auc, "test_calibration_error": error}, champion, SETTINGS)
    assert [gate.name for gate in gates if not gate.passed] == failed


def test_without_a_champion_only_the_minimum_counts() -> None:
    """The first champion needs the minimum AUC alone."""
    [gate] = score_gates({"test_auc": 0.7, "test_calibration_error": 0.9}, None, SETTINGS)
    assert (gate.name, gate.wanted, gate.found, gate.passed) == ("minimum AUC", "≥ 0.700", "0.7000", True)
    [gate] = score_gates({"test_auc": 0.6999, "test_calibration_error": 0.0}, None, SETTINGS)
    assert not gate.passed


def test_a_model_must_reproduce_its_scores() -> None:
    """A model whose AUC on one fold is not the recorded one, or is NaN, fails; the gate says by how much."""
    made = folds(0.5)
    recorded = [float(roc_auc_score(fold.outcome_N, fold.candidate_N)) for fold in made]
    assert reproduced_gate(made, recorded).passed
    other = reproduced_gate(made, [*recorded[:4], recorded[4] + 0.001])
    assert (other.passed, other.wanted, other.found) == (False, "within 0.0001", "off by 1.0e-03")
    assert not reproduced_gate(made, [recorded[0], np.nan, *recorded[2:]]).passed


def test_scores_of_test_folds_are_means_over_folds() -> None:
    """Each fold counts alike; the champion's are its own."""
    made = folds(0.5)
    for whose, name in (("candidate", "candidate_N"), ("champion", "champion_N")):
        scores = [risk_scores(fold.outcome_N, getattr(fold, name)) for fold in made]
        found = mean_scores(made, whose)
        assert found["test_auc"] == pytest.approx(np.mean([each["auc"] for each in scores]))
        assert found["test_calibration_error"] == pytest.approx(np.mean([each["calibration_error"] for each in scores]))


def test_one_split_has_an_interval_without_a_p_value() -> None:
    """The bootstrap of the test stays needs no second split, the t-test does."""
    found = paired_difference(folds(1.0, count=1), 1 / 3, resamples=50, seed=0)
    assert found.p_value is None
    assert found.interval[0] < found.mean < found.interval[1]


def test_the_ratio_of_test_to_training_stays_decides_the_p_value() -> None:
    """More test stays for each training stay, more doubt."""
    made = folds(0.05)
    few, many = (paired_difference(made, ratio, resamples=10, seed=0).p_value for ratio in (0.1 / 0.8, 1.0))
    assert few is not None
    assert many is not None
    assert few < many
