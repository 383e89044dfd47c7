"""How CSAI's cost grows: seconds of a training step, seconds of masks and gaps, memory of training on 50,000 stays.

    python -m benchmarks.csai_scaling [--json] [--stays N]

Each row of the first table doubles one of stays, hours and variables and leaves the others; the records are random.
"""

import json
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

from benchmarks import Parser, run, spread, timed
from benchmarks.csai_speed import new_imputer, settings
from imputune.config import Params
from imputune.console import print_table
from imputune.data.cohort import DESCRIPTORS, Cohort, Variable, read_cohort, write_cohort
from imputune.data.folds import Fold, draw_folds
from imputune.data.masking import hide
from imputune.data.partitions import Partition, fit_and_divide
from imputune.data.views import Views
from imputune.errors import UserError
from imputune.training.pretrain import Pretraining

BASE = {"stays": 64, "hours": 48, "variables": 35}  # of a batch
DOUBLINGS = {"stays": (64, 128, 256), "hours": (24, 48, 96), "variables": (35, 70, 140)}
STEPS, REPETITIONS = 4, 5
PREPARED_STAYS = 4000
LARGE_STAYS, LARGE_VARIABLES = 50_000, 89
BATCHES = 20  # of the training whose memory is measured: enough for every buffer to have been used
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
        died_N=(np.arange(stays) % 5 == 0).astype(np.int8),
        values_NTD=values_NTD,
        variables=tuple(Variable(f"v{number}", "1") for number in range(variables)),
        descriptors=pd.DataFrame(np.nan, index=range(stays), columns=list(DESCRIPTORS)),
        source={"exclusions": {}},
    )


def step_seconds(stays: int, hours: int, variables: int) -> dict[str, float]:
    """Return the seconds of one training step on a batch of so many stays; the first few steps are not timed."""
    cohort = random_cohort(STEPS * stays + 2, hours, variables)
    every = np.arange(STEPS * stays)
    fold = Fold(0, every, every[-1:] + 1, every[-1:] + 2)
    params = _with_batch(settings(cohort, REPETITIONS + 1), stays)
    data = fit_and_divide(cohort, fold, params.scaling.tail_share)
    training = Pretraining(new_imputer(cohort, data, params), data, params)
    return spread([timed(training.train_epoch) / STEPS for _ in range(REPETITIONS + 1)][1:])


def _with_batch(params: Params, stays: int) -> Params:
    return params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"batch_size": stays})})


def preparation_seconds(stays: int) -> dict[str, float]:
    """Return the seconds that masks, gaps and last observations of both readings of all stays take."""
    shape = (stays, BASE["hours"], BASE["variables"])
    generator = torch.Generator().manual_seed(0)
    observed_NTD = (torch.rand(shape, generator=generator) < OBSERVED_SHARE).float()
    values_NTD = torch.randn(shape, generator=generator) * observed_NTD
    rate_D = torch.full(shape[-1:], 0.1)

    def prepare() -> None:
        Views.read(values_NTD, observed_NTD - hide(observed_NTD, rate_D, generator))

    return spread([timed(prepare) for _ in range(REPETITIONS + 1)][1:])


def write_large(folder: Path, stays: int) -> None:
    """Write a random cohort; in a process of its own, whose memory is not that of training."""
    write_cohort(random_cohort(stays, BASE["hours"], LARGE_VARIABLES), folder)


def train_large(folder: Path) -> dict[str, float]:
    """Train on the first batches of a cohort's fold, and return this process's peak memory in GiB and the seconds."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    cohort = read_cohort(folder)
    params = settings(cohort, 1)
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_divide(cohort, fold, params.scaling.tail_share)
    prepared = time.perf_counter()
    training = Pretraining(new_imputer(cohort, data, params), data, params)
    training.train = _first(data.train, BATCHES * params.pretrain.batch_size)
    training.train_epoch()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    return {"peak_gib": peak, "seconds_before_training": prepared - started, "training_stays": len(data.train)}


def _first(part: Partition, stays: int) -> Partition:
    """Return a part's first stays, without a copy."""
    return Partition(*(field[:stays] for field in vars(part).values()))


def in_new_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Do work in a fresh process and return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(large_stays: int) -> dict[str, Any]:
    """Return every measurement, ready for JSON."""
    torch.set_num_threads(1)
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
        "seconds_preparation": preparation_seconds(PREPARED_STAYS),
        "memory": {"stays": large_stays, "hours": BASE["hours"], "variables": LARGE_VARIABLES, **memory},
    }


def show(found: dict[str, Any]) -> None:
    """Print the measurements as a table and two lines."""
    lines: list[tuple[str, ...]] = []
    before: dict[str, float] = {}
    for step in found["steps"]:
        seconds = step["seconds"]["median"]
        times = f"{seconds / before[step['doubled']]:.2f}" if step["doubled"] in before else ""
        before[step["doubled"]] = seconds
        lines.append((*(str(step[name]) for name in BASE), f"{seconds:.3f}", times))
    print_table("One training step on one core", (*BASE, "seconds", "times the row above"), lines)
    print(
        f"Masks, gaps and last observations of {PREPARED_STAYS:,} stays, both readings: "
        f"{found['seconds_preparation']['median']:.2f} s"
    )
    memory = found["memory"]
    print(
        f"Training on {memory['stays']:,} stays x {memory['hours']} hours x {memory['variables']} variables: "
        f"{memory['peak_gib']:.2f} GiB at the peak, {memory['seconds_before_training']:.0f} s before the first step"
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser(prog="python -m benchmarks.csai_scaling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--stays", type=int, default=LARGE_STAYS, help="whose memory is measured (%(default)s)")
    given = parser.parse_args()
    if given.stays < 100:
        raise UserError(f"--stays must be 100 or more, so that folds can be drawn; got {given.stays}")
    found = measure(given.stays)
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    run(main)
