"""The steps of training that `benchmarks.large_cohort` measures."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.training import settings
from imputune.data.cohort import Cohort, cohort_hash, read_cohort
from imputune.data.folds import Fold, draw_folds
from imputune.data.overlap import shared_stays
from imputune.data.scaling import Scaler
from imputune.data.splits import FoldData, Split, fit_and_split, split_cohort
from imputune.imputers.build import new_csai
from imputune.imputers.interface import Imputer
from imputune.imputers.plain import PlainImputer
from imputune.models.csai import Csai
from imputune.models.weights import module_weights
from imputune.protocol.variants import make_variant
from imputune.runtime.recorder import SilentRecorder
from imputune.settings.names import ImputerName
from imputune.settings.schema import Budget, Params
from imputune.training.finetune import FinetuneJob, build_classifier, finetune_fold, record_inputs
from imputune.training.imputer_training import CsaiTraining
from imputune.training.pretrain import PretrainJob, imputation_errors
from imputune.training.trainers import UnfrozenTrainer

Part = Literal["read", "pretrain", "finetune"]
FOLDS = 5
CPU = torch.device("cpu")
HEAD_EPOCHS = 2
REPRESENTED = 20_000  # for the frozen mlp2; a representation takes 432 bytes of a stay
SCORED_STAYS = 2048  # with the unfrozen classifier


@dataclass(frozen=True)
class Steps:
    """How many steps each training takes, and a function that is told the name of the work that begins."""

    count: int
    begin: Callable[[str], None]


def train(folder: Path, steps: Steps, parts: Collection[Part]) -> None:
    """Train on the first fold of a cohort as `imputune pretrain` and `imputune finetune` do.

    Fine-tuning does not need the trained weights of pretraining: it starts from initial ones, which cost the same.
    """
    steps.begin("read the cohort")
    cohort = read_cohort(folder)
    if "read" in parts:
        steps.begin("hash the cohort's files")
        cohort_hash(folder)
        steps.begin("compare its records with another cohort's")
        shared_stays(cohort, replace(cohort, dataset="other"))
        steps.begin("draw the folds")
        draw_folds(cohort, FOLDS, seed=0)
    steps.begin("read params.yaml")
    params = settings(cohort, 1)
    budget = {cohort.dataset: Budget(pretrain_epochs=1, frozen_epochs=HEAD_EPOCHS, unfrozen_epochs=1)}
    params = params.model_copy(update={"budget": budget})
    subset_N = np.random.default_rng(0).integers(FOLDS, size=len(cohort.outcome_N))
    train, validation, test = (np.flatnonzero(is_in_N) for is_in_N in (subset_N > 1, subset_N == 1, subset_N == 0))
    fold = Fold(number=0, train=train, validation=validation, test=test)
    steps.begin("fit the scaler")
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    steps.begin("count observations and median gaps")
    csai = new_csai(data, params)
    arrays = data.scaler.to_arrays() | module_weights("imputer", csai)
    if "pretrain" in parts:
        _pretrain(cohort, fold, csai, data, params, steps)
    if "finetune" in parts:
        _finetune(cohort, fold, params, {name: torch.from_numpy(array) for name, array in arrays.items()}, steps)


def _pretrain(cohort: Cohort, fold: Fold, csai: Csai, data: FoldData, params: Params, steps: Steps) -> None:
    """Pretrain CSAI for some steps and validate it; score masked cells of the validation stays."""
    steps.begin("draw the masks of validation stays")
    training = CsaiTraining(csai, data, params)
    training.train = _first(data.train, steps.count * params.pretrain.batch_size)
    steps.begin(f"pretrain CSAI, {steps.count} steps")
    training.train_epoch()
    steps.begin("validate CSAI")
    training.validate()
    steps.begin("score linear interpolation on validation stays")  # CSAI is scored in the same way
    imputers: dict[ImputerName, Imputer] = {"linear": PlainImputer("linear")}
    job = PretrainJob(cohort=cohort, fold=fold, params=params)
    imputation_errors(job, data, imputers, "validation", params.masking.pattern)


def _finetune(cohort: Cohort, fold: Fold, params: Params, arrays: dict[str, torch.Tensor], steps: Steps) -> None:
    """Summarise every stay; train a frozen mlp2 on some of them, and an unfrozen mlp2 for some steps; score both."""
    steps.begin("summarise every stay and scale the summaries")
    data = split_cohort(cohort, fold, Scaler.from_arrays(arrays))
    record_inputs(make_variant("mlp2", input="hidden+summary"), (data.train, data.validation, data.test), CPU)
    steps.begin(f"represent {REPRESENTED:,} stays, first epoch of a frozen mlp2")
    job = FinetuneJob(
        cohort=cohort,
        fold=_thinned(fold, REPRESENTED),
        params=params,
        variant=make_variant("mlp2", input="hidden+summary"),
        pretrained=arrays,
    )
    finetune_fold(job, _Announcing(steps.begin))
    steps.begin(f"fine-tune an unfrozen mlp2, {steps.count} steps")
    variant = make_variant("mlp2", mode="unfrozen")
    classifier = build_classifier(cohort.values_NTD.shape, params, variant)
    scored = _first(data.validation, SCORED_STAYS)
    trainer = UnfrozenTrainer(classifier, data, params, record=dict.fromkeys((data.train, scored), ()))
    for stays in torch.arange(len(data.train))[: steps.count * params.finetune.batch_size].split(
        params.finetune.batch_size
    ):
        loss, _ = trainer.loss(data.train, stays)
        loss.backward()
    steps.begin("score the unfrozen mlp2 on some validation stays")
    trainer.risk(scored)


class _Announcing(SilentRecorder):
    """A recorder that tells what follows an epoch."""

    def __init__(self, begin: Callable[[str], None]) -> None:
        self.begin = begin

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Tell that the next epoch begins, or scoring."""
        self.begin("score the frozen mlp2" if epoch == HEAD_EPOCHS - 1 else "a further epoch of the frozen mlp2")


def _thinned(fold: Fold, stays: int) -> Fold:
    """Return a fold with so many stays at most, evenly from the whole cohort."""
    sizes = (len(fold.train), len(fold.validation), len(fold.test))
    every = -(-sum(sizes) // stays)
    return replace(fold, train=fold.train[::every], validation=fold.validation[::every], test=fold.test[::every])


def _first(split: Split, stays: int) -> Split:
    """Return a split's first stays."""
    return replace(
        split,
        rows_N=split.rows_N[:stays],
        outcome_N=split.outcome_N[:stays],
        stay_ids_N=split.stay_ids_N[:stays],
        static_NS=split.static_NS[:stays],
    )
