"""How CSAI's cost grows with stays, hours and variables, and what masks, gaps and a frozen head take.

    python -m benchmarks.csai_scaling [--json] [--figure FILE]

Each row pretrains on a random cohort in a process of its own, on one core: one epoch with its validation, after a first
one that is not counted, and the most memory that the process had of its own (pages of the cohort's file do not count).
Rows change the stays, the hours or the variables and keep the other two. --figure draws them (PNG, SVG or PDF).

An epoch takes time in proportion to the stays, but not to the other two:

    hours        the self-attention before the recurrence compares every hour of a stay with every other: hours squared
    variables    the feature regression, the conditional decay and the combination weight are matrices of variables by
                 variables: variables squared

All other parts are proportional. `benchmarks.large_cohort` measures memory step by step.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from matplotlib import pyplot

from benchmarks import Parser, Result, Spread, report, run, timed
from benchmarks.csai_speed import STAYS
from benchmarks.own_memory import in_new_process
from benchmarks.training import OBSERVED_FRACTION, Stopwatch, settings, write_random_cohort
from imputune.data.cohort import read_cohort
from imputune.data.directions import Directions
from imputune.data.folds import draw_folds
from imputune.data.masking import draw_mask
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.splits import fit_and_split
from imputune.errors import UserError
from imputune.imputers.build import new_csai
from imputune.models.compiled.library import name_of_code
from imputune.models.weights import module_weights
from imputune.protocol.variants import make_variant
from imputune.runtime.console import print_table
from imputune.runtime.threads import use_one_thread
from imputune.settings.schema import Budget
from imputune.training.finetune import FinetuneJob, finetune_fold
from imputune.training.imputer_training import CsaiTraining

BASE = {"stays": 1_000, "hours": 48, "variables": 35}
RANGES = {"stays": (1_000, 5_000, 10_000, 50_000), "hours": (24, 48, 96, 168), "variables": (35, 70, 140, 350)}
REPETITIONS = 5
PREPARED_STAYS = 4000
HEAD_EPOCHS = 200
FIGURES = (".png", ".svg", ".pdf")
GIB = 2**30


class Cost(Result):
    """An epoch of pretraining CSAI with its validation; `grown`: which size this row varies."""

    grown: str
    stays: int
    hours: int
    variables: int
    seconds: float
    own_gib: float


class FrozenHead(Result):
    """Fine-tuning of a frozen mlp2 on one fold; the first epoch is not in `seconds_epochs`."""

    stays: int
    epochs: int
    seconds_until_first_epoch: float
    seconds_epochs: float


class Scaling(Result):
    """All measurements; compiled: the compiled code that was used."""

    compiled: str
    costs: list[Cost]
    seconds_preparation: Spread
    frozen_head: FrozenHead


def cost_of(grown: str, size: dict[str, int]) -> Cost:
    """Measure an epoch on a cohort of this size."""
    with TemporaryDirectory() as folder:
        cohort = Path(folder) / "cohort"
        in_new_process(write_random_cohort, cohort, tuple(size.values()))
        seconds, own = in_new_process(epoch_seconds, cohort)
    return Cost(grown=grown, **size, seconds=seconds, own_gib=own / GIB)


def epoch_seconds(folder: Path) -> float:
    """Return the seconds of the second epoch of pretraining CSAI on a cohort's first fold, on one core."""
    use_one_thread()
    cohort = read_cohort(folder)
    params = settings(cohort, 2)
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    training = CsaiTraining(new_csai(data, params), data, params)

    def epoch() -> None:
        training.train_epoch()
        training.validate()

    epoch()
    return timed(epoch)


def preparation_seconds(stays: int) -> Spread:
    """Return the seconds to draw masks and compute gaps and last observations of both directions of all stays."""
    shape = (stays, BASE["hours"], BASE["variables"])
    generator = torch.Generator().manual_seed(0)
    observed_NTD = (torch.rand(shape, generator=generator) < OBSERVED_FRACTION).float()
    values_NTD = torch.randn(shape, generator=generator) * observed_NTD
    rate_D = torch.full(shape[-1:], 0.1)

    def prepare() -> None:
        Directions.of(values_NTD, observed_NTD - draw_mask(observed_NTD, rate_D, generator))

    return Spread.of([timed(prepare) for _ in range(REPETITIONS + 1)][1:])


def head_seconds(stays: int, epochs: int) -> FrozenHead:
    """Return the seconds of so many epochs of a frozen mlp2, on a fold of the generated cohort.

    One more epoch is trained: at the end of the first one, all representations are computed, and the time from there
    to the last one is that of `epochs` epochs. The imputer is untrained, which does not change the cost.
    """
    cohort = extract_synthetic(stays)
    params = settings(cohort, 1)
    budget = {params.dataset: Budget(pretrain_epochs=1, frozen_epochs=epochs + 1, unfrozen_epochs=1)}
    patient = params.finetune.model_copy(update={"patience": epochs + 2})
    params = params.model_copy(update={"budget": budget, "finetune": patient})
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    arrays = data.scaler.to_arrays() | module_weights("imputer", new_csai(data, params))
    watch = Stopwatch()
    started = time.perf_counter()
    job = FinetuneJob(
        cohort=cohort,
        fold=fold,
        params=params,
        variant=make_variant("mlp2"),
        pretrained={name: torch.from_numpy(array) for name, array in arrays.items()},
    )
    finetune_fold(job, watch)
    return FrozenHead(
        stays=stays,
        epochs=len(watch.times) - 1,
        seconds_until_first_epoch=watch.times[0] - started,
        seconds_epochs=watch.seconds,
    )


def measure() -> Scaling:
    """Return every measurement."""
    costs = [cost_of(grown, BASE | {grown: size}) for grown, sizes in RANGES.items() for size in sizes]
    use_one_thread()
    return Scaling(
        compiled=name_of_code(),
        costs=costs,
        seconds_preparation=preparation_seconds(PREPARED_STAYS),
        frozen_head=head_seconds(STAYS, HEAD_EPOCHS),
    )


def show(scaling: Scaling) -> None:
    """Print the measurements as a table and two lines."""
    rows = [
        (f"{cost.stays:,}", str(cost.hours), str(cost.variables), f"{cost.seconds:.2f}", f"{cost.own_gib:.2f} GiB")
        for cost in scaling.costs
    ]
    title = f"An epoch of pretraining CSAI on one core, compiled code: {scaling.compiled}"
    print_table(title, (*BASE, "seconds", "own memory"), rows)
    print(
        f"Masks, gaps and last observations of {PREPARED_STAYS:,} stays, both directions: "
        f"{scaling.seconds_preparation.median:.2f} s"
    )
    head = scaling.frozen_head
    print(
        f"{head.epochs} epochs of a frozen mlp2, a fold of {head.stays:,} stays: {head.seconds_epochs:.1f} s; "
        f"before them, representations and a first epoch: {head.seconds_until_first_epoch:.1f} s"
    )


def draw(costs: list[Cost], file: Path) -> None:
    """Draw seconds (on logarithmic axes) and memory against each size."""
    figure, axes = pyplot.subplots(2, len(RANGES), figsize=(9, 5), sharey="row", layout="constrained")
    for column, grown in enumerate(RANGES):
        points = [cost for cost in costs if cost.grown == grown]
        sizes = [getattr(cost, grown) for cost in points]
        for row, numbers in enumerate(([cost.seconds for cost in points], [cost.own_gib for cost in points])):
            axis = axes[row, column]
            axis.plot(sizes, numbers, marker="o", color="#1f5a8a")
            axis.set_xscale("log")
            axis.set_xticks(sizes, [f"{size // 1000}k" if size >= 1000 else str(size) for size in sizes])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[1, column].set_xlabel(grown)
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("seconds an epoch")
    axes[0, 0].yaxis.set_major_formatter("{x:g}")
    axes[1, 0].set_ylabel("memory, GiB")
    axes[1, 0].set_ylim(bottom=0)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.csai_scaling", (__doc__ or "").splitlines()[0])
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the costs into this file")
    given = parser.parse_args()
    if given.figure and (given.figure.suffix not in FIGURES or not given.figure.parent.is_dir()):
        raise UserError(f"--figure {given.figure} must end in .png, .svg or .pdf and lie in a folder that exists")
    scaling = measure()
    report(scaling, show, given.json)
    if given.figure:
        draw(scaling.costs, given.figure)


if __name__ == "__main__":
    run(main)
