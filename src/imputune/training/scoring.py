"""Scores of a trained fold on its validation and test stays."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from imputune.data.splits import FoldData, Partition
from imputune.evaluation.metrics import risk_scores


def score(data: FoldData, risk: Callable[[Partition], np.ndarray]) -> tuple[dict[str, float], pd.DataFrame]:
    """Return a fold's scores (see `metrics.risk_scores`, prefixed validation_ and test_), and its predictions.

    `risk` gives each stay of a part its risk, (N,). The predictions have stay_id, partition and risk; who
    died stays in data/.
    """
    scores: dict[str, float] = {}
    predictions = []
    for name, part in (("validation", data.validation), ("test", data.test)):
        died_N, risk_N = part.died_N.numpy().astype(int), risk(part)
        scores |= {f"{name}_{metric}": value for metric, value in risk_scores(died_N, risk_N).items()}
        table = {"stay_id": part.stay_ids_N, "partition": name, "risk": risk_N}
        predictions.append(pd.DataFrame(table))
    return scores, pd.concat(predictions)
