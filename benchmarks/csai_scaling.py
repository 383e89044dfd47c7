"""How CSAI's cost grows: seconds of training steps, of masks and gaps, of a frozen head's epochs; memory of training.

    python -m benchmarks.csai_scaling [--json] [--stays N]

Each row of the first table doubles one of stays, hours and variables and leaves the others; the records are random.
The second table compares the ends of each range. A step is linear in the stays of its batch, and made of splits that
are not in the rest:

    hours        the self-attention before the recurrence compares every hour of a stay with every other: hours squared
    variables    the feature regression, the weight of observations and the combining weight are matrices of variables
                 by variables: variables squared

The other splits are linear, and what a step costs whatever its size makes the smaller ones dearer than their share.

Memory is the peak of one worker process on a fold of `--stays` records, of which it trains on a few batches alone:
direction and dividing the cohort, those steps, and scoring the validation stays once, as the end of pretraining does.
An epoch's remaining steps and the scores of other patterns, imputers and stays use the same buffers again; they are
left out, for their time.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from benchmarks import Parser, report, run, spread, timed
from benchmarks.csai_speed import STAYS, Stopwatch, settings
from imputune.data.cohort import (
    STATIC,
    Cohort,
    Variable,
    read_cohort,
    write_cohort,
)
from imputune.data.directions import Directions
from imputune.data.folds import Fold, draw_folds
from imputune.data.masking import draw_mask
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.scaling import scaler_weights
from imputune.data.splits import Split, fit_and_split
from imputune.errors import UserError
from imputune.evaluation.metrics import imputation_scores
from imputune.imputers.build import new_csai, represent
from imputune.imputers.csai import CsaiImputer
from imputune.models.weights import module_weights
from imputune.protocol.variants import make_variant
from imputune.runtime.console import print_table
from imputune.runtime.workers import use_one_thread
from imputune.settings.schema import Budget, Params
from imputune.training.finetune import FinetuneJob, finetune_fold
from imputune.training.pretrain import Pretraining

BASE = {"stays": 64, "hours": 48, "variables": 35}  # of a batch
DOUBLINGS = {"stays": (64, 128, 256), "hours": (24, 48, 96), "variables": (35, 70, 140)}
NOT_LINEAR = {"stays": "nothing", "hours": "self-attention", "variables": "matrices of variables by variables"}
STEPS, REPETITIONS = 4, 5
PREPARED_STAYS = 4000
HEAD_EPOCHS = 200
LARGE_STAYS, LARGE_VARIABLES = 50_000, 89
BATCHES = 20  # of the training whose memory is measured: enough for every buffer to have been used
HIDDEN_HOURS = slice(None, None, 10)  # of the validation stays scored there
COVERED = f"one worker: direction, dividing, {BATCHES} training steps, scoring the validation stays once"
OBSERVED_SHARE = 0.2
GIB = 2**30
Result = TypeVar("Result")


def random_cohort(stays: int, hours: int, variables: int) -> Cohort:
    """Return a cohort of standard normal cells, a share of them observed, every fifth stay ending in death."""
    random = np.random.default_rng(0)
    values_NTD = random.standard_normal((stays, hours, variables), dtype=np.float32)
    for stay_TD in values_NTD:
        stay_TD[random.random((hours, variables), dtype=np.float32) >= OBSERVED_SHARE] = np.nan
    return Cohort(
        dataset="random",
        stay_ids_N=np.arange(stays, dtype=np.int64),
        outcome_N=(np.arange(stays) % 5 == 0).astype(np.int8),
        values_NTD=values_NTD,
        variables=tuple(Variable(f"v{number}", "1") for number in range(variables)),
        static=pd.DataFrame(np.nan, index=range(stays), columns=list(STATIC)),
        source={"exclusions": {}},
    )


def step_seconds(stays: int, hours: int, variables: int) -> dict[str, float]:
    """Return the seconds of one training step on a batch of so many stays; the first few steps are not timed."""
    cohort = random_cohort(STEPS * stays + 2, hours, variables)
    every = np.arange(STEPS * stays)
    fold = Fold(0, every, every[-1:] + 1, every[-1:] + 2)
    params = _with_batch(settings(cohort, REPETITIONS + 1), stays)
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    training = Pretraining(new_csai(data, params), data, params)
    return spread([timed(training.train_epoch) / STEPS for _ in range(REPETITIONS + 1)][1:])


def _with_batch(params: Params, stays: int) -> Params:
    return params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"batch_size": stays})})


def preparation_seconds(stays: int) -> dict[str, float]:
    """Return the seconds that masks, gaps and last observations of both directions of all stays take."""
    shape = (stays, BASE["hours"], BASE["variables"])
    generator = torch.Generator().manual_seed(0)
    observed_NTD = (torch.rand(shape, generator=generator) < OBSERVED_SHARE).float()
    values_NTD = torch.randn(shape, generator=generator) * observed_NTD
    rate_D = torch.full(shape[-1:], 0.1)

    def prepare() -> None:
        Directions.of(values_NTD, observed_NTD - draw_mask(observed_NTD, rate_D, generator))

    return spread([timed(prepare) for _ in range(REPETITIONS + 1)][1:])


def head_seconds(stays: int, epochs: int) -> dict[str, float]:
    """Return the seconds of so many epochs of a frozen mlp2, in fine-tuning a fold of the generated cohort.

    One epoch more is trained: the first one heard of marks when every representation was there, and the time from it
    to the last one is that of `epochs` epochs. The imputer is untrained, which changes no cost.
    """
    cohort = extract_synthetic(stays)
    params = settings(cohort, 1)
    budget = {params.dataset: Budget(pretrain_epochs=1, frozen_epochs=epochs + 1, unfrozen_epochs=1)}
    patient = params.finetune.model_copy(update={"patience": epochs + 2})
    params = params.model_copy(update={"budget": budget, "finetune": patient})
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    arrays = scaler_weights(data.scaler) | module_weights("imputer", new_csai(data, params))
    pretrained = {name: torch.from_numpy(array) for name, array in arrays.items()}
    watch = Stopwatch()
    started = time.perf_counter()
    with TemporaryDirectory() as journals:
        finetune_fold(FinetuneJob(cohort, fold, params, make_variant("mlp2"), pretrained, Path(journals)), watch)
    return {
        "stays": stays,
        "epochs": len(watch.heard) - 1,
        "seconds_until_first_epoch": watch.heard[0] - started,
        "seconds_epochs": watch.seconds,
    }


def write_large(folder: Path, stays: int) -> None:
    """Write a random cohort; in a process of its own, whose memory is not that of training."""
    write_cohort(random_cohort(stays, BASE["hours"], LARGE_VARIABLES), folder)


def train_large(folder: Path) -> dict[str, float]:
    """Train on the first batches of a cohort's fold and score its validation stays once.

    Returns this process's peak memory in GiB before and after scoring, and the seconds before training.
    """
    use_one_thread()
    started = time.perf_counter()
    cohort = read_cohort(folder)
    params = settings(cohort, 1)
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    prepared = time.perf_counter()
    imputer = new_csai(data, params)
    training = Pretraining(imputer, data, params)
    training.train = _first(data.train, BATCHES * params.pretrain.batch_size)
    training.train_epoch()
    trained_gib = _peak_gib()
    split = data.validation
    masked_NTD = torch.zeros_like(split.observed_NTD)
    masked_NTD[:, HIDDEN_HOURS] = split.observed_NTD[:, HIDDEN_HOURS]
    imputed_NTD = represent(CsaiImputer(imputer), split, split.observed_NTD & ~masked_NTD).imputed_BTD.numpy()
    imputation_scores(imputed_NTD, split.values_NTD.numpy(), masked_NTD.numpy(), cohort.variable_names)
    return {
        "peak_gib": _peak_gib(),
        "peak_gib_before_scoring": trained_gib,
        "seconds_before_training": prepared - started,
        "training_stays": len(data.train),
        "validation_stays": len(split),
    }


def _peak_gib() -> float:
    """Return this process's peak memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def _first(split: Split, stays: int) -> Split:
    """Return a split's first stays, without a copy."""
    return Split(*(field[:stays] for field in vars(split).values()))


def in_new_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Do work in a fresh process and return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(large_stays: int) -> dict[str, Any]:
    """Return every measurement, ready for JSON."""
    use_one_thread()
    with TemporaryDirectory() as folder:
        large = Path(folder) / "random"
        in_new_process(write_large, large, large_stays)
        memory = in_new_process(train_large, large)
    steps = [
        {"doubled": name, **size, "seconds": step_seconds(**size)}
        for name, sizes in DOUBLINGS.items()
        for size in ({**BASE, name: number} for number in sizes)
    ]
    return {
        "steps": steps,
        "growth": {name: _growth(name, [step for step in steps if step["doubled"] == name]) for name in DOUBLINGS},
        "seconds_preparation": preparation_seconds(PREPARED_STAYS),
        "frozen_head": head_seconds(STAYS, HEAD_EPOCHS),
        "memory": {
            "covers": COVERED,
            "stays": large_stays,
            "hours": BASE["hours"],
            "variables": LARGE_VARIABLES,
            **memory,
        },
    }


def _growth(name: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how much dearer a step is at the end of a range than at its start, and what of it is not linear."""
    first, last = steps[0], steps[-1]
    return {
        "first": first[name],
        "last": last[name],
        "times_size": last[name] / first[name],
        "times_seconds": last["seconds"]["median"] / first["seconds"]["median"],
        "not_linear": NOT_LINEAR[name],
    }


def show(found: dict[str, Any]) -> None:
    """Print the measurements as two tables and three lines."""
    lines: list[tuple[str, ...]] = []
    before: dict[str, float] = {}
    for step in found["steps"]:
        seconds = step["seconds"]["median"]
        times = f"{seconds / before[step['doubled']]:.2f}" if step["doubled"] in before else ""
        before[step["doubled"]] = seconds
        lines.append((*(str(step[name]) for name in BASE), f"{seconds:.3f}", times))
    print_table("One training step on one core", (*BASE, "seconds", "times the row above"), lines)
    print_table(
        "The ends of each range",
        ("", "from", "to", "size times", "seconds times", "not linear in it"),
        [
            (
                name,
                str(of["first"]),
                str(of["last"]),
                f"{of['times_size']:g}",
                f"{of['times_seconds']:.2f}",
                of["not_linear"],
            )
            for name, of in found["growth"].items()
        ],
    )
    print(
        f"Masks, gaps and last observations of {PREPARED_STAYS:,} stays, both directions: "
        f"{found['seconds_preparation']['median']:.2f} s"
    )
    head, memory = found["frozen_head"], found["memory"]
    print(
        f"{head['epochs']} epochs of a frozen mlp2, a fold of {head['stays']:,} stays: {head['seconds_epochs']:.1f} s; "
        f"before them, representations and a first epoch: {head['seconds_until_first_epoch']:.1f} s"
    )
    print(
        f"Training on {memory['stays']:,} stays x {memory['hours']} hours x {memory['variables']} variables: "
        f"{memory['peak_gib']:.2f} GiB at the peak ({memory['peak_gib_before_scoring']:.2f} before scoring), "
        f"{memory['seconds_before_training']:.0f} s before the first step; {memory['covers']}"
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.csai_scaling", (__doc__ or "").splitlines()[0])
    parser.add_argument("--stays", type=int, default=LARGE_STAYS, help="whose memory is measured (%(default)s)")
    given = parser.parse_args()
    if given.stays < 100:
        raise UserError(f"--stays must be 100 or more, so that folds can be drawn; got {given.stays}")
    report(measure(given.stays), show, given.json)


if __name__ == "__main__":
    run(main)
