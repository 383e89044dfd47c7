import pytest
import torch

from imputune.runtime.recorder import SilentRecorder
from imputune.training.finetune import FinetuneJob
from imputune.training.pretrain import PretrainJob, pretrain_fold


@pytest.fixture
def pretrained(cohort, folds, make_params):
    """Weights of an imputer pretrained on fold 0."""
    job = PretrainJob(cohort=cohort, fold=folds[0], params=make_params())
    weights = pretrain_fold(job, SilentRecorder()).weights
    return {name: torch.from_numpy(array) for name, array in weights.items()}


@pytest.fixture
def make_finetune_job(cohort, folds, make_params, pretrained):
    """Make the job of training a variant on fold 0, with the project's parameters or others."""

    def make(variant, params=None, **others):
        return FinetuneJob(
            cohort=cohort,
            fold=folds[0],
            params=params or make_params(),
            variant=variant,
            pretrained=pretrained,
            **others,
        )

    return make
