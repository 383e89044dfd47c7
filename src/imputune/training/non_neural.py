"""Heads that are no networks, on features that a frozen imputer gives or on plain statistics, one fold at a time."""

import time

import numpy as np

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.scaling import load_scaler
from imputune.data.splits import Partition, divide
from imputune.data.summary import summarise
from imputune.imputers.build import represent, saved_imputer
from imputune.imputers.interface import Imputer
from imputune.models.non_neural import SHALLOW
from imputune.protocol.variants import Cell
from imputune.runtime.recorder import Recorder
from imputune.runtime.seeds import generator_for
from imputune.training.finetune import FinetuneJob
from imputune.training.head_inputs import hidden_of
from imputune.training.scoring import score

SEED = 15  # the purpose of the generator that seeds an estimator; see `finetune` for the others


def baseline_fold(job: FinetuneJob, recorder: Recorder) -> TrainedFold:
    """Fit a shallow head on a fold's training stays and score it once on the test stays; nothing is reported.

    Inputs: `hidden`, the imputer's hidden state; `imputed`, the imputed series, its hours side by side; `summary`, the
    statistics of `data.summary`, to which the imputer adds nothing.

    Source: paper, section V.A (non-neural classifiers); `summary` is ours.
    """
    started = time.perf_counter()
    params = job.params
    data = divide(job.cohort, job.fold, load_scaler(job.pretrained))
    imputer = saved_imputer(job.cell.imputer, job.cohort.values_NTD.shape, params, job.pretrained)
    parts = (data.train, data.validation, data.test)
    features = {part: _features(imputer, part, job.cell) for part in parts}
    settings = getattr(params.shallow, job.cell.head).model_dump()
    model = SHALLOW[job.cell.head](**settings)
    train, validation = ((features[part], part.died_N.numpy().astype(int)) for part in parts[:2])
    model.fit(train, validation, generator_for(params.seed, data.number, SEED).initial_seed() % 2**31)
    scores, predictions = score(data, lambda part: model.risk(features[part]))
    seconds = time.perf_counter() - started
    return TrainedFold(data.number, {}, scores, 0, seconds, [], predictions=predictions)


def _features(imputer: Imputer, part: Partition, cell: Cell) -> np.ndarray:
    """Return a part's features, float32 (N, F)."""
    if cell.input == "summary":
        return summarise(part.values_NTD.numpy(), part.observed_NTD.numpy())
    representation = represent(imputer, part)
    if cell.input == "hidden":
        return hidden_of(cell, representation).numpy()
    return representation.imputed_BTD.flatten(1).numpy()
