"""Training of non-neural heads, on features from a frozen imputer or on plain statistics, one fold at a time."""

import time

import numpy as np

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.record_features import record_features
from imputune.data.scaling import Scaler
from imputune.data.splits import Split, split_cohort
from imputune.imputers.build import represent, saved_imputer
from imputune.imputers.interface import Imputer
from imputune.models.non_neural import ESTIMATORS
from imputune.protocol.variants import Variant, state_of
from imputune.runtime.recorder import Recorder
from imputune.runtime.seeds import Purpose, generator_for
from imputune.training.finetune import FinetuneJob
from imputune.training.head_inputs import hidden_states
from imputune.training.scoring import score_fold


def fit_non_neural_fold(job: FinetuneJob, recorder: Recorder) -> TrainedFold:
    """Fit a non-neural head on a fold's training stays, and score it once on the test stays; nothing is reported.

    Inputs: `hidden`, `hidden_both` or `hidden_pooled`, a hidden state of the imputer; `imputed`, the imputed series
    with its hours side by side; `summary`, the statistics of `data.summary`, which do not depend on the imputer.
    `+static` and `+summary` add features of the record; see `data.record_features`.

    Source: paper, section V.A (non-neural classifiers); `summary` is ours.
    """
    started = time.perf_counter()
    params = job.params
    data = split_cohort(job.cohort, job.fold, Scaler.from_arrays(job.pretrained))
    imputer = None
    if job.variant.base != "summary":
        shape, state = job.cohort.values_NTD.shape, state_of(job.variant.input)
        imputer = saved_imputer(job.variant.imputer, shape, params, job.pretrained, state)
    splits = (data.train, data.validation, data.test)
    features = {split: _features(imputer, split, job.variant) for split in splits}
    settings = getattr(params.non_neural, job.variant.head).model_dump()
    model = ESTIMATORS[job.variant.head](**settings)
    train, validation = ((features[split], split.outcome_N.numpy().astype(int)) for split in splits[:2])
    seed = generator_for(params.seed, data.number, Purpose.NON_NEURAL).initial_seed() % 2**31
    model.fit(train, validation, seed)
    scores, predictions = score_fold(data, lambda split: model.risk(features[split]))
    return TrainedFold(
        fold=data.number,
        weights={},
        scores=scores,
        best_epoch=0,
        seconds=time.perf_counter() - started,
        history=[],
        predictions=predictions,
    )


def _features(imputer: Imputer | None, split: Split, variant: Variant) -> np.ndarray:
    """Return a split's features, float32 (N, F), those of the record last; NaN where unknown."""
    base = (variant.base,) if variant.base == "summary" else ()
    record_NF = record_features(
        split.values_NTD.numpy(), split.observed_NTD.numpy(), split.static_NS, (*base, *variant.record_parts)
    )
    if imputer is None:
        return record_NF
    representation = represent(imputer, split)
    learned_NF = representation.imputed_BTD if variant.base == "imputed" else hidden_states(variant, representation)
    return np.concatenate([learned_NF.flatten(1).numpy(), record_NF], axis=1)
