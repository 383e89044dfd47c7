"""Training of a blend: its members' saved risks of a fold, combined."""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.cohort import Cohort
from imputune.errors import UserError
from imputune.evaluation.metrics import risk_scores
from imputune.models.blend_fitting import BlendFit
from imputune.runtime.recorder import Recorder
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.schema import Params


@dataclass(frozen=True, eq=False, kw_only=True)
class BlendJob:
    """One fold of a blend; predictions: the members' predictions of this fold by label, in the blend's order."""

    cohort: Cohort
    fold: int
    params: Params
    predictions: dict[str, pd.DataFrame]


def blend_fold(job: BlendJob, recorder: Recorder) -> TrainedFold:
    """Fit a blend to a fold's validation stays, and score it once on the test stays; nothing is reported.

    The validation risks, by which variants are compared, are cross-fitted: each stay's comes from a blend that was not
    fitted to this stay. The test risks, and the arrays, are those of the blend that was fitted to all validation stays.

    Raises UserError if two members' predictions have different stays.
    """
    started = time.perf_counter()
    settings = job.params.blend
    seed = generator_for(job.params.seed, job.fold, Purpose.BLEND_GROUPS).initial_seed()
    fitting = BlendFit(settings.scale, settings.weights, seed)
    validation_ids, validation_MN = _risks(job, "validation")
    test_ids, test_MN = _risks(job, "test")
    outcome_N = job.cohort.outcome_of(validation_ids)
    blend = fitting.fit(validation_MN, outcome_N)
    risks = {
        "validation": (validation_ids, fitting.cross_fitted_risk(validation_MN, outcome_N)),
        "test": (test_ids, blend.risk(test_MN)),
    }
    scores: dict[str, float] = {}
    tables = []
    for split, (stay_ids, risk_N) in risks.items():
        table = pd.DataFrame({"stay_id": stay_ids, "split": split, "risk": risk_N.astype(np.float32)})
        found = risk_scores(job.cohort.outcome_of(stay_ids).astype(int), table["risk"].to_numpy())
        scores |= {f"{split}_{metric}": value for metric, value in found.items()}
        tables.append(table)
    return TrainedFold(
        fold=job.fold,
        weights=blend.arrays(),
        scores=scores,
        best_epoch=0,
        seconds=time.perf_counter() - started,
        history=[],
        predictions=pd.concat(tables),
    )


def _risks(job: BlendJob, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of a split's stays, int64 (N,), and the members' risks of them, float64 (M, N)."""
    tables = {
        label: table[table["split"] == split].set_index("stay_id")["risk"] for label, table in job.predictions.items()
    }
    (first, known), *others = tables.items()
    for label, table in others:
        if not table.index.sort_values().equals(known.index.sort_values()):
            raise UserError(
                f"{label} and {first} have predictions of different {split} stays of fold {job.fold}: fine-tune both "
                "again"
            )
    risk_MN = np.stack([table.loc[known.index].to_numpy(dtype=np.float64) for table in tables.values()])
    return known.index.to_numpy(), risk_MN
