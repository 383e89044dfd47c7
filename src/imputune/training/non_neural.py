"""Training of non-neural heads, on features from a frozen imputer or on plain statistics, one fold at a time."""

import time

import numpy as np
import torch

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.batches import batches_in_order, joined
from imputune.data.scaling import PREFIX as SCALER
from imputune.data.scaling import Scaler
from imputune.data.splits import Split, split_cohort
from imputune.imputers.build import saved_imputer
from imputune.imputers.interface import Imputer
from imputune.models.non_neural import ESTIMATORS
from imputune.protocol.imputers import imputer_kind
from imputune.protocol.variants import Variant, state_of
from imputune.runtime.recorder import Recorder
from imputune.runtime.seeds import Purpose, generator_for
from imputune.training.finetune import FinetuneJob
from imputune.training.head_inputs import non_neural_features
from imputune.training.scoring import score_fold


def fit_non_neural_fold(job: FinetuneJob, recorder: Recorder) -> TrainedFold:
    """Fit a non-neural head on a fold's training stays, and score it once on the test stays; nothing is reported.

    Inputs: `hidden`, `hidden_both` or `hidden_pooled`, a hidden state of the imputer; `imputed`, the imputed series
    with its hours side by side; `summary`, the statistics of `data.summary`, which do not depend on the imputer.
    `+static` and `+summary` add features of the record; see `data.record_features`.

    Of xgboost, the fold keeps the boosters, the scaler, and the weights of a CSAI imputer that the input reads; of svm
    nothing, because its support vectors are records of patients.

    Source: paper, section V.A (non-neural classifiers); `summary` is ours.
    """
    started = time.perf_counter()
    params = job.params
    data = split_cohort(job.cohort, job.fold, Scaler.from_arrays(job.pretrained))
    imputer = None
    if job.variant.base != "summary":
        shape, state = job.cohort.values_NTD.shape, state_of(job.variant.input)
        hours = job.cohort.bin_hours
        imputer = saved_imputer(job.variant.imputer, shape, params, job.pretrained, state, bin_hours=hours)
    splits = (data.train, data.validation, data.test)
    features = {split: _features(imputer, split, job.variant) for split in splits}
    settings = getattr(params.non_neural, job.variant.head).model_dump()
    model = ESTIMATORS[job.variant.head](**settings)
    train, validation = ((features[split], split.outcome_N.numpy().astype(int)) for split in splits[:2])
    seed = generator_for(params.seed, data.number, Purpose.NON_NEURAL).initial_seed() % 2**31
    model.fit(train, validation, seed)
    scores, predictions = score_fold(data, lambda split: model.risk(features[split]))
    boosters = model.to_texts()
    return TrainedFold(
        fold=data.number,
        weights=_kept_weights(job) if boosters else {},
        boosters=boosters,
        scores=scores,
        best_epoch=0,
        seconds=time.perf_counter() - started,
        history=[],
        predictions=predictions,
    )


def _features(imputer: Imputer | None, split: Split, variant: Variant) -> np.ndarray:
    """Return a split's features, float32 (N, F); see `non_neural_features`."""

    def of_batch(stays: torch.Tensor) -> tuple[torch.Tensor]:
        values_BTD, observed_BTD = split.batch(stays)
        features_BF = non_neural_features(
            variant.input,
            values_NTD=values_BTD.numpy(),
            observed_NTD=observed_BTD.bool().numpy(),
            static_NS=split.static_NS[stays.numpy()],
            learned=None if imputer is None else imputer.represent(values_BTD, observed_BTD),
        )
        return (torch.from_numpy(features_BF),)

    [features_NF] = joined(map(of_batch, batches_in_order(len(split))), len(split))
    return features_NF.numpy()


def _kept_weights(job: FinetuneJob) -> dict[str, np.ndarray]:
    """Return the weights that predicting needs beside the boosters: the scaler's, and those of a CSAI that is read."""
    reads_csai = imputer_kind(job.variant.imputer).family == "csai" and job.variant.base != "summary"
    kept = (SCALER, "imputer.") if reads_csai else (SCALER,)
    return {name: tensor.numpy() for name, tensor in job.pretrained.items() if name.startswith(kept)}
