"""Tasks that do nothing but report and return what a fold of a frozen mlp2 does; see `benchmarks.many_tasks`."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from imputune.artifacts.stage_output import MadeFrom, TrainedFold
from imputune.protocol.variants import make_variant
from imputune.runtime.recorder import Recorder

EPOCHS = 20
CURVES = ("train_loss", "train_total_loss", "train_auc", "validation_loss", "validation_auc")
SCORES = 16  # of validation and test stays together
IMPUTER, HEAD = 211_468, 14_081  # weights of CSAI with 35 variables and of mlp2
SCORED_STAYS = 1600  # two fifths of PhysioNet 2012's set-a


@dataclass(frozen=True)
class ShortJob:
    """The fold of a task."""

    fold: int


def short_task(job: ShortJob, recorder: Recorder) -> TrainedFold:
    """Report `EPOCHS` epochs at once and return a fold of the usual size."""
    random = np.random.default_rng(job.fold)
    history = [dict.fromkeys(CURVES, 0.5 + epoch / 100) for epoch in range(EPOCHS)]
    for epoch, metrics in enumerate(history):
        recorder.epoch(job.fold, epoch, metrics)
    weights = {"imputer.weights": IMPUTER, "head.weights": HEAD}
    return TrainedFold(
        fold=job.fold,
        weights={name: random.standard_normal(size, dtype=np.float32) for name, size in weights.items()},
        scores={f"test_score_{number}": float(random.random()) for number in range(SCORES)},
        best_epoch=EPOCHS - 1,
        seconds=0.0,
        history=history,
        predictions=pd.DataFrame(
            {
                "stay_id": np.arange(SCORED_STAYS),
                "split": ["validation"] * (SCORED_STAYS // 2) + ["test"] * (SCORED_STAYS // 2),
                "risk": random.random(SCORED_STAYS).astype(np.float32),
            }
        ),
    )


def made_from() -> MadeFrom:
    """Return a description for the checkpoints of these folds."""
    return MadeFrom.model_validate(
        {
            "dataset": "short-tasks",
            "cohort_hash": "0" * 64,
            "folds_hash": "0" * 64,
            "variables": ["v"],
            "stays": 4000,
            "deaths": 560,
            "seed": 0,
            "stage": "finetune",
            "imputer": "csai",
            "variant": make_variant("mlp2"),
            "settings": {},
        }
    )
