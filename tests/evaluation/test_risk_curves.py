import numpy as np
import pytest

from imputune.evaluation.metrics import reliability
from imputune.evaluation.risk_curves import POINTS, risk_curves


def test_curves_by_hand() -> None:
    """Deaths at 0.35 and 0.8, survivors at 0.1 and 0.4: three of four pairs are in order."""
    outcome_N, risk_N = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    found = risk_curves(outcome_N, risk_N)
    assert (found.auc, found.outcome_rate) == (0.75, 0.5)
    assert found.sensitivity_P[[25, 75]] == pytest.approx([0.5, 1.0])
    assert np.interp([0.25, 0.75, 1.0], POINTS[1:], found.precision_P) == pytest.approx([1.0, (0.5 + 2 / 3) / 2, 0.5])
    assert found.calibration == reliability(outcome_N, risk_N)
    assert (len(found.sensitivity_P), len(found.precision_P)) == (101, 100)
