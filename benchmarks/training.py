"""What the measurements of training share: settings, a recorder that notes times, and random cohorts."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from imputune.data.cohort import Cohort, Variable, write_cohort
from imputune.data.folds import draw_folds
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.splits import FoldData, fit_and_split
from imputune.runtime.recorder import Trial
from imputune.settings.file import read_params
from imputune.settings.names import DeviceName
from imputune.settings.schema import Budget, Params

PARAMS = Path(__file__).parents[1] / "params.yaml"
ATTENTION_HEADS, FEEDFORWARD = 8, 64  # fixed in PyPOTS
WRITTEN_AT_ONCE = 1000  # stays of a random cohort
OBSERVED_FRACTION = 0.2  # of the cells of a random cohort


def generated_fold(stays: int) -> tuple[FoldData, Params]:
    """Return fold 0 of a generated cohort, scaled by its training stays, and params.yaml for the processor."""
    params = read_params(PARAMS).model_copy(update={"device": "cpu"})
    cohort = extract_synthetic(stays)
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    return fit_and_split(cohort, fold, params.scaling.clip_quantile), params


@dataclass
class Stopwatch:
    """A recorder that notes the time of each epoch of any fold."""

    times: list[float] = field(default_factory=list)

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Ignore trials: nothing is searched."""

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Ignore final scores: the training is over."""

    @property
    def seconds(self) -> float:
        """Time from the first epoch to the last."""
        return self.times[-1] - self.times[0]


def settings(cohort: Cohort, epochs: int, device: DeviceName = "cpu") -> Params:
    """Return params.yaml with a number of pretraining epochs, a device, and the two widths that PyPOTS fixes."""
    params = read_params(PARAMS)
    csai = params.csai.model_copy(update={"attention_heads": ATTENTION_HEADS, "feedforward": FEEDFORWARD})
    budget = {cohort.dataset: Budget(pretrain_epochs=epochs, frozen_epochs=1, unfrozen_epochs=1)}
    return params.model_copy(update={"dataset": cohort.dataset, "device": device, "csai": csai, "budget": budget})


def write_random_cohort(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write a cohort of standard normal values of a shape (stays, hours, variables), a fraction of them observed.

    It is drawn piece by piece. The disk needs room for its values twice.
    """
    random = np.random.default_rng(0)
    drawn = folder.with_name("drawn.npy")
    values_NTD = np.lib.format.open_memmap(drawn, "w+", np.float32, shape)
    for start in range(0, len(values_NTD), WRITTEN_AT_ONCE):
        piece = values_NTD[start : start + WRITTEN_AT_ONCE]
        piece[:] = random.standard_normal(piece.shape, dtype=np.float32)
        observe_some(piece, random)
    write_cohort(cohort_of(values_NTD), folder)
    drawn.unlink()


def observe_some(values_NTD: np.ndarray, random: np.random.Generator) -> None:
    """Leave a random fraction of values as they are and set the others to NaN, stay by stay."""
    for stay_TD in values_NTD:
        stay_TD[random.random(stay_TD.shape, dtype=np.float32) >= OBSERVED_FRACTION] = np.nan


def cohort_of(values_NTD: np.ndarray) -> Cohort:
    """Return a cohort with these values, without static facts; every fifth stay ends in death."""
    stays, _, variables = values_NTD.shape
    return Cohort(
        dataset="random",
        stay_ids_N=np.arange(stays, dtype=np.int64),
        outcome_N=(np.arange(stays) % 5 == 0).astype(np.int8),
        values_NTD=values_NTD,
        variables=tuple(Variable(f"v{number}", "1") for number in range(variables)),
        static=pd.DataFrame(index=range(stays)),
        source={"exclusions": {}},
    )
