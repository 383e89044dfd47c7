import numpy as np
import pandas as pd
import pytest
import torch

from imputune.artifacts.stage_output import MadeFrom, Origin, TrainedFold
from imputune.protocol.variants import make_variant
from imputune.runtime.recorder import SilentRecorder
from imputune.training.finetune import FinetuneJob
from imputune.training.pretrain import PretrainJob, pretrain_fold


@pytest.fixture
def origin() -> Origin:
    """The data of an output."""
    return Origin(
        dataset="synthetic",
        cohort_hash="data1",
        folds_hash="folds1",
        variables=("HR", "Temp", "pH"),
        stays=90,
        events=30,
        seed=7,
    )


@pytest.fixture
def made_from(origin) -> MadeFrom:
    """The description of an imputer's output."""
    return MadeFrom.at(origin, stage="pretrain", imputer="csai", settings={"csai": {"hidden_size": 8}, "seed": 7})


@pytest.fixture
def variant_made_from(origin) -> MadeFrom:
    """The description of a variant's output."""
    return MadeFrom.at(
        origin,
        stage="finetune",
        imputer="csai",
        imputer_run_id="run1",
        variant=make_variant("mlp2"),
        settings={"finetune": {"dropout": 0.3, "patience": 25}},
    )


@pytest.fixture
def make_fold():
    """Make a fold as training returns it, without curves, with a weight of its own."""

    def make(number=4, **others) -> TrainedFold:
        fold = {
            "fold": number,
            "weights": {"imputer.bias": np.full(2, number, np.float32)},
            "scores": {"test_auc": 0.75},
            "best_epoch": 7,
            "seconds": 1.5,
            "history": [],
        }
        return TrainedFold(**(fold | others))

    return make


@pytest.fixture
def make_finetune_job(cohort, folds, make_params):
    """Make the job of training a variant on fold 1, its imputer pretrained for it."""

    def make(variant) -> FinetuneJob:
        params = make_params()
        pretrained = pretrain_fold(PretrainJob(cohort=cohort, fold=folds[1], params=params), SilentRecorder())
        return FinetuneJob(
            cohort=cohort,
            fold=folds[1],
            params=params,
            variant=variant,
            pretrained={name: torch.from_numpy(array) for name, array in pretrained.weights.items()},
        )

    return make


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Risks of two validation and two test stays."""
    return pd.DataFrame(
        {"stay_id": [3, 5, 7, 9], "split": ["validation"] * 2 + ["test"] * 2, "risk": [0.1, 0.2, 0.3, 0.4]}
    )
