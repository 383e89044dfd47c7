from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from imputune.data.cohort import Cohort, Variable


@pytest.fixture
def make_cohort() -> Callable[..., Cohort]:
    """Make a cohort of random values, 4 hours and 3 variables; its first stays died, and its ids increase by three."""

    def make(stays: int, deaths: int, seed: int = 0) -> Cohort:
        random = np.random.default_rng(seed)
        values_NTD = random.normal(50.0, 10.0, (stays, 4, 3)).astype(np.float32)
        values_NTD[random.random(values_NTD.shape) > np.array([0.9, 0.6, 0.3])] = np.nan
        outcome_N = np.zeros(stays, dtype=np.int8)
        outcome_N[:deaths] = 1
        return Cohort(
            dataset="synthetic",
            stay_ids_N=100 + 3 * np.arange(stays),
            outcome_N=outcome_N,
            values_NTD=values_NTD,
            variables=(Variable("HR", "beats/min"), Variable("Temp", "°C"), Variable("pH", "1")),
            static=pd.DataFrame(index=range(stays)),
            source={"exclusions": {}},
        )

    return make
