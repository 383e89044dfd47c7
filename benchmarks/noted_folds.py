"""Folds to train on the synthetic cohort, each of which notes in a file when it begins; nodes import this module."""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks.training import PARAMS
from imputune.artifacts.stage_output import TrainedFold
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold, draw_folds
from imputune.data.splits import fit_and_split
from imputune.imputers.build import new_csai
from imputune.models.weights import module_weights
from imputune.protocol.variants import make_variant
from imputune.runtime.recorder import Recorder
from imputune.settings.file import read_params
from imputune.training.finetune import FinetuneJob, finetune_fold
from imputune.training.non_neural import fit_non_neural_fold

HEADS = (("mlp2", "frozen", "hidden"), ("xgboost", "", "hidden"))


@dataclass(frozen=True, kw_only=True)
class NotedJob:
    """A fold's job, and the file that notes when its training begins."""

    job: FinetuneJob
    notes: Path


def train(noted: NotedJob, recorder: Recorder) -> TrainedFold:
    """Note the time, and fine-tune a fold."""
    with noted.notes.open("a") as notes:
        notes.write(f"{noted.job.variant.name}-{noted.job.fold.number} {time.time()}\n")
    work = finetune_fold if noted.job.variant.is_neural else fit_non_neural_fold
    return work(noted.job, recorder)


def jobs_of(cohort: Cohort, notes: Path) -> list[NotedJob]:
    """Return the folds of the synthetic cohort for each head, on a CSAI with initial weights."""
    params = read_params(PARAMS)
    folds = draw_folds(cohort, params.folds.count, params.seed)

    @cache
    def pretrained(number: int) -> dict[str, torch.Tensor]:
        data = fit_and_split(cohort, folds[number], params.scaling.clip_quantile)
        arrays = data.scaler.to_arrays() | module_weights("imputer", new_csai(data, params))
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def noted(words: tuple[str, str, str], fold: Fold) -> NotedJob:
        job = FinetuneJob(
            cohort=cohort,
            fold=fold,
            params=params,
            variant=make_variant(*words),
            pretrained=pretrained(fold.number),
        )
        return NotedJob(job=job, notes=notes)

    return [noted(words, fold) for words in HEADS for fold in folds]
