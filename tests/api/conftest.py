from typing import Any

import numpy as np
import pytest

from imputune import CSAIImputer


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Parameters with which an imputer trains in a second."""
    return {"hidden_size": 8, "channels": 8, "attention_heads": 2, "feedforward": 8, "epochs": 3, "batch_size": 16}


@pytest.fixture(scope="session")
def values() -> np.ndarray:
    """60 stays of 6 hours and 4 variables, float64, each at a level of its own; two in five cells are missing."""
    random = np.random.default_rng(1)
    values_NTD = random.normal(50, 10, (60, 1, 4)) + random.normal(0, 1, (60, 6, 4))
    values_NTD[random.random(values_NTD.shape) < 0.4] = np.nan
    values_NTD.flags.writeable = False
    return values_NTD


@pytest.fixture(scope="session")
def fitted(values: np.ndarray, tiny: dict[str, Any]) -> CSAIImputer:
    """An imputer fitted on these values; to be read only."""
    return CSAIImputer(**tiny).fit(values)
