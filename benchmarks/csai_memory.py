"""The memory of one worker process that trains CSAI on a fold of a large cohort.

It trains on a few batches only, and measures: reading and splitting the cohort, these steps, and scoring the validation
stays once, as at the end of pretraining. The remaining steps of an epoch and the scores of other patterns, imputers and
stays use the same buffers again; they are left out to save time.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch

from benchmarks import Result
from benchmarks.training import random_cohort, settings
from imputune.data.cohort import read_cohort, write_cohort
from imputune.data.folds import draw_folds
from imputune.data.splits import Split, fit_and_split
from imputune.evaluation.imputation import cell_errors
from imputune.imputers.build import new_csai, represent
from imputune.imputers.csai import CsaiImputer
from imputune.runtime.threads import use_one_thread
from imputune.training.imputer_training import CsaiTraining

HOURS, VARIABLES = 48, 89
BATCHES = 20  # enough to use every buffer of training
HELD_OUT_HOURS = slice(None, None, 10)  # of the validation stays
COVERS = f"one worker: reading, splitting, {BATCHES} training steps, scoring the validation stays once"
GIB = 2**30
Returned = TypeVar("Returned")


class Memory(Result):
    """Peak memory of the process before and after scoring, and the seconds before training."""

    covers: str
    stays: int
    hours: int
    variables: int
    training_stays: int
    validation_stays: int
    peak_gib: float
    peak_gib_before_scoring: float
    seconds_before_training: float


def measure_memory(stays: int) -> Memory:
    """Measure the training on a random cohort; it is written and read in processes of their own."""
    with TemporaryDirectory() as folder:
        cohort = Path(folder) / "random"
        _in_new_process(_write_large, cohort, stays)
        return _in_new_process(_train_large, cohort)


def _write_large(folder: Path, stays: int) -> None:
    write_cohort(random_cohort(stays, HOURS, VARIABLES), folder)


def _train_large(folder: Path) -> Memory:
    """Train on the first batches of a cohort's fold and score its validation stays once."""
    use_one_thread()
    started = time.perf_counter()
    cohort = read_cohort(folder)
    params = settings(cohort, 1)
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    prepared = time.perf_counter()
    imputer = new_csai(data, params)
    training = CsaiTraining(imputer, data, params)
    training.train = _first(data.train, BATCHES * params.pretrain.batch_size)
    training.train_epoch()
    trained_gib = _peak_gib()
    _score(imputer=CsaiImputer(imputer), split=data.validation, variables=cohort.variable_names)
    return Memory(
        covers=COVERS,
        stays=len(cohort.outcome_N),
        hours=HOURS,
        variables=VARIABLES,
        training_stays=len(data.train),
        validation_stays=len(data.validation),
        peak_gib=_peak_gib(),
        peak_gib_before_scoring=trained_gib,
        seconds_before_training=prepared - started,
    )


def _score(imputer: CsaiImputer, split: Split, variables: tuple[str, ...]) -> None:
    """Score an imputer on some hours of a split, as pretraining does."""
    held_out_NTD = torch.zeros_like(split.observed_NTD)
    held_out_NTD[:, HELD_OUT_HOURS] = split.observed_NTD[:, HELD_OUT_HOURS]
    imputed_NTD = represent(imputer, split, split.observed_NTD & ~held_out_NTD).imputed_BTD.numpy()
    cell_errors(imputed_NTD, split.values_NTD.numpy(), held_out_NTD.numpy(), variables)


def _peak_gib() -> float:
    """Return this process's peak memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def _first(split: Split, stays: int) -> Split:
    """Return a split's first stays, without a copy."""
    return Split(**{name: series[:stays] for name, series in vars(split).items()})


def _in_new_process(work: Callable[..., Returned], *arguments: object) -> Returned:
    """Do work in a new process and return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()
