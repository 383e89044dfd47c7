"""CSAI side by side with PyPOTS 1.5's: an epoch on one core, the error on masked cells, and two folds on two cores.

    python -m benchmarks.csai_speed [--json] [--cohort FOLDER | --stays N] [--epochs N] [--device NAME]

Both train on fold 0's training stays with the same widths, batch size and number of steps; their epochs alternate in
one process on one thread, so that a busy machine slows both. The first epoch of each is warm-up: it trains, but is not
timed. Afterwards both impute the same masked cells of the same validation stays from the same visible cells.

In all else each trains as its users get it, so the errors compare two programs, not one model twice:

                     imputune                                       PyPOTS
    learning rate    params.yaml's, along a cosine to 0             its default, constant
    masked cells     drawn anew each epoch, scored                  drawn once, not scored
    loss             also scores the history regression             combined estimates and consistency alone
    gradients        clipped                                        as they come
    dropout          none                                           0.1 in the self-attention
    self-attention   across the hours of each stay                  across the stays of a batch

--device cuda takes both to a GPU; it has not been run on one.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import torch

from benchmarks import Parser, report, run, spread, timed
from benchmarks.pypots_csai import (
    FEEDFORWARD,
    HEADS,
    MEASURED,
    PypotsCsai,
    check_pypots,
    default_learning_rate,
)
from imputune.data.cohort import Cohort, read_cohort
from imputune.data.folds import Fold, draw_folds
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.splits import Split, fit_and_split
from imputune.errors import UserError
from imputune.imputers.build import new_csai, represent
from imputune.imputers.csai import CsaiImputer
from imputune.models.csai import Csai
from imputune.runtime.console import print_table
from imputune.runtime.device import choose_device
from imputune.runtime.recorder import Trial
from imputune.runtime.workers import run_fold_jobs, use_one_thread
from imputune.settings.file import read_params
from imputune.settings.names import DeviceName
from imputune.settings.schema import Budget, Params
from imputune.training.pretrain import Pretraining, PretrainJob, pretrain_fold

PARAMS = Path(__file__).parents[1] / "params.yaml"
STAYS = 3997  # of the generated cohort: 2,398 train, as in the challenge's set a
FOLD_EPOCHS = 4  # of each fold in the two-core split; the time between the first and the last counts
REPETITIONS = 3  # of the two-core split


@dataclass
class Stopwatch:
    """A recorder that notes when it heard of the first and the last epoch of any fold."""

    heard: list[float] = field(default_factory=list)

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Note the time."""
        self.heard.append(time.perf_counter())

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Ignore trials: nothing is searched."""

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Ignore final scores: the training is over."""

    @property
    def seconds(self) -> float:
        """Time from the first epoch heard of to the last."""
        return self.heard[-1] - self.heard[0]


def settings(cohort: Cohort, epochs: int, device: DeviceName = "cpu") -> Params:
    """Return params.yaml with so many epochs of pretraining on a device, and the two widths that PyPOTS fixes."""
    params = read_params(PARAMS)
    csai = params.csai.model_copy(update={"attention_heads": HEADS, "feedforward": FEEDFORWARD})
    budget = {cohort.dataset: Budget(pretrain_epochs=epochs, frozen_epochs=1, unfrozen_epochs=1)}
    return params.model_copy(update={"dataset": cohort.dataset, "device": device, "csai": csai, "budget": budget})


def side_by_side(cohort: Cohort, fold: Fold, params: Params) -> dict[str, Any]:
    """Train both in turn, an epoch each, and score both on cells that PyPOTS masks of the validation stays."""
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    torch.manual_seed(params.seed)
    np.random.seed(params.seed)  # whose global state PyPOTS draws the cells from that it masks
    imputer = new_csai(data, params)
    ours = Pretraining(imputer, data, params)
    theirs = PypotsCsai(_holed(data.train), params, cohort.variable_names)
    seconds_ours, seconds_pypots = [], []
    for _ in range(params.budget_of(params.dataset).pretrain_epochs):
        seconds_ours.append(timed(ours.train_epoch))
        seconds_pypots.append(timed(theirs.train_epoch))
    ratios = [b / a for a, b in zip(seconds_ours[1:], seconds_pypots[1:], strict=True)]
    return {
        "ratio_epoch_vs_pypots": median(ratios),
        "ratio_epoch_spread": spread(ratios),
        "seconds_epoch_ours": spread(seconds_ours[1:]),
        "seconds_epoch_pypots": spread(seconds_pypots[1:]),
        "training_stays": len(data.train),
        "steps_per_epoch": len(theirs.loader),
        **_held_out_error(imputer, theirs, data.validation),
    }


def _held_out_error(imputer: Csai, theirs: PypotsCsai, split: Split) -> dict[str, float | int]:
    """Score both on the cells that PyPOTS masks; ours reads what is left."""
    prediction = theirs.predict(_holed(split))
    hidden = torch.from_numpy(prediction.masked_NTD)
    imputed = represent(CsaiImputer(imputer), split, split.observed_NTD.float() - hidden).imputed_BTD
    cells = prediction.masked_NTD > 0
    return {
        "mae_ours": float(np.abs(imputed.numpy() - prediction.truth_NTD)[cells].mean()),
        "mae_pypots": float(np.abs(prediction.imputed_NTD - prediction.truth_NTD)[cells].mean()),
        "held_out_cells": int(cells.sum()),
    }


def _holed(split: Split) -> np.ndarray:
    """Return a split's values (N, T, D) with NaN where not observed."""
    return torch.where(split.observed_NTD, split.values_NTD, torch.nan).numpy()


def two_folds(cohort: Cohort, folds: list[Fold], params: Params) -> dict[str, Any]:
    """Compare two folds in two worker processes with one fold in one, as pretraining runs them.

    Ratios are of throughput, (2 / seconds of two) / (1 / seconds of one): for the time between the first epoch and the
    last that the folds report, so without the start of the processes and the final scores, and for the whole. Where
    only one core is free, nothing is measured and the ratio is None.
    """
    if len(os.sched_getaffinity(0)) < 2:
        return {"ratio_two_folds_vs_one": None}
    epochs = min(params.budget_of(params.dataset).pretrain_epochs, FOLD_EPOCHS)
    shorter = settings(cohort, epochs, params.device)
    jobs = [PretrainJob(cohort, fold, shorter) for fold in folds[:2]]
    pairs = [(_race(jobs[:1]), _race(jobs)) for _ in range(REPETITIONS)]
    training, whole = ([2 * one[i] / two[i] for one, two in pairs] for i in range(2))
    return {
        "ratio_two_folds_vs_one": median(training),
        "ratio_two_folds_spread": spread(training),
        "ratio_two_folds_whole": spread(whole),
        "seconds_one_fold": spread([one[0] for one, _ in pairs]),
        "seconds_two_folds": spread([two[0] for _, two in pairs]),
    }


def _race(jobs: list[PretrainJob]) -> tuple[float, float]:
    """Pretrain folds, a process each, and return the seconds of training alone and of the whole."""
    watch = Stopwatch()
    whole = timed(lambda: run_fold_jobs(pretrain_fold, jobs, watch, len(jobs)))
    return watch.seconds, whole


def measure(cohort: Cohort, epochs: int, device: DeviceName) -> dict[str, Any]:
    """Return every measurement of a cohort, ready for JSON."""
    use_one_thread()
    stays, hours, variables = cohort.values_NTD.shape
    params = settings(cohort, epochs, device)
    folds = draw_folds(cohort, params.folds.count, params.seed)
    setting = {
        "dataset": cohort.dataset,
        "stays": stays,
        "hours": hours,
        "variables": variables,
        "batch_size": params.pretrain.batch_size,
        "hidden": params.csai.hidden_size,
        "channels": params.csai.channels,
        "epochs": epochs,
        "learning_rate_ours": params.pretrain.learning_rate,
        "learning_rate_pypots": default_learning_rate(),
        "device": choose_device(device).type,
        "pypots": MEASURED,
        "torch": torch.__version__,
    }
    return side_by_side(cohort, folds[0], params) | two_folds(cohort, folds, params) | {"setting": setting}


def show(found: dict[str, Any]) -> None:
    """Print the measurements as tables."""
    setting = found["setting"]
    print(
        f"{found['training_stays']:,} training stays of {setting['dataset']}, {setting['hours']} hours, "
        f"{setting['variables']} variables; {found['steps_per_epoch']} steps of {setting['batch_size']} an epoch; "
        f"MAE on {found['held_out_cells']:,} hidden validation cells after {setting['epochs']} epochs, "
        f"at learning rates of {setting['learning_rate_ours']} falling to 0 (imputune) and "
        f"{setting['learning_rate_pypots']} (PyPOTS).\n"
    )
    print_table(
        "One epoch on " + ("one core" if setting["device"] == "cpu" else "the GPU"),
        ("", "seconds", "lowest", "highest", "MAE in deviations"),
        [
            ("imputune", *_cells(found["seconds_epoch_ours"]), f"{found['mae_ours']:.4f}"),
            (f"PyPOTS {MEASURED}", *_cells(found["seconds_epoch_pypots"]), f"{found['mae_pypots']:.4f}"),
            ("PyPOTS / imputune, pair by pair", *_cells(found["ratio_epoch_spread"]), ""),
        ],
    )
    if found["ratio_two_folds_vs_one"] is None:
        print("Two folds side by side: not measured, only one core is free.")
        return
    print_table(
        "Two folds, a process each, against one",
        ("", "median", "lowest", "highest"),
        [
            ("seconds of one fold", *_cells(found["seconds_one_fold"])),
            ("seconds of two folds", *_cells(found["seconds_two_folds"])),
            ("throughput of two / one", *_cells(found["ratio_two_folds_spread"])),
            ("the same, with start and scoring", *_cells(found["ratio_two_folds_whole"])),
        ],
    )


def _cells(numbers: dict[str, float]) -> tuple[str, ...]:
    return tuple(f"{numbers[name]:.2f}" for name in ("median", "lowest", "highest"))


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.csai_speed", (__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--cohort", type=Path, help="folder of an extracted cohort; without it, one is generated")
    source.add_argument("--stays", type=int, default=STAYS, help="of the generated cohort (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of each, the first not timed (%(default)s)")
    where = "of both (%(default)s); on a GPU nothing has been measured yet"
    parser.add_argument("--device", choices=get_args(DeviceName), default="cpu", help=where)
    given = parser.parse_args()
    if given.epochs < 2:
        raise UserError(f"--epochs must be 2 or more, the first is not timed; got {given.epochs}")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; leave the option out, or give --device auto")
    extracted = read_cohort(given.cohort) if given.cohort else None
    check_pypots()
    report(measure(extracted or extract_synthetic(given.stays), given.epochs, given.device), show, given.json)


if __name__ == "__main__":
    run(main)
