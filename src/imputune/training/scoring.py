"""Scores of a trained fold on its validation and test stays."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from imputune.data.splits import FoldData, Split
from imputune.evaluation.metrics import risk_scores


def score_fold(data: FoldData, risk: Callable[[Split], np.ndarray]) -> tuple[dict[str, float], pd.DataFrame]:
    """Return a fold's scores (`metrics.risk_scores` with the prefixes validation_ and test_) and its predictions.

    `risk` gives the risk of each stay of a split, (N,). The predictions have the columns stay_id, split and risk; the
    outcomes stay in data/.
    """
    scores: dict[str, float] = {}
    predictions = []
    for name, split in (("validation", data.validation), ("test", data.test)):
        outcome_N, risk_N = split.outcome_N.numpy().astype(int), risk(split)
        scores |= {f"{name}_{metric}": value for metric, value in risk_scores(outcome_N, risk_N).items()}
        predictions.append(pd.DataFrame({"stay_id": split.stay_ids_N, "split": name, "risk": risk_N}))
    return scores, pd.concat(predictions)
