"""CSAI beside the CSAI of PyPOTS 1.5: one epoch on one core, the error on held-out cells, and two folds on two cores.

    python -m benchmarks.csai_speed [--json] [--cohort FOLDER | --stays N] [--epochs N] [--device NAME]

Both train on fold 0's training stays with the same widths, batch size and number of steps. Their epochs alternate in
one process on one thread, so that other work on the machine slows both. The first epoch of each is not timed.
Afterwards both impute the same held-out cells of the same validation stays from the same visible cells.

Otherwise each trains as its users train it, so the errors compare two programs, not the same model twice:

                     imputune                                       PyPOTS
    learning rate    params.yaml's, along a cosine to 0             its default, constant
    masked cells     drawn again each epoch, in the loss            drawn once, not in the loss
    loss             also the history regression's error            combined estimates and consistency only
    gradients        clipped                                        not clipped
    dropout          none                                           0.1 in the self-attention
    self-attention   over the hours of each stay                    over the stays of a batch

IMPUTUNE_COMPILED=0 in the environment measures imputune without its compiled code. --device cuda moves both to a GPU.
"""

import os
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
import torch

from benchmarks import Parser, Result, Spread, report, run, timed
from benchmarks.pypots_csai import MEASURED, PypotsCsai, check_pypots, default_learning_rate
from benchmarks.training import Stopwatch, settings
from imputune.data.cohort import Cohort, read_cohort
from imputune.data.folds import Fold, draw_folds
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.splits import Split, fit_and_split
from imputune.errors import UserError
from imputune.imputers.build import new_csai, represent
from imputune.imputers.csai import CsaiImputer
from imputune.models.compiled.library import name_of_code
from imputune.models.csai import Csai
from imputune.runtime.console import print_table
from imputune.runtime.device import choose_device
from imputune.runtime.threads import use_one_thread
from imputune.runtime.workers import LocalPool, run_fold_jobs
from imputune.settings.names import DeviceName
from imputune.settings.schema import Params
from imputune.training.imputer_training import CsaiTraining
from imputune.training.pretrain import PretrainJob, pretrain_fold

STAYS = 3997  # of the generated cohort: 2,398 train, as in the challenge's set a
FOLD_EPOCHS = 4  # of each fold on two cores; the time between the first and the last is measured
REPETITIONS = 3  # of the measurement on two cores


class Setting(Result):
    """What was measured on."""

    dataset: str
    stays: int
    hours: int
    variables: int
    batch_size: int
    hidden_size: int
    channels: int
    epochs: int
    learning_rate_ours: float
    learning_rate_pypots: float
    device: str
    pypots: str
    torch: str
    compiled: str


class SideBySide(Result):
    """Epochs of both programs in turn; ratios are PyPOTS's seconds over ours, pair by pair."""

    ratio_epoch_vs_pypots: float
    ratio_epoch_spread: Spread
    seconds_epoch_ours: Spread
    seconds_epoch_pypots: Spread
    training_stays: int
    steps_per_epoch: int
    mae_ours: float
    mae_pypots: float
    held_out_cells: int


class TwoFolds(Result):
    """Two folds in two worker processes and one fold in one; None if only one core is available.

    Ratios are of throughput, (2 / seconds of two) / (1 / seconds of one): for the time between the first and the last
    epoch of the folds, and (whole) with the start of the processes and the final scores.
    """

    ratio_two_folds_vs_one: float | None = None
    ratio_two_folds_spread: Spread | None = None
    ratio_two_folds_whole: Spread | None = None
    seconds_one_fold: Spread | None = None
    seconds_two_folds: Spread | None = None


class Speed(SideBySide, TwoFolds):
    """All measurements."""

    setting: Setting


def side_by_side(cohort: Cohort, fold: Fold, params: Params) -> SideBySide:
    """Train both in turn, one epoch each, and score both on validation cells that PyPOTS holds out."""
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    torch.manual_seed(params.seed)
    np.random.seed(params.seed)  # PyPOTS draws the masked cells with numpy's global generator
    imputer = new_csai(data, params)
    ours = CsaiTraining(imputer, data, params)
    theirs = PypotsCsai(_with_nan(data.train), params, cohort.variable_names)
    seconds_ours, seconds_pypots = [], []
    for _ in range(params.budget_of(params.dataset).pretrain_epochs):
        seconds_ours.append(timed(ours.train_epoch))
        seconds_pypots.append(timed(theirs.train_epoch))
    ratios = [pypots / our for our, pypots in zip(seconds_ours[1:], seconds_pypots[1:], strict=True)]
    mae_ours, mae_pypots, cells = _held_out_errors(imputer, theirs, data.validation)
    return SideBySide(
        ratio_epoch_vs_pypots=median(ratios),
        ratio_epoch_spread=Spread.of(ratios),
        seconds_epoch_ours=Spread.of(seconds_ours[1:]),
        seconds_epoch_pypots=Spread.of(seconds_pypots[1:]),
        training_stays=len(data.train),
        steps_per_epoch=len(theirs.loader),
        mae_ours=mae_ours,
        mae_pypots=mae_pypots,
        held_out_cells=cells,
    )


def _held_out_errors(imputer: Csai, theirs: PypotsCsai, split: Split) -> tuple[float, float, int]:
    """Return both mean absolute errors on the cells that PyPOTS holds out, and the number of these cells."""
    prediction = theirs.predict(_with_nan(split))
    held_out_NTD = torch.from_numpy(prediction.held_out_NTD)
    imputed_NTD = represent(CsaiImputer(imputer), split, split.observed_NTD.float() - held_out_NTD).imputed_BTD
    cells = prediction.held_out_NTD > 0
    ours = float(np.abs(imputed_NTD.numpy() - prediction.truth_NTD)[cells].mean())
    pypots = float(np.abs(prediction.imputed_NTD - prediction.truth_NTD)[cells].mean())
    return ours, pypots, int(cells.sum())


def _with_nan(split: Split) -> np.ndarray:
    """Return a split's values (N, T, D) with NaN where missing."""
    return torch.where(split.observed_NTD, split.values_NTD, torch.nan).numpy()


def two_folds(cohort: Cohort, folds: list[Fold], params: Params) -> TwoFolds:
    """Compare two folds in two worker processes with one fold in one, as pretraining runs them."""
    if len(os.sched_getaffinity(0)) < 2:
        return TwoFolds()
    epochs = min(params.budget_of(params.dataset).pretrain_epochs, FOLD_EPOCHS)
    shorter = settings(cohort, epochs, params.device)
    jobs = [PretrainJob(cohort=cohort, fold=fold, params=shorter) for fold in folds[:2]]
    pairs = [(_fold_seconds(jobs[:1]), _fold_seconds(jobs)) for _ in range(REPETITIONS)]
    training, whole = ([2 * one[i] / two[i] for one, two in pairs] for i in range(2))
    return TwoFolds(
        ratio_two_folds_vs_one=median(training),
        ratio_two_folds_spread=Spread.of(training),
        ratio_two_folds_whole=Spread.of(whole),
        seconds_one_fold=Spread.of([one[0] for one, _ in pairs]),
        seconds_two_folds=Spread.of([two[0] for _, two in pairs]),
    )


def _fold_seconds(jobs: list[PretrainJob]) -> tuple[float, float]:
    """Pretrain folds, a process each; return the seconds of training alone and of the whole."""
    watch = Stopwatch()
    whole = timed(lambda: run_fold_jobs(pretrain_fold, jobs, watch, LocalPool(len(jobs))))
    return watch.seconds, whole


def measure(cohort: Cohort, epochs: int, device: DeviceName) -> Speed:
    """Return every measurement on a cohort."""
    use_one_thread()
    stays, hours, variables = cohort.values_NTD.shape
    params = settings(cohort, epochs, device)
    folds = draw_folds(cohort, params.folds.count, params.seed)
    setting = Setting(
        dataset=cohort.dataset,
        stays=stays,
        hours=hours,
        variables=variables,
        batch_size=params.pretrain.batch_size,
        hidden_size=params.csai.hidden_size,
        channels=params.csai.channels,
        epochs=epochs,
        learning_rate_ours=params.pretrain.learning_rate,
        learning_rate_pypots=default_learning_rate(),
        device=choose_device(device).type,
        pypots=MEASURED,
        torch=torch.__version__,
        compiled=name_of_code(),
    )
    both = dict(side_by_side(cohort, folds[0], params)) | dict(two_folds(cohort, folds, params))
    return Speed(**both, setting=setting)


def show(speed: Speed) -> None:
    """Print the measurements as tables."""
    setting = speed.setting
    print(
        f"{speed.training_stays:,} training stays of {setting.dataset}, {setting.hours} hours, "
        f"{setting.variables} variables; {speed.steps_per_epoch} steps of {setting.batch_size} stays an epoch. "
        f"MAE on {speed.held_out_cells:,} held-out validation cells after {setting.epochs} epochs, with learning rates "
        f"{setting.learning_rate_ours} falling to 0 (imputune) and {setting.learning_rate_pypots} (PyPOTS). "
        f"Compiled code: {setting.compiled}.\n"
    )
    print_table(
        "One epoch on " + ("one core" if setting.device == "cpu" else "the GPU"),
        ("", "seconds", "lowest", "highest", "MAE in deviations"),
        [
            ("imputune", *speed.seconds_epoch_ours.as_text(), f"{speed.mae_ours:.4f}"),
            (f"PyPOTS {MEASURED}", *speed.seconds_epoch_pypots.as_text(), f"{speed.mae_pypots:.4f}"),
            ("PyPOTS / imputune, pair by pair", *speed.ratio_epoch_spread.as_text(), ""),
        ],
    )
    rows = {
        "seconds of one fold": speed.seconds_one_fold,
        "seconds of two folds": speed.seconds_two_folds,
        "throughput of two / one": speed.ratio_two_folds_spread,
        "the same, with start and scoring": speed.ratio_two_folds_whole,
    }
    lines = [(name, *spread.as_text()) for name, spread in rows.items() if spread is not None]
    if lines:
        print_table("Two folds, a process each, against one", ("", "median", "lowest", "highest"), lines)
    else:
        print("Two folds side by side: not measured, because only one core is available.")


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.csai_speed", (__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--cohort", type=Path, help="folder of an extracted cohort; without it, one is generated")
    source.add_argument("--stays", type=int, default=STAYS, help="of the generated cohort (%(default)s)")
    parser.add_timed_epochs(10)
    device_help = "of both (%(default)s)"
    parser.add_argument("--device", choices=get_args(DeviceName), default="cpu", help=device_help)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; leave the option out, or give --device auto")
    extracted = read_cohort(given.cohort) if given.cohort else None
    check_pypots()
    report(measure(extracted or extract_synthetic(given.stays), given.epochs, given.device), show, given.json)


if __name__ == "__main__":
    run(main)
